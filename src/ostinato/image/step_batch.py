"""Lanes that take the same steps, side by side: their images in one tensor.

They stay together for as long as none comes, leaves, goes back or is edited: a step costs a few
operations on tensors, however many they are. Knows solvers; neither network nor loop.
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
    """What lanes have in common that take their steps side by side."""

    solver: Solver
    guidance: float
    step: int  # of the schedule, where they came together
    remembers: bool
    masked: bool

    @classmethod
    def of(cls, slot: DenoiseSlot, solver: Solver, guidance: float) -> BatchKey:
        """Return that of a lane where it stands."""
        return cls(solver, guidance, slot.step, slot.remembers, slot.picture.mask is not None)


@dataclass(slots=True)
class StepBatch:
    """Lanes (B) that stand at the same step, with the same solver and guidance.

    `x` (B, C, H, W) is where they stand; `last` their last clean predictions, 0 where there was
    none; `remembers` tells whether a solver may use these. `kept` holds masks (B, 1, H, W), true
    where the image is new, and the images to keep elsewhere.
    """

    kind: BatchKey
    slots: Sequence[DenoiseSlot]
    labels: Tensor
    step: int
    x: Tensor
    last: Tensor
    remembers: bool
    kept: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, kind: BatchKey, slots: Sequence[DenoiseSlot], labels: Sequence[int]) -> StepBatch:
        """Put lanes of a kind side by side where they stand."""
        x = torch.stack([slot.images[-1] for slot in slots])
        blank = torch.zeros_like(x[0])
        last = torch.stack([slot.cleans[-1] if slot.cleans else blank for slot in slots])
        kept = _kept(slots, x) if kind.masked else None
        return cls(kind, slots, torch.tensor(labels), kind.step, x, last, kind.remembers, kept)

    def masked(self, clean: Tensor) -> Tensor:
        """Put the given images where the masks do not ask for new ones."""
        return clean if self.kept is None else torch.where(self.kept[0], clean, self.kept[1])

    def advanced(self, sigmas: Sequence[float], clean: Tensor, noise: Tensor | None) -> Tensor:
        """Return x after the step from `sigmas[step]`, given the clean predictions there."""
        n = self.step
        before = (sigmas[n - 1], self.last) if self.remembers else None
        return advance(
            self.kind.solver, self.x, sigmas[n], sigmas[n + 1], clean, before=before, noise=noise
        )

    def move(
        self, sigmas: Sequence[float], clean: Tensor, after: Tensor, calls: int
    ) -> dict[str, Report]:
        """Stand after a step, whose predictions were `clean`; return the lanes' reports."""
        moved = rms(clean, self.last)
        sigma, sigma_next = sigmas[self.step : self.step + 2]
        self.x, self.last, self.remembers = after, clean, True
        self.step = step = self.step + 1
        end: dict[str, object] = {}
        if step == len(sigmas) - 1:
            end["ended"] = f"All {step} noise levels are done."
        reports: dict[str, Report] = {}
        rows = zip(self.slots, after.unbind(), clean.unbind(), moved, strict=True)
        for slot, noisy, seen, change in rows:
            slot.images.append(noisy)
            slot.cleans.append(seen)
            reports[slot.lane.key] = {
                "step": step,
                "sigma": sigma,
                "sigma_next": sigma_next,
                "noisy": noisy,
                "clean": seen,
                "change": change,
                "calls": calls,
                **end,
            }
        return reports


def rms(a: Tensor, b: Tensor) -> list[float]:
    """Return the root mean square of each difference of images (B, C, H, W)."""
    share = math.prod(a.shape[1:]) ** -0.5
    norms: list[float] = torch.linalg.vector_norm(a - b, dim=(1, 2, 3)).tolist()
    return [norm * share for norm in norms]


def _kept(slots: Sequence[DenoiseSlot], x: Tensor) -> tuple[Tensor, Tensor]:
    shape = x.shape[1:]
    masks = [pixels(slot.picture.mask, shape[1:], "mask") > 0 for slot in slots]
    images = [pixels(slot.picture.image, shape, "image") for slot in slots]
    return torch.stack(masks)[:, None], torch.stack(images)
