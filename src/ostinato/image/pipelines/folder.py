"""Loading a pipeline's folder, checked before anything is loaded. Knows no lane."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ostinato.errors import MissingExtra, ModelError
from ostinato.image.pipelines.families import PipelineFamily
from ostinato.image.pipelines.text_to_image import FAMILIES
from ostinato.text_files import read_object, unmarked

INDEX = "model_index.json"
# The last is a module of diffusers: folders give the class of the safety checker with it.
LIBRARIES = ("diffusers", "transformers", "stable_diffusion")


def load_pipeline(
    folder: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> PipelineFamily:
    """Load a pipeline that was saved in the layout of `diffusers`.

    Reads local safetensors files only, and runs no code from the folder. Raises `ModelError` for a
    folder that is no pipeline, lacks a component or has an unsupported layout; `MissingExtra`
    without `diffusers` and `transformers`.
    """
    folder = Path(folder)
    index = _read_index(folder)
    components = _components(folder, index)
    family = _family(folder, components)
    # `from_pretrained` fails for a missing component unless it is passed as None.
    absent = [name for name in family.optional if name not in components]
    pipeline = _load(folder, family.class_name(str(index.get("_class_name"))), absent)
    return family(pipeline.to(device=device, dtype=dtype))


def is_pipeline(folder: str | Path) -> bool:
    """Return whether a folder looks like a saved pipeline."""
    return (Path(folder) / INDEX).is_file()


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise ModelError(
            f"A pipeline must be a folder with {INDEX}, got {str(folder)!r} without one. Name the "
            "folder that `save_pretrained` wrote, or that was downloaded whole."
        )
    return read_object(path, raises=ModelError, fix="Copy the folder again.")


def _components(folder: Path, index: Mapping[str, Any]) -> dict[str, str]:
    """Return the class of each component by name.

    Raises `ModelError` where one has no folder, or its code comes from the folder itself.
    """
    components: dict[str, str] = {}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list) or entry[:1] == [None]:
            continue  # a setting, or a component that the pipeline was saved without
        library, class_name = (str(part) for part in entry[:2])
        if library not in LIBRARIES:
            raise ModelError(
                f"The component {name!r} of {folder} must come from {' or '.join(LIBRARIES[:2])}, "
                f"got {library!r}. Code from a folder is not run: replace the component."
            )
        if not (folder / name).is_dir():
            raise ModelError(
                f"{folder} must hold a folder for its component {name!r} ({class_name}), got none. "
                "Copy or download the pipeline again, whole."
            )
        components[name] = class_name
    return components


def _family(folder: Path, components: Mapping[str, str]) -> type[PipelineFamily]:
    """Return the family that fits. Raises `ModelError` that lists the supported layouts."""
    for family in FAMILIES:
        if family.fits(components):
            return family
    found = ", ".join(f"{name} ({kind})" for name, kind in sorted(components.items()))
    supported = "; ".join(family.layout for family in FAMILIES)
    raise ModelError(
        f"{folder} must have a supported layout, got {found or 'no components'}. "
        f"Supported: {supported}."
    )


def _load(folder: Path, class_name: str, absent: Sequence[str]) -> Any:
    """Load a pipeline by its class; components in `absent` are None."""
    try:
        import diffusers
        import transformers  # noqa: F401  (without it, diffusers has placeholders)
    except ImportError:
        raise MissingExtra("A pipeline of diffusers", "diffusers") from None
    try:
        with _no_progress_bars(), unmarked(folder) as readable:
            return getattr(diffusers, class_name).from_pretrained(
                readable,
                variant=_variant(folder),
                use_safetensors=True,
                local_files_only=True,
                **dict.fromkeys(absent),
            )
    # The libraries raise all of these for damaged folders.
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{folder} must hold what {class_name} loads, in safetensors, got: {reason}. "
            "Save it again with `save_pretrained`, or copy it again."
        ) from None


def _variant(folder: Path) -> str | None:
    """Return `fp16` where the folder holds its weights under that name only."""
    half = list(folder.glob("*/*.fp16.safetensors"))
    full = [path for path in folder.glob("*/*.safetensors") if ".fp16" not in path.name]
    return "fp16" if half and not full else None


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Load without the progress bars of the two libraries."""
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
