"""Loading a pipeline's folder, checked before anything is loaded. Knows no lane."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ostinato.errors import MissingExtra, ModelError
from ostinato.image.pipelines.families import PipelineFamily
from ostinato.image.pipelines.text_to_image import FAMILIES
from ostinato.image.pipelines.weight_files import variant_of
from ostinato.text_files import read_object, unmarked

INDEX = "model_index.json"
# The last is a module of diffusers: folders give the class of the safety checker with it.
LIBRARIES = ("diffusers", "transformers", "stable_diffusion")


def load_pipeline(
    folder: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> PipelineFamily:
    """Load a pipeline that was saved in the layout of `diffusers`.

    Reads local safetensors files only, and runs no code from the folder. A component whose weights
    are there as a variant only (fp16, bf16) is read from that; `variants` of the result tells it.
    Raises `ModelError` for a
    folder that is no pipeline, lacks a component or has an unsupported layout; `MissingExtra`
    without `diffusers` and `transformers`.
    """
    folder = Path(folder)
    index = _read_index(folder)
    components = _components(folder, index)
    family = _family(folder, components)
    variants = {name: variant_of(folder / name) for name in components}
    _require_libraries()
    _require_classes(folder, index, components)
    # `from_pretrained` fails for a missing component unless it is passed as None.
    given: dict[str, Any] = {name: None for name in family.optional if name not in components}
    class_name = family.class_name(str(index.get("_class_name")))
    with _loading(folder, class_name) as readable:
        for name, variant in variants.items():
            if variant is not None:  # for the whole pipeline, it would be one for all of them
                given[name] = _class_of(index[name]).from_pretrained(
                    readable / name, variant=variant, use_safetensors=True, local_files_only=True
                )
        pipeline = getattr(_module("diffusers"), class_name).from_pretrained(
            readable, use_safetensors=True, local_files_only=True, **given
        )
    loaded = family(_placed(pipeline, dtype, device))
    loaded.variants = {name: variant for name, variant in variants.items() if variant is not None}
    return loaded


def is_pipeline(folder: str | Path) -> bool:
    """Return whether a folder looks like a saved pipeline."""
    return (Path(folder) / INDEX).is_file()


def part_names(folder: str | Path) -> list[str]:
    """Return the subfolders of a pipeline's components. Raises `ModelError` for a missing one."""
    folder = Path(folder)
    return sorted(_components(folder, _read_index(folder)))


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
        if len(entry) != 2:
            raise ModelError(
                f"{folder / INDEX} must give a library and a class for {name!r}, got {entry}. "
                "Copy the folder again."
            )
        library, class_name = (str(part) for part in entry)
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


def _placed(pipeline: Any, dtype: torch.dtype, device: str) -> Any:
    """Move a pipeline to a device, and the parts of another type to `dtype`."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module) and part.dtype != dtype:
            part.to(dtype)  # only these: diffusers warns whenever it is told a type
    return pipeline.to(device=device)


def _require_libraries() -> None:
    try:
        import diffusers  # noqa: F401
        import transformers  # noqa: F401  (without it, diffusers has placeholders)
    except ImportError:
        raise MissingExtra("A pipeline of diffusers", "diffusers") from None


def _require_classes(folder: Path, index: Mapping[str, Any], components: Mapping[str, str]) -> None:
    """Raise `ModelError` for a class that the installed libraries do not have."""
    for name, class_name in components.items():
        library = index[name][0]
        if not hasattr(_module(library), class_name):
            raise ModelError(
                f"The component {name!r} of {folder} must be of a class that {library} has, got "
                f"{class_name!r}. Update {library}, or replace the component."
            )


def _module(library: str) -> Any:
    """Return the module of a library; see `LIBRARIES`."""
    nested = library == "stable_diffusion"
    return importlib.import_module("diffusers.pipelines.stable_diffusion" if nested else library)


def _class_of(entry: Sequence[str]) -> Any:
    library, class_name = entry
    return getattr(_module(library), class_name)


@contextmanager
def _loading(folder: Path, class_name: str) -> Iterator[Path]:
    """Load without progress bars; what the libraries raise becomes a `ModelError`.

    Yields a folder of the same content whose text files have no byte order mark.
    """
    try:
        with _no_progress_bars(), unmarked(folder) as readable:
            yield readable
    # The libraries raise all of these for damaged folders.
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        ImportError,
    ) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{folder} must hold what {class_name} loads, in safetensors, got: {reason}. "
            "Save it again with `save_pretrained`, or copy it again."
        ) from None


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
