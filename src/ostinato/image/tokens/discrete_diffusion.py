"""DiscreteDiffusion: the codes of images out of noise, from coarse to fine.

A lane process. Multinomial diffusion (Hoogeboom et al. 2021, section 4) of codes in a learned code
space, as in ImageBART (Esser et al. 2021): each step of the reverse chain sees the whole image of
the step before. ImageBART samples the codes of a step one after the other. Here they are sampled
independently, given those of the step before, and there are more steps instead.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ostinato.decode import MASKED, pick_each, uniforms
from ostinato.errors import InputError, ItemError
from ostinato.image.tokens.attributes import Attributes
from ostinato.image.tokens.masked_codes import CodeSettings, CodeSlot, MaskedCodeSampler
from ostinato.image.tokens.network import CodeNetwork
from ostinato.image.tokens.tasks import kept_share


class DiscreteDiffusion(MaskedCodeSampler):
    """Denoise codes, one step of the chain a step. An item is an `ImagePrompt` without codes.

    Edits: `temperature`, `guidance` and `prompt` hold from their position on; `put` (position to
    code) applies at its own. Reports add `kept`, the share of codes that the noise after the step
    leaves alone, and `confidence`, the mean probability of the most likely codes.
    """

    name = "DiscreteDiffusion"
    edits = frozenset()

    def __init__(
        self,
        network: CodeNetwork,
        attributes: Attributes,
        *,
        settings: CodeSettings | None = None,
        slots: int = 16,
    ) -> None:
        steps = network.config.steps
        if not steps:
            raise InputError(
                "The network of DiscreteDiffusion must be trained with noise levels, got one of "
                "masks. Use UnmaskCodes."
            )
        super().__init__(network, attributes, steps=steps, settings=settings, slots=slots)

    def _initial_codes(self, slot: CodeSlot) -> list[int]:
        if any(code != MASKED for code in slot.known):
            raise ItemError(
                "DiscreteDiffusion starts from noise and takes no codes. Use UnmaskCodes, or `put`."
            )
        c = self.network.config
        # A rewind keeps position 0, a resume computes it again: it must not depend on how often the
        # lane has gone back by then.
        lane = replace(slot.lane, backtracks=0)
        uniform = uniforms(lane, -1, c.positions)
        return [int(value) for value in (uniform * c.codes).long().clamp_(max=c.codes - 1)]

    def _noise_level(self, slot: CodeSlot) -> int:
        return self.steps - slot.position

    def _advance(
        self, slot: CodeSlot, codes: list[int], logits: Tensor, settings: CodeSettings
    ) -> tuple[list[int], dict[str, object]]:
        t = self._noise_level(slot)
        probs = torch.softmax(logits / settings.temperature, -1)
        kept_next, kept_now = kept_share(t - 1, self.steps), kept_share(t, self.steps)
        posterior = reverse_step(torch.tensor(codes), probs, kept_next, kept_now)
        # A uniform number for each code, by lane and position: the batch has no part in it.
        sampled, _ = pick_each(posterior, uniforms(slot.lane, slot.position, len(codes)))
        confidence = float(probs.amax(-1).mean())
        return sampled.tolist(), {"kept": kept_next, "confidence": confidence}


def reverse_step(codes: Tensor, probs: Tensor, kept_next: float, kept_now: float) -> Tensor:
    """Return the distribution of each code one step earlier in the noise, as weights (T, V).

    The weights need not add up to 1. `codes` (T,) are the noisy ones, `probs` (T, V) the network's
    distribution of the clean ones. `kept_next` and `kept_now` are the shares that the noise leaves
    alone after and before the step.

    This is the mean of the posterior over the clean codes (Austin et al. 2021, equation 4).
    Hoogeboom et al. take the posterior of the mean, which counts the noisy codes twice: `probs`
    have seen them already. It gave the right class for 50% of the images instead of 84%
    (docs/log.md).
    """
    V = probs.size(1)
    now = F.one_hot(codes, V)  # (T, V)
    alpha = kept_now / kept_next
    weights = probs / (kept_now * now + (1 - kept_now) / V)
    mean = kept_next * weights + (1 - kept_next) / V * weights.sum(1, keepdim=True)
    return (alpha * now + (1 - alpha) / V) * mean
