"""Learning to fill what is masked: the task of a masked language model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.loop import fold_in
from ostinato.models import MaskedBert, device_of
from ostinato.train.batch_sampler import BatchSampler
from ostinato.train.data import Example
from ostinato.train.task import Loss, Share, padded

MASKED, GAP = "loss/masked", "loss/gap"


class MaskedTextTask:
    """Tokens out of what surrounds them: cross-entropy in nats, summed over the masked tokens.

    Of each example either a random share is masked, cos(pi/2 u) with a uniform u (MaskGIT, Chang et
    al. 2022, section 3.1), or one gap of at most `gap` tokens (spans, Joshi et al. 2020): what is
    asked of the network when it fills gaps step by step. The report tells both losses.
    """

    def __init__(
        self, train: Sequence[Example], valid: Sequence[Example], *, mask_id: int, gap: int = 16
    ) -> None:
        self._train, self._valid, self._mask_id, self._gap = train, valid, mask_id, gap

    @property
    def lengths(self) -> Sequence[int]:
        """The examples' tokens."""
        return [len(example) for example in self._train]

    def loss_tokens(self, chosen: Sequence[int]) -> int:
        """Return the number of tokens: how many of them are masked is random."""
        return sum(len(self._train[i]) for i in chosen)

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the mean loss of the masked tokens, times all tokens; what is masked, by `seed`.

        So a batch counts the same whether much or little of it was masked.
        """
        examples = [self._train[i] for i in chosen]
        tokens, _ = padded(examples)
        masked, gapped = self._masked([len(e) for e in examples], tokens.size(1), seed)
        losses = self._losses(network, tokens, masked)
        count = int(masked.sum())
        total = losses.sum() / count * self.loss_tokens(chosen)
        sizes = {"tokens": tokens.numel(), "tokens/masked": count}
        return Loss(total, sizes, _by_kind(losses.detach().cpu(), masked, gapped))

    @torch.no_grad()
    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return the mean loss in nats a masked token, the same tokens masked at every call."""
        if not self._valid:
            return {}
        shares: list[tuple[str, Share]] = []
        for batch in BatchSampler([len(e) for e in self._valid], batch_tokens, 0).epoch(0):
            examples = [self._valid[i] for i in batch]
            tokens, _ = padded(examples)
            lengths = [len(e) for e in examples]
            masked, gapped = self._masked(lengths, tokens.size(1), fold_in(0, "valid", batch[0]))
            losses = self._losses(network, tokens, masked).cpu()
            shares += _by_kind(losses, masked, gapped).items()
        return {"loss/valid": _mean(share for _, share in shares)} | {
            f"{kind}/valid": _mean(share for name, share in shares if name == kind)
            for kind in dict(shares)
        }

    def sample(self, network: nn.Module) -> object:
        """Make nothing."""
        return None

    def _losses(self, network: nn.Module, tokens: Tensor, masked: Tensor) -> Tensor:
        """Return the cross-entropy of each masked token (N,); the head runs on no other."""
        assert isinstance(network, MaskedBert)
        device = device_of(network)
        tokens, masked = tokens.to(device), masked.to(device)
        hidden = network.bert(tokens.masked_fill(masked, self._mask_id))[masked]  # (N, C)
        return F.cross_entropy(network.logits(hidden).float(), tokens[masked], reduction="none")

    def _masked(self, lengths: Sequence[int], T: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return what is masked (B, T), and of which examples it is one gap (B,)."""
        dice = torch.Generator().manual_seed(seed)
        masked = torch.zeros(len(lengths), T, dtype=torch.bool)
        gapped = torch.rand(len(lengths), generator=dice) < 0.5
        for row, length in enumerate(lengths):
            share, place = torch.rand(2, generator=dice).tolist()
            if gapped[row]:
                count = 1 + int(share * min(self._gap, length - 1))
                start = int(place * (length - count + 1))
                masked[row, start : start + count] = True
            else:
                count = max(1, int(length * math.cos(math.pi / 2 * share)))
                masked[row, torch.randperm(length, generator=dice)[:count]] = True
        return masked, gapped


def _by_kind(losses: Tensor, masked: Tensor, gapped: Tensor) -> dict[str, Share]:
    """Return the summed losses (N,) of the masked tokens, those of gaps apart."""
    of_gap = gapped[:, None].expand_as(masked)[masked]  # (N,)
    kinds = {MASKED: losses[~of_gap], GAP: losses[of_gap]}
    return {name: Share(float(v.sum()), v.numel()) for name, v in kinds.items() if v.numel()}


def _mean(shares: Iterable[Share]) -> float:
    parts = list(shares)
    return sum(part.total for part in parts) / sum(part.over for part in parts)
