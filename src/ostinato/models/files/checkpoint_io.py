"""Our networks as folders: `config.json` and `model.safetensors`. Knows no architecture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ostinato.arguments import reason
from ostinato.errors import ModelError
from ostinato.models.files.hashing import usual_mode
from ostinato.models.files.json_values import write_json
from ostinato.text_files import read_object

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_ERROR = 300  # characters of an error in a message: a network may list hundreds of names
FIX = "Train, copy or download the folder again."
Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)
Weights = Mapping[str, Tensor]


def save_network(
    folder: str | Path,
    architecture: str,
    config: DataclassInstance,
    network: nn.Module,
    *,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write `config.json` and `model.safetensors`; return the folder.

    `dtype` is that of the file, such as a half precision; None keeps the network's.
    """
    folder = Path(folder)
    write_config(folder, {"architecture": architecture, **asdict(config)})
    write_weights(folder, network, dtype=dtype)
    return folder


def load_network(
    folder: Path,
    architecture: str,
    config: Callable[..., Config],
    make: Callable[[Config], Network],
) -> Network:
    """Return the network `make(config(**values))` of a folder, set to evaluation.

    Raises `ModelError` for files that are missing, damaged or of another architecture.
    """
    network = make(read_config(folder, architecture, config))
    read_weights(folder, network)
    return network


def network_folder(
    name: str | Path, what: str, made_by: str, *, shipped: Path | None = None
) -> Path:
    """Return a folder that holds a network: a path, or the name of one in the folder `shipped`.

    Raises `ModelError` for any other, which calls it `what` and says what makes one.
    """
    folders = [Path(name), *([] if shipped is None else [shipped / str(name)])]
    for folder in folders:
        if (folder / "config.json").is_file():
            return folder
    known = [] if shipped is None else sorted(p.parent.name for p in shipped.glob("*/config.json"))
    raise ModelError(
        f"{what} must be a folder with config.json and model.safetensors"
        f"{', or one of ' if known else ''}{', '.join(known)}, got {str(name)!r}. {made_by} "
        "makes one."
    )


def write_config(folder: Path, values: Mapping[str, object]) -> None:
    """Write `config.json`; create the folder where needed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", values)


def read_config(folder: Path, architecture: str, make: Callable[..., Config]) -> Config:
    """Return `make(**values)` for the values of `config.json` other than `architecture`.

    Raises `ModelError` where the file is missing, damaged or of another architecture.
    """
    path = folder / "config.json"
    values = read_object(path, fix=FIX, raises=ModelError)
    try:
        if values.pop("architecture", None) != architecture:
            raise ValueError("another architecture")
        return make(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{path} must be the config.json of {architecture}, got: {reason(error)}. {FIX}"
        ) from None


def write_weights(folder: Path, network: nn.Module, *, dtype: torch.dtype | None = None) -> None:
    """Write `model.safetensors` into an existing folder, in `dtype` (by default, their own)."""
    weights = {
        name: value.detach().to(dtype or value.dtype).contiguous()
        for name, value in network.state_dict().items()
    }
    save_tensors(folder / "model.safetensors", weights)


def save_tensors(path: Path, weights: Weights) -> None:
    """Write a safetensors file, which others may read where they may read new files."""
    save_file(dict(weights), path, metadata={"format": "pt"})
    os.chmod(path, usual_mode(path.parent))


@contextmanager
def reading_weights(path: Path, fix: str) -> Iterator[None]:
    """Turn the errors of reading a safetensors file into `ModelError`s that end in `fix`."""
    try:
        yield
    except FileNotFoundError:
        raise ModelError(f"{path} must exist, got no such file. {fix}") from None
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} must be a whole safetensors file, got: {reason(error)}. {fix}"
        ) from error


def read_weights(
    folder: Path, network: nn.Module, rename: Callable[[Weights], Weights] = dict
) -> None:
    """Load the weights of a folder into a network, in its dtypes, and set it to evaluation.

    `rename` maps the file's names to the network's. Raises `ModelError` where weights are missing,
    left over or of another shape.
    """
    path = folder / "model.safetensors"
    try:
        network.load_state_dict(rename(load_file(path)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"{path} must hold the weights that config.json describes, got: "
            f"{' '.join(str(error).split())[:MAX_ERROR]} {FIX}"
        ) from None
    network.eval()
