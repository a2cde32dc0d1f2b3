"""Parts of a drawing as folders: `config.json` and `model.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ostinato.errors import ModelError


def write_config(folder: Path, architecture: str, values: Mapping[str, object]) -> None:
    """Write `config.json` into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"architecture": architecture, **values}, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def read_config(folder: Path, architecture: str) -> dict[str, Any]:
    """Return what `write_config` wrote. Raises `ModelError` for anything else."""
    path = folder / "config.json"
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("architecture") != architecture:
            raise ValueError("another architecture")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{path} must be the config.json of {architecture}, got: {error}. "
            "`ostinato train drawing` makes one."
        ) from None
    assert isinstance(values, dict)
    return values


def write_weights(folder: Path, network: nn.Module) -> None:
    """Write `model.safetensors` into a folder that exists."""
    weights = {name: value.detach().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def read_weights(folder: Path, network: nn.Module) -> None:
    """Fill a network with the weights of a folder. Raises `ModelError` where they do not fit."""
    path = folder / "model.safetensors"
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"{path} must hold the weights that config.json describes, got: "
            f"{str(error).splitlines()[0]}. Train or copy the folder again."
        ) from None
    network.eval()
