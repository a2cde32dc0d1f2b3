"""A scheduler of `diffusers` as a value: one state for each position, so that a lane can go back.

Knows no network and no lane.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SchedulerCalls:
    """How a pipeline's own call uses its scheduler.

    `scales_input`: it gives the network what `scale_model_input` returns, and starts from noise of
    `init_noise_sigma`. `options` are its arguments of `step`, which replace the scheduler's own
    defaults where the scheduler takes them; a generator is passed where one is taken. `pack` gives
    latents (1, C, H, W) the layout that the scheduler steps, in which it also draws noise; `unpack`
    takes such a tensor and one of the shape to return.
    """

    scales_input: bool = False
    options: Mapping[str, object] = field(default_factory=dict)
    pack: Callable[[Tensor], Tensor] = lambda latent: latent
    unpack: Callable[[Tensor, Tensor], Tensor] = lambda packed, like: packed

    def arguments(self, scheduler: Any, seed: int) -> dict[str, object]:
        """Return those of the options that the scheduler's `step` takes, and its generator."""
        every = {**self.options, "generator": torch.Generator().manual_seed(seed)}
        taken = inspect.signature(scheduler.step).parameters
        return {name: value for name, value in every.items() if name in taken}


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """A lane before a step: its noisy latent (1, C, H, W), and a scheduler with its history.

    A scheduler changes with each call, so every method copies it first.
    """

    position: int
    noisy: Tensor
    scheduler: Any
    calls: SchedulerCalls

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.position >= len(self.scheduler.timesteps)

    @property
    def timestep(self) -> Tensor:
        """The network's time input, a tensor without dimensions."""
        time: Tensor = self.scheduler.timesteps[self.position]
        return time

    def scaled(self) -> tuple[SchedulerState, Tensor]:
        """Return the state, and the network's input.

        The state is new, as some schedulers record that they have scaled the input.
        """
        if not self.calls.scales_input or not hasattr(self.scheduler, "scale_model_input"):
            return self, self.noisy
        scheduler = copied(self.scheduler)
        x: Tensor = scheduler.scale_model_input(self.noisy, self.timestep)
        return replace(self, scheduler=scheduler), x

    def step(self, prediction: Tensor, seed: int) -> tuple[SchedulerState, Tensor]:
        """Return the state after a step, and the predicted clean latent (1, C, H, W).

        `seed` decides all noise that the scheduler draws.
        """
        scheduler, calls = copied(self.scheduler), self.calls
        given = calls.pack(prediction), self.timestep, calls.pack(self.noisy)
        with torch.random.fork_rng(devices=[]):  # some schedulers use torch's global generator
            torch.manual_seed(seed)
            out = scheduler.step(*given, **calls.arguments(scheduler, seed))
        clean = getattr(out, "pred_original_sample", None)
        if clean is None:
            clean = predicted_clean(scheduler, self, prediction)
        else:
            clean = calls.unpack(clean, self.noisy)
        noisy = calls.unpack(out.prev_sample, self.noisy)
        after = replace(self, position=self.position + 1, noisy=noisy, scheduler=scheduler)
        return after, clean

    def renoised(self, base: Any, clean: Tensor, seed: int) -> SchedulerState:
        """Return the state of a clean latent (1, C, H, W) with fresh noise (SDEdit).

        A history of noise predictions stays. One of clean images would pull the latent back to
        where it was, so it is dropped: the scheduler is then a copy of `base`.
        """
        restart = hasattr(base, "model_outputs")  # DPM-Solver and UniPC
        scheduler = copied(base if restart else self.scheduler)
        if restart:
            scheduler.set_begin_index(self.position)
        noise = standard_normal(clean, seed)
        time = self.timestep.reshape(1)
        if hasattr(scheduler, "scale_noise"):
            noisy = scheduler.scale_noise(clean, time, noise)
        else:
            noisy = scheduler.add_noise(clean, noise, time)
        return replace(self, noisy=noisy, scheduler=scheduler)

    def halfway(self, base: Any, clean: Tensor, seed: int) -> SchedulerState:
        """Return the state between the halves of a step that starts here, for a clean latent.

        For schedulers of two halves (Heun): the second half needs what the first one computed. So
        the latent is noised at the start of the step, and the first half is taken with the exact
        prediction.
        """
        start, _ = self.renoised(base, clean, seed).scaled()
        noise = standard_normal(clean, seed)  # the same as in `renoised`
        after, _ = start.step(exact_prediction(clean, noise, start), seed)
        return after

    def sigma(self) -> float:
        """Return the noise level beside a clean image of 1; in flow matching the share of noise."""
        alpha, sigma = alpha_sigma(self.scheduler, self)
        return sigma if is_flow_matching(self.scheduler) else sigma / max(alpha, 1e-12)


def copied(scheduler: Any) -> Any:
    """Return a copy of a scheduler with its history; of the noise of an SDE there is one only."""
    # A Brownian tree cannot be copied, and need not be: its noise is a function of its seed and of
    # the two noise levels.
    sampler = getattr(scheduler, "noise_sampler", None)
    return copy.deepcopy(scheduler, {} if sampler is None else {id(sampler): sampler})


def is_flow_matching(scheduler: Any) -> bool:
    """Return whether noisy = (1 - sigma) clean + sigma noise (flow matching)."""
    named = type(scheduler).__name__.startswith("FlowMatch")
    return named or bool(scheduler.config.get("use_flow_sigmas"))


def alpha_sigma(scheduler: Any, state: SchedulerState) -> tuple[float, float]:
    """Return (alpha, sigma) of the step: noisy = alpha clean + sigma noise."""
    # First `sigmas`: such schedulers may have fractional timesteps, which `alphas_cumprod` lacks.
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) > state.position:
        sigma = float(sigmas[state.position])
        return (
            (1 - sigma, sigma)
            if is_flow_matching(scheduler)
            else variance_preserving(1 / (1 + sigma**2))
        )
    return variance_preserving(float(scheduler.alphas_cumprod[int(state.timestep)]))


def variance_preserving(alpha_cumprod: float) -> tuple[float, float]:
    """Return (alpha, sigma) with alpha^2 = `alpha_cumprod` and alpha^2 + sigma^2 = 1."""
    return alpha_cumprod**0.5, max(1 - alpha_cumprod, 0.0) ** 0.5


def predicted_clean(scheduler: Any, state: SchedulerState, prediction: Tensor) -> Tensor:
    """Return the clean latent of a prediction, for schedulers that do not return it."""
    alpha, sigma = alpha_sigma(scheduler, state)
    if is_flow_matching(scheduler):
        return state.noisy - sigma * prediction
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind == "sample":
        return prediction
    if kind == "v_prediction":
        return alpha * state.noisy - sigma * prediction
    return (state.noisy - sigma * prediction) / max(alpha, 1e-12)  # alpha is 0 in pure noise


def exact_prediction(clean: Tensor, noise: Tensor, state: SchedulerState) -> Tensor:
    """Return the prediction of a network that knows the clean latent and its noise."""
    alpha, sigma = alpha_sigma(state.scheduler, state)
    if is_flow_matching(state.scheduler):
        return noise - clean
    kind = state.scheduler.config.get("prediction_type", "epsilon")
    if kind == "sample":
        return clean
    return alpha * noise - sigma * clean if kind == "v_prediction" else noise


def standard_normal(like: Tensor, seed: int) -> Tensor:
    """Draw standard normal noise of a tensor's shape on the CPU, then move it to its device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
