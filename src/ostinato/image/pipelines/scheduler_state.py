"""A scheduler of `diffusers` for one lane: a value at each position, so that a lane can go back."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """Where a lane stands before a step: its noisy latent (1, C, H, W), and its solver's history.

    The scheduler is never stepped itself: `step` copies it first.
    """

    position: int
    noisy: Tensor
    scheduler: Any

    @property
    def last(self) -> bool:
        """Whether no step is left."""
        return self.position >= len(self.scheduler.timesteps)

    @property
    def timestep(self) -> Tensor:
        """The time that the network is told, without dimensions."""
        time: Tensor = self.scheduler.timesteps[self.position]
        return time

    def scaled(self) -> tuple[SchedulerState, Tensor]:
        """Return the stand, and what the network is to see (some schedulers note that they did)."""
        if not hasattr(self.scheduler, "scale_model_input"):
            return self, self.noisy
        scheduler = copy.deepcopy(self.scheduler)
        x: Tensor = scheduler.scale_model_input(self.noisy, self.timestep)
        return SchedulerState(self.position, self.noisy, scheduler), x

    def step(self, prediction: Tensor, seed: int) -> tuple[SchedulerState, Tensor]:
        """Return the stand after a step, and the clean latent (1, C, H, W) that was predicted.

        `seed` decides all that the scheduler draws.
        """
        scheduler = copy.deepcopy(self.scheduler)
        more: dict[str, Any] = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            more["generator"] = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):  # for one that draws elsewhere
            torch.manual_seed(seed)
            out = scheduler.step(prediction, self.timestep, self.noisy, **more)
        clean = getattr(out, "pred_original_sample", None)
        if clean is None:
            clean = predicted_clean(scheduler, self, prediction)
        return SchedulerState(self.position + 1, out.prev_sample, scheduler), clean

    def renoised(self, base: Any, clean: Tensor, seed: int) -> SchedulerState:
        """Return the stand with a clean latent (1, C, H, W) and fresh noise in its place (SDEdit).

        A history of predictions of noise stays; one of clean images, which would pull the latent
        back to where it was, begins anew with `base`.
        """
        anew = hasattr(base, "model_outputs")
        scheduler = copy.deepcopy(base if anew else self.scheduler)
        if anew:
            scheduler.set_begin_index(self.position)
        noise = normal(clean, seed)
        time = self.timestep.reshape(1)
        if hasattr(scheduler, "scale_noise"):
            noisy = scheduler.scale_noise(clean, time, noise)
        else:
            noisy = scheduler.add_noise(clean, noise, time)
        return SchedulerState(self.position, noisy, scheduler)

    def halfway(self, base: Any, clean: Tensor, seed: int) -> SchedulerState:
        """Return the stand between the halves of a step that begins here, for a clean latent.

        The latent is noised where the step begins, and the first half taken with the prediction
        that leads to it. For schedulers of two halves (Heun): the second needs what the first left.
        """
        begun, _ = self.renoised(base, clean, seed).scaled()
        after, _ = begun.step(leading_to(clean, normal(clean, seed), begun), seed)
        return after

    def sigma(self) -> float:
        """Return the noise level: beside a clean image of 1, in flow matching the noise's share."""
        alpha, sigma = levels(self.scheduler, self)
        return sigma if flows(self.scheduler) else sigma / max(alpha, 1e-12)


def flows(scheduler: Any) -> bool:
    """Tell whether a scheduler mixes image and noise in straight lines."""
    named = type(scheduler).__name__.startswith("FlowMatch")
    return named or bool(scheduler.config.get("use_flow_sigmas"))


def levels(scheduler: Any, stand: SchedulerState) -> tuple[float, float]:
    """Return (alpha, sigma) of the step: noisy = alpha clean + sigma noise."""
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) > stand.position:
        sigma = float(sigmas[stand.position])
        return (1 - sigma, sigma) if flows(scheduler) else preserved(1 / (1 + sigma**2))
    kept = scheduler.alphas_cumprod[int(stand.timestep)]
    return preserved(float(kept))


def preserved(kept: float) -> tuple[float, float]:
    """Return (alpha, sigma) with a variance of 1, of which the image keeps `kept`."""
    return kept**0.5, max(1 - kept, 0.0) ** 0.5


def predicted_clean(scheduler: Any, stand: SchedulerState, prediction: Tensor) -> Tensor:
    """Return the clean latent behind a prediction, for schedulers that do not tell it."""
    alpha, sigma = levels(scheduler, stand)
    if flows(scheduler):
        return stand.noisy - sigma * prediction
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind == "sample":
        return prediction
    if kind == "v_prediction":
        return alpha * stand.noisy - sigma * prediction
    return (stand.noisy - sigma * prediction) / max(alpha, 1e-12)


def leading_to(clean: Tensor, noise: Tensor, stand: SchedulerState) -> Tensor:
    """Return the prediction that leads a scheduler to a clean latent, given its noise."""
    alpha, sigma = levels(stand.scheduler, stand)
    if flows(stand.scheduler):
        return noise - clean
    kind = stand.scheduler.config.get("prediction_type", "epsilon")
    if kind == "sample":
        return clean
    return alpha * noise - sigma * clean if kind == "v_prediction" else noise


def normal(like: Tensor, seed: int) -> Tensor:
    """Draw standard normal noise of a tensor's shape, from a seed of its own."""
    dice = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=dice, dtype=like.dtype).to(like.device)
