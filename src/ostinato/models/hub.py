"""Download a model from the Hugging Face hub into that library's own cache.

Only configuration, tokenizer and safetensors files are downloaded: nothing that would be unpickled
or executed. A cached model is not downloaded again and works offline. Knows no network layouts.
"""

from __future__ import annotations

import re
from pathlib import Path

from ostinato.errors import MissingExtra, ModelError

_NAME = re.compile(r"\w[\w.-]*/[\w.-]+(@[\w./-]+)?", re.ASCII)
_ALLOWED = ["*.json", "*.jinja", "*.safetensors"]
_IGNORED = ["*/*", "consolidated*"]  # other formats, and the same weights in another layout


def is_hub_name(name: str) -> bool:
    """Return whether `name` has the form of a hub name: `org/name` or `org/name@revision`."""
    return _NAME.fullmatch(name) is not None


def hub_folder(name: str) -> Path:
    """Download the missing files of a model; return its folder.

    Raises `ModelError` where the hub cannot be reached or lacks the model, `MissingExtra` where
    `huggingface_hub` is not installed.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise MissingExtra(f"{name!r} is not a folder here; downloading it", "hf") from None
    repository, _, revision = name.partition("@")
    try:
        folder = huggingface_hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=_ALLOWED, ignore_patterns=_IGNORED
        )
    except errors.GatedRepoError:
        raise ModelError(
            f"{name!r} must be open to you, got a model whose terms you must accept first. "
            "Accept them on its page on the hub, then run: hf auth login"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise ModelError(
            f"{name!r} must be a folder here or a model on the hub, got neither. "
            "Check the spelling; for a private model of yours, run: hf auth login"
        ) from None
    except Exception as error:  # offline, the library raises whatever its HTTP client does
        raise ModelError(
            f"the hub must be reachable to get {name!r}, which is not a folder here, got: "
            f"{_first_line(error)} Check the network, or copy the model's folder to this machine "
            "and give its path."
        ) from error
    return _checked(Path(folder), name)


def _checked(folder: Path, name: str) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{name!r} must hold config.json, got none. Use a model in the layout of transformers."
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{name!r} must hold its weights as safetensors, got none. Pickled weights are not "
            "read: use another revision, or convert them with transformers (save_pretrained)."
        )
    return folder


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, as a sentence."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    line = line.removeprefix("Got: ")  # the library's own prefix would follow our "got:"
    return line if line.endswith(".") else f"{line}."
