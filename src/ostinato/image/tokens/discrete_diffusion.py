"""Coarse: the codes of images out of noise, from coarse to fine.

A lane process. Multinomial diffusion of codes (Hoogeboom et al. 2021, section 4) in a learned code
space, the frame of ImageBART (Esser et al. 2021): each step of the reverse chain sees the whole
image of the step before. ImageBART draws within a step code by code; here the codes of a step are
drawn side by side, given those of the step before, and there are more steps instead.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ostinato.decode import pick_each
from ostinato.errors import InputError, ItemError
from ostinato.image.tokens.attributes import Attributes
from ostinato.image.tokens.masked_codes import CodeSettings, CodeSlot, MaskedCodeSampler
from ostinato.image.tokens.network import CodeNetwork
from ostinato.image.tokens.prompt import UNKNOWN
from ostinato.image.tokens.tasks import kept_share


class DiscreteDiffusion(MaskedCodeSampler):
    """Take the noise off codes, one step of the chain a step. An item is a `ImagePrompt` of words.

    Edits: `temperature`, `guidance` and `words` hold from their position on; `put` (place to code)
    acts at its own. Reports add `kept`, the share of codes that the noise left after the step
    leaves alone, and `confidence`, the mean probability of the likeliest codes.
    """

    name = "Coarse"
    edits: frozenset[str] = frozenset()

    def __init__(
        self,
        network: CodeNetwork,
        words: Attributes,
        *,
        settings: CodeSettings | None = None,
        slots: int = 16,
    ) -> None:
        steps = network.config.steps
        if not steps:
            raise InputError(
                "Coarse needs a network that was trained with noise levels, got one of masks. "
                "Take Unmask."
            )
        super().__init__(network, words, steps=steps, settings=settings, slots=slots)

    def _begin(self, slot: CodeSlot) -> list[int]:
        if any(code != UNKNOWN for code in slot.known):
            raise ItemError("Coarse begins as noise and knows no codes; take Unmask, or `put`.")
        c = self.network.config
        lane = replace(slot.lane, backtracks=0)  # the same noise after going back, and brought back
        uniform = self.uniforms(lane, -1, c.positions)
        return [int(value) for value in (uniform * c.codes).long().clamp_(max=c.codes - 1)]

    def _level(self, slot: CodeSlot) -> int:
        return self.steps - slot.position

    def _move(
        self, slot: CodeSlot, codes: list[int], logits: Tensor, settings: CodeSettings
    ) -> tuple[list[int], dict[str, object]]:
        t = self._level(slot)
        probs = torch.softmax(logits / settings.temperature, -1)
        before, after = kept_share(t - 1, self.steps), kept_share(t, self.steps)
        shares = reversed_step(torch.tensor(codes), probs, before, after)
        uniform = self.uniforms(slot.lane, slot.position, len(codes))
        new, _ = pick_each(shares, uniform)
        told: dict[str, object] = {"kept": before, "confidence": float(probs.amax(-1).mean())}
        return new.tolist(), told


def reversed_step(codes: Tensor, probs: Tensor, before: float, after: float) -> Tensor:
    """Return what each code was one step before, as shares (T, V) that need not add up to 1.

    `codes` (T,) are those at the step, `probs` (T, V) what the network takes the clean ones to be,
    `before` and `after` the shares that the noise leaves alone. The mean of the posterior over the
    clean codes (Austin et al. 2021, equation 4). The posterior of the mean, as Hoogeboom et al.
    have it, counts the codes of the step twice, which `probs` have seen already.
    """
    V = probs.size(1)
    now = F.one_hot(codes, V)
    alpha = after / before
    weights = probs / (after * now + (1 - after) / V)
    mean = before * weights + (1 - before) / V * weights.sum(1, keepdim=True)
    return (alpha * now + (1 - alpha) / V) * mean
