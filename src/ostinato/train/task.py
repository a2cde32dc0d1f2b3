"""Tasks: what `Training` knows about the data and the loss, and the task of next tokens.

`save_model` writes what was trained. Knows no optimizer and no schedule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.models import (
    GRU,
    Llama,
    MaskedBert,
    Tokenizer,
    device_of,
    save_masked,
    save_tensors,
    to_file,
)
from ostinato.train.batch_sampler import BatchSampler
from ostinato.train.completion_loss import completion_only_loss
from ostinato.train.data import Example


class Share(NamedTuple):
    """A part of a loss: its sum, and the number of terms in it."""

    total: float
    terms: float


class Loss(NamedTuple):
    """The loss of a batch.

    `total` is a scalar tensor, summed over what counts. `sizes` are report values that add up over
    batches (tokens, images). `parts` are losses by name (`loss/sigma_low`); the report shows their
    means.
    """

    total: Tensor
    sizes: Mapping[str, int]
    parts: Mapping[str, Share] = {}


def combined(losses: Sequence[Loss]) -> dict[str, object]:
    """Return the sums of the losses' sizes, and the means of their parts."""
    sizes: dict[str, int] = {}
    parts: dict[str, tuple[float, float]] = {}
    for loss in losses:
        for name, size in loss.sizes.items():
            sizes[name] = sizes.get(name, 0) + size
        for name, (total, count) in loss.parts.items():
            total_before, count_before = parts.get(name, (0.0, 0.0))
            parts[name] = (total_before + total, count_before + count)
    return sizes | {name: total / count for name, (total, count) in parts.items() if count}


class Task(Protocol):
    """What `Training` trains a network on. It refers to examples by their indices (`chosen`)."""

    @property
    def lengths(self) -> Sequence[int]:
        """The lengths of the training examples; a batch costs its longest times its size."""
        ...

    def loss_tokens(self, chosen: Sequence[int]) -> int:
        """Return the number of terms that the loss of these examples is summed over."""
        ...

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the loss of these examples; all random numbers come from `seed`."""
        ...

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return mean losses of the held-out examples, `loss/valid` first; empty without examples.

        Equal weights must give equal numbers. The network is in evaluation mode, without gradients.
        """
        ...

    def sample(self, network: nn.Module) -> object:
        """Return something the network generates, for the report's `sample`; None for nothing."""
        ...


class TextTask:
    """Next-token prediction: cross-entropy in nats, summed over the counted tokens.

    `write` is called with the network for each sample, and returns a text. `completion_only`
    runs the backward pass through the counted tokens only (`ostinato.train.completion_loss`): the
    same loss, a truncated gradient, about half the time where most tokens are prompt.
    """

    def __init__(
        self,
        train: Sequence[Example],
        valid: Sequence[Example] = (),
        *,
        write: Callable[[Llama | GRU], str] | None = None,
        completion_only: bool = False,
    ) -> None:
        self._train, self._valid, self._write = train, valid, write
        self._completion_only = completion_only

    @property
    def lengths(self) -> Sequence[int]:
        """The examples' lengths in tokens."""
        return [len(example) for example in self._train]

    def loss_tokens(self, chosen: Sequence[int]) -> int:
        """Return the number of counted tokens of the examples."""
        return sum(sum(self._train[i].loss_mask) for i in chosen)

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the summed cross-entropy; nothing here is random, so `seed` is not used."""
        examples = [self._train[i] for i in chosen]
        tokens, loss_mask = padded(examples)
        if self._completion_only:
            assert isinstance(network, Llama)
            lengths = [len(e) for e in examples]
            device = device_of(network)
            total = completion_only_loss(network, tokens.to(device), loss_mask.to(device), lengths)
        else:
            total = summed_loss(network, tokens, loss_mask)
        return Loss(total, {"tokens": tokens.numel()})

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return the mean loss in nats per counted token."""
        if not self._valid:
            return {}
        total, count = 0.0, 0
        for batch in BatchSampler([len(e) for e in self._valid], batch_tokens, 0).epoch(0):
            tokens, loss_mask = padded([self._valid[i] for i in batch])
            total += float(summed_loss(network, tokens, loss_mask))
            count += int(loss_mask.sum())
        return {"loss/valid": total / max(1, count)}

    def sample(self, network: nn.Module) -> object:
        """Return the text that `write` makes, if there is one."""
        assert isinstance(network, Llama | GRU)
        return None if self._write is None else self._write(network)


def padded(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Return tokens (B, T), padded on the right, and their loss mask (B, T)."""
    T = max(len(example) for example in examples)
    padding = [T - len(example) for example in examples]
    tokens = [[*e.tokens, *[0] * n] for e, n in zip(examples, padding, strict=True)]
    loss_mask = [[*e.loss_mask, *[False] * n] for e, n in zip(examples, padding, strict=True)]
    # numpy reads nested lists five times as fast as torch.tensor: 1.7 ms instead of 9.5 for 256
    # texts of 96 tokens, a good part of a small network's step on a GPU.
    return torch.from_numpy(np.array(tokens)), torch.from_numpy(np.array(loss_mask))


def summed_loss(network: nn.Module, tokens: Tensor, loss_mask: Tensor) -> Tensor:
    """Return the summed cross-entropy, in nats, of the counted tokens of a batch (B, T)."""
    assert isinstance(network, Llama | GRU)
    device = device_of(network)
    tokens, loss_mask = tokens.to(device), loss_mask.to(device)
    # The head, as wide as the vocabulary, runs only where the next token counts.
    hidden = network(tokens)[:, :-1][loss_mask[:, 1:]]  # (N, C)
    targets = tokens[:, 1:][loss_mask[:, 1:]]
    return F.cross_entropy(network.logits(hidden).float(), targets, reduction="sum")


# Saving -----------------------------------------------------------------------------------------


def save_model(folder: str | Path, network: Llama | GRU | MaskedBert, tokenizer: Tokenizer) -> Path:
    """Write a folder in the Hugging Face layout: configuration, weights, tokenizer; return it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(network, MaskedBert):
        save_masked(folder, network)
    elif isinstance(network, GRU):
        network.save(folder)
    else:
        _save_llama(folder, network, sorted(tokenizer.eos_ids))
    tokenizer.save(folder, network.config.max_position_embeddings)
    return folder


def _save_llama(folder: Path, network: Llama, eos_ids: list[int]) -> None:
    weights = to_file(network.config, network.state_dict())
    save_tensors(folder / "model.safetensors", weights)
    config = {name: v for name, v in network.config.to_dict().items() if v is not None}
    config |= {
        "torch_dtype": str(network.dtype).removeprefix("torch."),
        # transformers accepts a number or a list; a number is what most tools expect.
        "eos_token_id": eos_ids if len(eos_ids) > 1 else (eos_ids[0] if eos_ids else None),
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
