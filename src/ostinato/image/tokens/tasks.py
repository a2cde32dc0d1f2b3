"""Training of image token models: the tasks of autoencoder and networks.

All randomness of a loss comes from its seed. Knows no loop.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.image import PerImageTask
from ostinato.image.tokens.attributes import ANY
from ostinato.image.tokens.network import CodeNetwork
from ostinato.loop import fold_in
from ostinato.models import Llama
from ostinato.train import Loss


class CodesTask(PerImageTask):
    """Predict codes from words: the cross-entropy in nats, summed over the codes that count.

    `train` and `valid` are codes (N, T) and word ids (N, W). `attribute_dropout` is the probability
    of dropping a word in training; all words of an image are dropped with half of it
    (classifier-free guidance).
    """

    def __init__(
        self,
        train: tuple[Tensor, Tensor],
        valid: tuple[Tensor, Tensor],
        *,
        attribute_dropout: float = 0.2,
    ) -> None:
        count, codes = train[0].shape  # (N, T)
        super().__init__(count, terms=codes)
        self._train, self._valid, self.attribute_dropout = train, valid, attribute_dropout

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the loss of a batch, with some words dropped."""
        index = torch.as_tensor(chosen)
        codes, words = self._train[0][index], self._train[1][index]
        generator = torch.Generator().manual_seed(seed)
        dropped = torch.rand(words.shape, generator=generator) < self.attribute_dropout
        # Each word alone rarely drops all four, which guidance needs.
        dropped |= torch.rand(len(words), 1, generator=generator) < self.attribute_dropout / 2
        words = words.masked_fill(dropped, ANY)
        return Loss(self._loss(network, codes, words, generator), {"images": len(chosen)})

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return the mean loss a code of the validation images; the noise is the same each time."""
        codes, words = self._valid
        if not len(codes):
            return {}
        total = 0.0
        for at in range(0, len(codes), batch_tokens):
            generator = torch.Generator().manual_seed(fold_in(0, "valid", at))
            part = slice(at, at + batch_tokens)
            total += float(self._loss(network, codes[part], words[part], generator))
        return {"loss/valid": total / codes.numel()}

    @abstractmethod
    def _loss(
        self, network: nn.Module, codes: Tensor, words: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the summed loss of codes (B, T) given words (B, W)."""


class RowTask(CodesTask):
    """Predict each code from those before it, as DALL-E does (Ramesh et al. 2021).

    The words come first. `vocabulary` is their number; their token ids follow those of the codes.
    """

    def __init__(
        self,
        train: tuple[Tensor, Tensor],
        valid: tuple[Tensor, Tensor],
        *,
        vocabulary: int,
        attribute_dropout: float = 0.2,
    ) -> None:
        super().__init__(train, valid, attribute_dropout=attribute_dropout)
        self._vocabulary = vocabulary

    def _loss(
        self, network: nn.Module, codes: Tensor, words: Tensor, generator: torch.Generator
    ) -> Tensor:
        assert isinstance(network, Llama)
        W = words.size(1)
        first = network.config.vocab_size - self._vocabulary
        # Position W - 1, the last word, predicts the first code.
        hidden = network(torch.cat((words + first, codes), 1))[:, W - 1 : -1]  # (B, T, C)
        return F.cross_entropy(
            network.logits(hidden).flatten(0, 1), codes.flatten(), reduction="sum"
        )


class UnmaskTask(CodesTask):
    """Predict masked codes from the others, as MaskGIT does (Chang et al. 2022, section 3.1).

    The share of masked codes is cos(pi u / 2), u uniform. An image's loss is the mean over its
    masked codes, times all of its positions, so each image counts the same.
    """

    def _loss(
        self, network: nn.Module, codes: Tensor, words: Tensor, generator: torch.Generator
    ) -> Tensor:
        assert isinstance(network, CodeNetwork)
        B, T = codes.shape
        share = (torch.rand(B, 1, generator=generator) * (math.pi / 2)).cos()
        count = (share * T).ceil().clamp(1, T)
        rank = torch.rand(B, T, generator=generator).argsort(1).argsort(1)  # a random permutation
        masked = rank < count
        inputs = codes.masked_fill(masked, network.config.codes)
        logits = network(inputs, words, torch.zeros(B, dtype=torch.long))
        losses = F.cross_entropy(logits.transpose(1, 2), codes, reduction="none")
        return (losses * masked / count * T).sum()


class DiffusionTask(CodesTask):
    """Predict clean codes from noisy ones: multinomial diffusion (Hoogeboom et al. 2021).

    The loss is the cross-entropy of the clean codes at a uniformly sampled step: the variational
    bound without its weights.
    """

    def _loss(
        self, network: nn.Module, codes: Tensor, words: Tensor, generator: torch.Generator
    ) -> Tensor:
        assert isinstance(network, CodeNetwork)
        B, T = codes.shape
        steps = network.config.steps
        step = torch.randint(1, steps + 1, (B,), generator=generator)
        kept = torch.tensor([kept_share(t, steps) for t in range(steps + 1)])[step][:, None]
        noise = torch.randint(0, network.config.codes, (B, T), generator=generator)
        noisy = torch.where(torch.rand(B, T, generator=generator) < kept, codes, noise)
        logits = network(noisy, words, step)
        return F.cross_entropy(logits.transpose(1, 2), codes, reduction="sum")


def kept_share(step: int, steps: int) -> float:
    """Return the share of codes that the noise of a step leaves alone: cos^2(pi step / 2 steps)."""
    # At the last step the cosine is not exactly 0 in floating point.
    return math.cos(math.pi / 2 * step / steps) ** 2 if step < steps else 0.0
