"""UnmaskCodes: the codes of images from all masked to none, the most confident first.

A lane process. MaskGIT (Chang et al. 2022), section 3.2: each step samples all masked codes and
keeps those that the network is most confident of. The cosine schedule says how many are masked
again. The arithmetic is in `ostinato.decode`.
"""

from __future__ import annotations

from torch import Tensor

from ostinato.decode import MASKED, uniforms, unmask_step
from ostinato.errors import InputError
from ostinato.image.tokens.attributes import Attributes
from ostinato.image.tokens.masked_codes import CodeSettings, CodeSlot, MaskedCodeSampler
from ostinato.image.tokens.network import CodeNetwork


class UnmaskCodes(MaskedCodeSampler):
    """Decide masked codes, a share of them a step. An item is an `ImagePrompt`; its codes stay.

    Edits: `temperature`, `guidance`, `noise` and `prompt` hold from their position on. `mask`
    (positions to mask again) and `put` (position to code) apply at theirs. Reports add `masked`
    (codes still masked) and `confidence` (the mean probability of the codes kept).
    """

    name = "UnmaskCodes"
    edits = frozenset({"mask", "noise"})

    def __init__(
        self,
        network: CodeNetwork,
        attributes: Attributes,
        *,
        steps: int = 8,
        settings: CodeSettings | None = None,
        slots: int = 16,
    ) -> None:
        if network.config.steps:
            raise InputError(
                "The network of UnmaskCodes must be trained with masks, got one of noise levels. "
                "Use DiscreteDiffusion."
            )
        super().__init__(network, attributes, steps=steps, settings=settings, slots=slots)

    def _initial_codes(self, slot: CodeSlot) -> list[int]:
        return list(slot.known)

    def _noise_level(self, slot: CodeSlot) -> int:
        return 0

    def _advance(
        self, slot: CodeSlot, codes: list[int], logits: Tensor, settings: CodeSettings
    ) -> tuple[list[int], dict[str, object]]:
        result = unmask_step(
            codes,
            logits,
            uniforms(slot.lane, slot.position, 2, len(codes)),
            unknown=slot.known.count(MASKED),
            step=slot.position + 1,
            steps=self.steps,
            temperature=settings.temperature,
            noise=settings.noise,
        )
        metrics: dict[str, object] = {"masked": result.masked}
        if result.decided:
            metrics["confidence"] = result.confidence
        return result.tokens, metrics
