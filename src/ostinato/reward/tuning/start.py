"""The model that a tuning starts from, and how what was tuned is saved. Knows no rewards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ostinato.models import (
    LanguageModel,
    adapter_folder,
    add_lora,
    compute_dtype,
    find_device,
    has_adapter,
    load_adapter,
    load_model,
    lora_layers,
    merge,
    near_place,
    save_adapter,
    split_adapter,
)
from ostinato.train import save_model


def load_start(
    name: str, adapter: str = "", *, rank: int, device: str = "cpu", seed: int = 0
) -> LanguageModel:
    """Load a model to train: its adapter, a new one of a rank, or for rank 0 all weights.

    Small updates are lost in bfloat16, so what learns is float32; only a frozen base beside an
    adapter has the type that is fast on the device. Raises `ModelError` for a network that is none
    of ours.
    """
    base, plus = split_adapter(name)
    adapter, where = adapter or plus, find_device(device)
    dtype = compute_dtype(where) if rank else torch.float32
    model = load_model(base, dtype=dtype, compile=False, device=device)
    network = model.llama()
    if adapter:
        load_adapter(network, adapter_folder(adapter))
        for _, layer in lora_layers(network):
            layer.dropout = 0.0  # what is sampled and what is trained must be one distribution
    elif rank:
        # alpha is twice the rank, as in the defaults of `add_lora`.
        add_lora(network, rank, 2.0 * rank, seed=seed)
    if not rank:
        merge(network)
        network.requires_grad_(True)
    network.to(where)
    return replace(model, compile=None)


def saver(model: LanguageModel, base: str) -> Callable[[object, Path], None]:
    """Return what writes the adapter, or the whole model, with the weights that it then has."""

    def save(process: object, folder: Path) -> None:
        network = model.llama().eval()
        if has_adapter(network):
            save_adapter(network, folder, base=near_place(split_adapter(base)[0]))
        else:
            save_model(folder, network, model.tokenizer)

    return save
