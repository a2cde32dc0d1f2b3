"""A batch of lanes that take the same steps: their images in one tensor.

A batch lasts until one of its lanes starts, ends, goes back or is edited. Until then a step costs a
few tensor operations, however many lanes there are: without batches the bookkeeping of eight lanes
took 435 microseconds a step, with them 199 (docs/log.md). Knows solvers; neither network nor loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ostinato.image.image_request import pixels
from ostinato.image.slot import DenoiseSlot
from ostinato.image.solvers import Solver, advance
from ostinato.loop import Report


class BatchKey(NamedTuple):
    """What all lanes of a batch have in common."""

    solver: Solver
    guidance: float
    step: int  # of the schedule, where the batch started
    has_history: bool
    masked: bool

    @classmethod
    def of(cls, slot: DenoiseSlot, solver: Solver, guidance: float) -> BatchKey:
        """Return the key of a lane at its current position."""
        return cls(solver, guidance, slot.step, slot.has_history, slot.request.mask is not None)


@dataclass(slots=True)
class StepBatch:
    """B lanes at the same step, with the same solver and guidance.

    `x` (B, C, H, W) are their noisy images. `old_denoised` are their last clean predictions, 0
    where there is none yet; a multistep solver may use them where `has_history`. `kept` holds masks
    (B, 1, H, W), true where the image is sampled, and the images to keep elsewhere.
    """

    key: BatchKey
    slots: Sequence[DenoiseSlot]
    labels: Tensor
    step: int
    x: Tensor
    old_denoised: Tensor
    has_history: bool
    kept: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, key: BatchKey, slots: Sequence[DenoiseSlot], labels: Sequence[int]) -> StepBatch:
        """Stack the current states of lanes that share a key."""
        x = torch.stack([slot.states[-1] for slot in slots])  # (B, C, H, W)
        blank = torch.zeros_like(x[0])
        old = torch.stack([slot.denoised[-1] if slot.denoised else blank for slot in slots])
        kept = _kept(slots, x) if key.masked else None
        return cls(key, slots, torch.tensor(labels), key.step, x, old, key.has_history, kept)

    def masked(self, denoised: Tensor) -> Tensor:
        """Replace the predictions by the requests' images where the masks say to keep them."""
        return denoised if self.kept is None else torch.where(self.kept[0], denoised, self.kept[1])

    def advanced(self, sigmas: Sequence[float], denoised: Tensor, noise: Tensor | None) -> Tensor:
        """Return x after the step from `sigmas[step]`; the batch itself does not change."""
        sigma, sigma_next = sigmas[self.step : self.step + 2]
        previous = (sigmas[self.step - 1], self.old_denoised) if self.has_history else None
        return advance(
            self.key.solver, self.x, sigma, sigma_next, denoised, previous=previous, noise=noise
        )

    def move(
        self, sigmas: Sequence[float], denoised: Tensor, x_next: Tensor, calls: int
    ) -> dict[str, Report]:
        """Take a step: record its predictions and x in the slots; return the lanes' reports."""
        changes = rms(denoised, self.old_denoised)
        sigma, sigma_next = sigmas[self.step : self.step + 2]
        self.x, self.old_denoised, self.has_history = x_next, denoised, True
        self.step = step = self.step + 1
        end: dict[str, object] = {}
        if step == len(sigmas) - 1:
            end["ended"] = f"All {step} noise levels are done."
        reports: dict[str, Report] = {}
        # Rows are views, not copies: nothing writes to x or to a prediction again.
        rows = zip(self.slots, x_next.unbind(), denoised.unbind(), changes, strict=True)
        for slot, noisy, clean, change in rows:
            slot.states.append(noisy)
            slot.denoised.append(clean)
            reports[slot.lane.key] = {
                "step": step,
                "sigma": sigma,
                "sigma_next": sigma_next,
                "noisy": noisy,
                "clean": clean,
                "change": change,
                "calls": calls,
                **end,
            }
        return reports


def rms(a: Tensor, b: Tensor) -> list[float]:
    """Return the root mean square of a - b for each image of (B, C, H, W)."""
    scale = math.prod(a.shape[1:]) ** -0.5  # a norm becomes a root mean square
    norms: list[float] = torch.linalg.vector_norm(a - b, dim=(1, 2, 3)).tolist()
    return [norm * scale for norm in norms]


def _kept(slots: Sequence[DenoiseSlot], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the masks (B, 1, H, W) and images (B, C, H, W) of requests that have a mask."""
    shape = x.shape[1:]
    masks = [pixels(slot.request.mask, shape[1:], "mask") > 0 for slot in slots]
    images = [pixels(slot.request.image, shape, "image") for slot in slots]
    return torch.stack(masks)[:, None], torch.stack(images)
