"""What the parts of a drawing are trained on: reconstruction, next codes, hidden codes, noise.

All that is random in a loss is drawn from its seed. Knows no loop.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.image import Images
from ostinato.image.tokens.attributes import ANY
from ostinato.image.tokens.network import CodeNetwork
from ostinato.image.tokens.vq import VQ
from ostinato.loop import fold_in
from ostinato.models import Llama
from ostinato.train import Loss


class ReconstructionTask:
    """The autoencoder's: the mean squared error of pixels in [-1, 1], summed over images."""

    def __init__(self, train: Images, valid: Images) -> None:
        self._train, self._valid = train, valid

    @property
    def lengths(self) -> Sequence[int]:
        """One for each image: batches are counted in images."""
        return [1] * len(self._train)

    def loss_tokens(self, chosen: Sequence[int]) -> int:
        """Return the number of images."""
        return len(chosen)

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the error of some images; nothing is random."""
        return Loss(self._error(network, self._train.at(chosen)), {"images": len(chosen)})

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return the mean error of the held-out images."""
        count = len(self._valid)
        if not count:
            return {}
        starts = range(0, count, batch_tokens)
        parts = [self._valid.at(range(at, min(at + batch_tokens, count))) for at in starts]
        total = sum(float(self._error(network, part)) for part in parts)
        return {"loss/valid": total / count}

    def sample(self, network: nn.Module) -> object:
        """Make nothing."""
        return None

    def _error(self, network: nn.Module, images: Images) -> Tensor:
        assert isinstance(network, VQ)
        clean = images.clean()
        error: Tensor = (network(clean) - clean).square().mean((1, 2, 3)).sum()
        return error


class CodesTask(ABC):
    """Codes given words: the cross-entropy in nats, summed over the codes that count.

    `codes` (N, T) and `words` (N, W) are those to train on, `valid` the same of those held out.
    Each word is left unsaid with the chance `drop`, and all of an image's with half of it.
    """

    def __init__(
        self,
        train: tuple[Tensor, Tensor],
        valid: tuple[Tensor, Tensor],
        *,
        attribute_dropout: float = 0.2,
    ) -> None:
        self._train, self._valid, self.drop = train, valid, attribute_dropout

    @property
    def lengths(self) -> Sequence[int]:
        """One for each image: batches are counted in images."""
        return [1] * len(self._train[0])

    def loss_tokens(self, chosen: Sequence[int]) -> int:
        """Return the number of codes."""
        return len(chosen) * self._train[0].size(1)

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the loss of some images, of which some words are left unsaid."""
        index = torch.as_tensor(chosen)
        codes, words = self._train[0][index], self._train[1][index]
        dice = torch.Generator().manual_seed(seed)
        unsaid = torch.rand(words.shape, generator=dice) < self.drop
        unsaid |= torch.rand(len(words), 1, generator=dice) < self.drop / 2
        words = words.masked_fill(unsaid, ANY)
        return Loss(self._loss(network, codes, words, dice), {"images": len(chosen)})

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return the mean loss of the held-out images, with noise that is the same each time."""
        codes, words = self._valid
        if not len(codes):
            return {}
        total = 0.0
        for at in range(0, len(codes), batch_tokens):
            dice = torch.Generator().manual_seed(fold_in(0, "valid", at))
            part = slice(at, at + batch_tokens)
            total += float(self._loss(network, codes[part], words[part], dice))
        return {"loss/valid": total / codes.numel()}

    def sample(self, network: nn.Module) -> object:
        """Make nothing."""
        return None

    @abstractmethod
    def _loss(
        self, network: nn.Module, codes: Tensor, words: Tensor, dice: torch.Generator
    ) -> Tensor:
        """Return the summed loss of codes (B, T) given words (B, W)."""


class RowTask(CodesTask):
    """Each code given those before it, as DALL-E's (Ramesh et al. 2021); the words stand first.

    `vocabulary` is the number of words; as tokens they come after the codes.
    """

    def __init__(
        self,
        train: tuple[Tensor, Tensor],
        valid: tuple[Tensor, Tensor],
        *,
        vocabulary: int,
        drop: float = 0.2,
    ) -> None:
        super().__init__(train, valid, attribute_dropout=drop)
        self._vocabulary = vocabulary

    def _loss(
        self, network: nn.Module, codes: Tensor, words: Tensor, dice: torch.Generator
    ) -> Tensor:
        assert isinstance(network, Llama)
        W = words.size(1)
        first = network.config.vocab_size - self._vocabulary
        hidden = network(torch.cat((words + first, codes), 1))[:, W - 1 : -1]  # (B, T, C)
        return F.cross_entropy(
            network.logits(hidden).flatten(0, 1), codes.flatten(), reduction="sum"
        )


class UnmaskTask(CodesTask):
    """Hidden codes given those that show, as MaskGIT's (Chang et al. 2022, section 3.1).

    The share that is hidden is cos(pi u / 2), u uniform; each image's loss is the mean over its
    hidden codes, times all of its positions.
    """

    def _loss(
        self, network: nn.Module, codes: Tensor, words: Tensor, dice: torch.Generator
    ) -> Tensor:
        assert isinstance(network, CodeNetwork)
        B, T = codes.shape
        share = (torch.rand(B, 1, generator=dice) * (math.pi / 2)).cos()
        count = (share * T).ceil().clamp(1, T)
        order = torch.rand(B, T, generator=dice).argsort(1).argsort(1)
        hidden = order < count
        shown = codes.masked_fill(hidden, network.config.codes)
        logits = network(shown, words, torch.zeros(B, dtype=torch.long))
        losses = F.cross_entropy(logits.transpose(1, 2), codes, reduction="none")
        return (losses * hidden / count * T).sum()


class DiffusionTask(CodesTask):
    """Codes given noised ones: multinomial diffusion (Hoogeboom et al. 2021), as ImageBART's.

    The loss is the cross-entropy of the clean codes at a step drawn evenly: the variational bound
    without its weights.
    """

    def _loss(
        self, network: nn.Module, codes: Tensor, words: Tensor, dice: torch.Generator
    ) -> Tensor:
        assert isinstance(network, CodeNetwork)
        B, T = codes.shape
        steps = network.config.steps
        step = torch.randint(1, steps + 1, (B,), generator=dice)
        kept = torch.tensor([kept_share(t, steps) for t in range(steps + 1)])[step][:, None]
        noise = torch.randint(0, network.config.codes, (B, T), generator=dice)
        noised = torch.where(torch.rand(B, T, generator=dice) < kept, codes, noise)
        logits = network(noised, words, step)
        return F.cross_entropy(logits.transpose(1, 2), codes, reduction="sum")


def kept_share(step: int, steps: int) -> float:
    """Return the share of codes that the noise of a step leaves alone: cos^2(pi step / 2 steps)."""
    return math.cos(math.pi / 2 * step / steps) ** 2 if step < steps else 0.0
