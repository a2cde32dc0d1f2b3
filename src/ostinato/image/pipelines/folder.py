"""A pipeline's folder: what lies in it, checked before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ostinato.errors import MissingExtra, ModelError
from ostinato.image.pipelines.families import PipelineFamily
from ostinato.image.pipelines.text_to_image import FAMILIES

INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers", "stable_diffusion")


def load_pipeline(
    folder: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> PipelineFamily:
    """Load the components of a pipeline that was saved in the layout of `diffusers`.

    Reads local files in safetensors only, and runs no code out of the folder. Raises `ModelError`
    where the folder is none of a pipeline, lacks a component or is of a layout that cannot be
    stepped; `MissingExtra` without `diffusers` and `transformers`.
    """
    folder = Path(folder)
    index = _read_index(folder)
    components = _components(folder, index)
    family = _family(folder, components)
    absent = [name for name in family.optional if name not in components]
    pipeline = _load(folder, family.class_name(str(index.get("_class_name"))), absent)
    return family(pipeline.to(device=device, dtype=dtype))


def is_pipeline(folder: str | Path) -> bool:
    """Tell whether a folder looks like one that a pipeline was saved in."""
    return (Path(folder) / INDEX).is_file()


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise ModelError(
            f"A pipeline must be a folder with {INDEX}, got {str(folder)!r} without one. Name the "
            "folder that `save_pretrained` wrote, or that was downloaded whole."
        )
    try:
        index = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} must be JSON, got: {error}. Copy the folder again.") from None
    if not isinstance(index, dict):
        raise ModelError(f"{path} must hold a mapping, got {type(index).__name__}.")
    return index


def _components(folder: Path, index: Mapping[str, Any]) -> dict[str, str]:
    """Return the classes of the components; every one has its folder and comes from a library."""
    components: dict[str, str] = {}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list) or entry[:1] == [None]:
            continue
        library, class_name = (str(part) for part in entry[:2])
        if library not in LIBRARIES:
            raise ModelError(
                f"The component {name!r} of {folder} must come from {' or '.join(LIBRARIES[:2])}, "
                f"got {library!r}. Code out of a folder is not run: replace the component."
            )
        if not (folder / name).is_dir():
            raise ModelError(
                f"{folder} must hold a folder for its component {name!r} ({class_name}), got none. "
                "Copy or download the pipeline again, whole."
            )
        components[name] = class_name
    return components


def _family(folder: Path, components: Mapping[str, str]) -> type[PipelineFamily]:
    for family in FAMILIES:
        if family.fits(components):
            return family
    found = ", ".join(f"{name} ({kind})" for name, kind in sorted(components.items()))
    wanted = "; ".join(family.layout for family in FAMILIES)
    raise ModelError(
        f"{folder} must be of a layout that can be stepped, got {found or 'no components'}. "
        f"Known: {wanted}."
    )


def _load(folder: Path, class_name: str, absent: Sequence[str]) -> Any:
    try:
        import diffusers
        import transformers  # noqa: F401
    except ImportError:
        raise MissingExtra("A pipeline of diffusers", "diffusers") from None
    try:
        with quiet():
            return getattr(diffusers, class_name).from_pretrained(
                folder,
                variant=_variant(folder),
                use_safetensors=True,
                local_files_only=True,
                **dict.fromkeys(absent),
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        told = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{folder} must hold what {class_name} loads, in safetensors, got: {told}. "
            "Save it again with `save_pretrained`, or copy it again."
        ) from None


def _variant(folder: Path) -> str | None:
    """Return `fp16` where the weights are there under that name alone."""
    half = list(folder.glob("*/*.fp16.safetensors"))
    whole = [path for path in folder.glob("*/*.safetensors") if ".fp16" not in path.name]
    return "fp16" if half and not whole else None


@contextmanager
def quiet() -> Iterator[None]:
    """Load without the bars of the two libraries."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in libraries:
            library.enable_progress_bar()
