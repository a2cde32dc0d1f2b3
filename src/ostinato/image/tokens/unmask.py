"""Unmask: the codes of images from all hidden to none, the surest first.

A lane process. MaskGIT (Chang et al. 2022), section 3.2: in each step all hidden codes are drawn
at once, those that the network is surest of are kept, and the rest is hidden again, as many as the
cosine schedule says.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ostinato.decode.masked import draw_each, surest, to_keep
from ostinato.errors import InputError
from ostinato.image.tokens.lanes import CodeLanes, Seat, Settings
from ostinato.image.tokens.network import CodeNetwork
from ostinato.image.tokens.wish import UNKNOWN
from ostinato.image.tokens.words import Words


class Unmask(CodeLanes):
    """Decide hidden codes, a share of them a step. An item is a `Wish`; codes it knows stay.

    Edits: `temperature`, `guidance`, `noise` and `words` hold from their position on; `mask`
    (places to hide again) and `put` (place to code) act at theirs. Reports add `masked` (places
    still hidden) and `confidence` (the mean probability of the codes that were kept).
    """

    name = "Unmask"
    edits = frozenset({"mask", "noise"})

    def __init__(
        self,
        network: CodeNetwork,
        words: Words,
        *,
        steps: int = 8,
        settings: Settings | None = None,
        places: int = 16,
    ) -> None:
        if network.config.steps:
            raise InputError(
                "Unmask needs a network that was trained with masks, got one of noise levels. "
                "Take Coarse."
            )
        super().__init__(network, words, steps=steps, settings=settings, places=places)

    def _begin(self, seat: Seat) -> list[int]:
        return list(seat.known)

    def _level(self, seat: Seat) -> int:
        return 0

    def _move(
        self, seat: Seat, codes: list[int], logits: Tensor, settings: Settings
    ) -> tuple[list[int], dict[str, object]]:
        step, T = seat.position + 1, len(codes)
        uniform = self.uniforms(seat.lane, seat.position, 2, T)
        new, probs = draw_each(logits, settings.temperature, uniform[0])
        hidden = torch.tensor(codes) == UNKNOWN
        unknown = sum(code == UNKNOWN for code in seat.known)
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
