"""Networks of ours as folders: `config.json` and `model.safetensors`. Knows no architecture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ostinato.errors import InputError, ModelError

TOLD = 300  # characters of an error in a message
MEND = "Train, copy or download the folder again."
Config = TypeVar("Config")
Weights = Mapping[str, Tensor]


def write_config(folder: Path, values: Mapping[str, object]) -> None:
    """Write `config.json` into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def read_config(folder: Path, architecture: str, make: Callable[..., Config]) -> Config:
    """Return what `make` makes of the values beside `architecture` in `config.json`.

    Raises `ModelError` where it is missing, damaged or of another architecture.
    """
    path = folder / "config.json"
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("architecture") != architecture:
            raise ValueError("another architecture")
        return make(**values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, InputError) as error:
        raise ModelError(
            f"{path} must be the config.json of {architecture}, got: {error}. {MEND}"
        ) from None


def write_weights(folder: Path, network: nn.Module, *, dtype: torch.dtype | None = None) -> None:
    """Write `model.safetensors` into a folder that exists; `dtype` may be a half one."""
    weights = {
        name: value.detach().to(dtype or value.dtype).contiguous()
        for name, value in network.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def read_weights(
    folder: Path, network: nn.Module, named: Callable[[Weights], Weights] = dict
) -> None:
    """Fill a network with the weights of a folder, in its own types, and set it to evaluation.

    `named` gives the weights the names that the network knows. Raises `ModelError` where they do
    not fit.
    """
    path = folder / "model.safetensors"
    try:
        network.load_state_dict(named(load_file(path)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"{path} must hold the weights that config.json describes, got: "
            f"{' '.join(str(error).split())[:TOLD]} {MEND}"
        ) from None
    network.eval()
