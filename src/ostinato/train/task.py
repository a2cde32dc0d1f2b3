"""What is learned: examples, and the loss of some of them. `Training` knows no more of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.models import GRU, Llama, device_of
from ostinato.train.batch_sampler import BatchSampler
from ostinato.train.completion_loss import completion_only_loss
from ostinato.train.data import Example


class Share(NamedTuple):
    """A part of a loss: summed, and over how much."""

    total: float
    over: float


class Loss(NamedTuple):
    """The loss of a batch.

    `total` () is summed over what counts. `sizes` are numbers of the report that add up (tokens,
    images); `parts` are losses by name (`loss/sigma_low`), of which the report tells the means.
    """

    total: Tensor
    sizes: Mapping[str, int]
    parts: Mapping[str, Share] = {}


class Task(Protocol):
    """What `Training` trains a network on; examples are known to it by their indices."""

    @property
    def lengths(self) -> Sequence[int]:
        """The lengths of the examples to train on; a batch is as long as its longest, so often."""
        ...

    def loss_tokens(self, chosen: Sequence[int]) -> int:
        """Return how much the loss of these examples is summed over."""
        ...

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the loss of these examples; all that is random comes from `seed`."""
        ...

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return mean losses of the held-out examples, `loss/valid` first; none: no such examples.

        Equal weights give equal numbers. The network is in evaluation mode, without gradients.
        """
        ...

    def sample(self, network: nn.Module) -> object:
        """Return what the network makes, for the report's `sample`; None where nothing is made."""
        ...


class TextTask:
    """Next tokens of texts: cross-entropy in nats, summed over the counted tokens.

    `write` is called with the network when a sample is due, and returns a text. `answers` takes the
    backward pass through the counted tokens only (`ostinato.train.completion_loss`): the same loss, a
    truncated gradient, about half the time where most tokens are read and not written.
    """

    def __init__(
        self,
        train: Sequence[Example],
        valid: Sequence[Example] = (),
        *,
        write: Callable[[Llama | GRU], str] | None = None,
        answers: bool = False,
    ) -> None:
        self._train, self._valid, self._write = train, valid, write
        self._answers = answers

    @property
    def lengths(self) -> Sequence[int]:
        """The examples' tokens."""
        return [len(example) for example in self._train]

    def loss_tokens(self, chosen: Sequence[int]) -> int:
        """Return the number of counted tokens."""
        return sum(sum(self._train[i].loss_mask) for i in chosen)

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the summed cross-entropy; `seed` is of no use here."""
        examples = [self._train[i] for i in chosen]
        tokens, counted = padded(examples)
        if self._answers:
            assert isinstance(network, Llama)
            lengths = [len(e) for e in examples]
            device = device_of(network)
            total = completion_only_loss(network, tokens.to(device), counted.to(device), lengths)
        else:
            total = summed_loss(network, tokens, counted)
        return Loss(total, {"tokens": tokens.numel()})

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return the mean loss in nats a counted token."""
        if not self._valid:
            return {}
        total, count = 0.0, 0
        for batch in BatchSampler([len(e) for e in self._valid], batch_tokens, 0).epoch(0):
            tokens, counted = padded([self._valid[i] for i in batch])
            total += float(summed_loss(network, tokens, counted))
            count += int(counted.sum())
        return {"loss/valid": total / max(1, count)}

    def sample(self, network: nn.Module) -> object:
        """Return a text."""
        assert isinstance(network, Llama | GRU)
        return None if self._write is None else self._write(network)


def padded(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Return tokens (B, T), padded on the right, and which of them count (B, T)."""
    T = max(len(example) for example in examples)
    rest = [T - len(example) for example in examples]
    tokens = [[*e.tokens, *[0] * n] for e, n in zip(examples, rest, strict=True)]
    counted = [[*e.loss_mask, *[False] * n] for e, n in zip(examples, rest, strict=True)]
    # numpy reads lists several times as fast
    return torch.from_numpy(np.array(tokens)), torch.from_numpy(np.array(counted))


def summed_loss(network: nn.Module, tokens: Tensor, counted: Tensor) -> Tensor:
    """Return the summed cross-entropy, in nats, of the counted tokens (B, T); the head runs on
    no other position."""
    assert isinstance(network, Llama | GRU)
    device = device_of(network)
    tokens, counted = tokens.to(device), counted.to(device)
    hidden = network(tokens)[:, :-1][counted[:, 1:]]  # (N, C)
    targets = tokens[:, 1:][counted[:, 1:]]
    return F.cross_entropy(network.logits(hidden).float(), targets, reduction="sum")
