"""Unmask: the codes of images from all hidden to none, the surest first.

A lane process. MaskGIT (Chang et al. 2022), section 3.2: in each step all hidden codes are drawn
at once, those that the network is surest of are kept, and the rest is hidden again, as many as the
cosine schedule says.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ostinato.decode import draw_each, surest, to_keep
from ostinato.errors import InputError
from ostinato.image.tokens.attributes import Attributes
from ostinato.image.tokens.masked_codes import CodeSettings, CodeSlot, MaskedCodeSampler
from ostinato.image.tokens.network import CodeNetwork
from ostinato.image.tokens.prompt import UNKNOWN


class UnmaskCodes(MaskedCodeSampler):
    """Decide hidden codes, a share of them a step. An item is a `ImagePrompt`; codes it knows stay.

    Edits: `temperature`, `guidance`, `noise` and `words` hold from their position on; `mask`
    (positions to hide again) and `put` (place to code) act at theirs. Reports add `masked` (positions
    still hidden) and `confidence` (the mean probability of the codes that were kept).
    """

    name = "Unmask"
    edits = frozenset({"mask", "noise"})

    def __init__(
        self,
        network: CodeNetwork,
        words: Attributes,
        *,
        steps: int = 8,
        settings: CodeSettings | None = None,
        slots: int = 16,
    ) -> None:
        if network.config.steps:
            raise InputError(
                "Unmask needs a network that was trained with masks, got one of noise levels. "
                "Take Coarse."
            )
        super().__init__(network, words, steps=steps, settings=settings, slots=slots)

    def _begin(self, slot: CodeSlot) -> list[int]:
        return list(slot.known)

    def _level(self, slot: CodeSlot) -> int:
        return 0

    def _move(
        self, slot: CodeSlot, codes: list[int], logits: Tensor, settings: CodeSettings
    ) -> tuple[list[int], dict[str, object]]:
        step, T = slot.position + 1, len(codes)
        uniform = self.uniforms(slot.lane, slot.position, 2, T)
        new, probs = draw_each(logits, settings.temperature, uniform[0])
        hidden = torch.tensor(codes) == UNKNOWN
        unknown = sum(code == UNKNOWN for code in slot.known)
        count = to_keep(unknown, int(hidden.sum()), step, self.steps)
        noise = settings.noise * (1 - step / self.steps)
        kept = surest(probs, hidden, count, noise, uniform[1])
        after = list(codes)
        for place in kept.tolist():
            after[place] = int(new[place])
        told: dict[str, object] = {"masked": sum(code == UNKNOWN for code in after)}
        if count:
            told["confidence"] = float(probs[kept].mean())
        return after, told
