"""Refuses a scheduler that cannot be stepped as a pipeline's own call steps it, with the reason.

Schedulers are tried, not listed: diffusers adds some with every release. Knows no lane.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from typing import Any, ClassVar, Protocol

import torch

from ostinato.errors import ItemError, ModelError
from ostinato.image.pipelines.inputs import PipelineInputs
from ostinato.image.pipelines.scheduler_state import (
    SchedulerCalls,
    SchedulerState,
    is_flow_matching,
)

TRIED = (4, 2, 1)
"""Steps that are tried: few, as some schedulers (LCM) take only few."""
REASON = 200  # characters of a library's message


class SchedulerUser(Protocol):
    """What is needed of a `PipelineFamily`."""

    pipeline: Any
    dtype: torch.dtype
    device: torch.device
    scheduler_calls: SchedulerCalls
    scheduler_reads: ClassVar[tuple[str, ...]]
    usual_scheduler: ClassVar[str]

    def latent_shape(self, inputs: PipelineInputs) -> tuple[int, int, int]:
        """Return (C, H, W) of an item."""
        ...

    def set_timesteps(self, scheduler: Any, steps: int, shape: tuple[int, int, int]) -> None:
        """Prepare a scheduler for a number of steps and latents of a shape."""
        ...


def check_scheduler(family: SchedulerUser) -> None:
    """Raise `ModelError` where the pipeline's scheduler cannot be stepped as its call does."""
    reason = _obstacle(family, family.pipeline.scheduler)
    if reason is not None:
        raise ModelError(
            f"The scheduler must be one that {type(family.pipeline).__name__} can use, got "
            f"{type(family.pipeline.scheduler).__name__}: {reason}. Give the pipeline another, "
            f"such as {family.usual_scheduler}, and save it again."
        )


def _obstacle(family: SchedulerUser, scheduler: Any) -> str | None:
    """Return why the pipeline cannot use the scheduler; None where it can."""
    for name in ("step", "set_timesteps", *family.scheduler_reads):
        if not hasattr(scheduler, name):
            return f"it has no `{name}`, which the pipeline reads"
    missing = _required(scheduler) - set(family.scheduler_calls.options)
    if missing:
        return f"its step needs {' and '.join(sorted(missing))}, which the pipeline does not give"
    # Reports and `renoise` need the noise level of each step.
    if not (hasattr(scheduler, "alphas_cumprod") or is_flow_matching(scheduler)):
        return "it does not tell its noise levels as `alphas_cumprod`, nor is it of flow matching"
    if not (hasattr(scheduler, "add_noise") or hasattr(scheduler, "scale_noise")):
        return "it cannot add noise to an image"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of now, it warns of when it is used
            return _tried(family, scheduler)
    # The libraries raise anything for what does not fit.
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:REASON].rstrip(".")


def _required(scheduler: Any) -> set[str]:
    """Return the arguments without default of `step`, beside prediction, timestep and sample."""
    parameters = list(inspect.signature(scheduler.step).parameters.values())
    return {each.name for each in parameters[3:] if each.default is each.empty}


def _tried(family: SchedulerUser, scheduler: Any) -> str | None:
    """Take a first step; return what is wrong with its schedule. Raises what the scheduler does."""
    scheduler = _prepared(family, scheduler)
    if scheduler.timesteps[0] < scheduler.timesteps[-1]:
        return "its steps lead from an image to noise"
    x = torch.ones(1, family.latent_shape(PipelineInputs())[0], 8, 8, dtype=family.dtype)
    state = SchedulerState(0, x.to(family.device), scheduler, family.scheduler_calls)
    if _scales(state) and not family.scheduler_calls.scales_input:
        return "it scales noise and input for the network, which the pipeline does not"
    state, _ = state.scaled()
    state.step(torch.zeros_like(state.noisy), 0)
    state.sigma()
    return None


def _prepared(family: SchedulerUser, scheduler: Any) -> Any:
    """Return a copy that is set for some steps. Raises what the last attempt raised."""
    shape = family.latent_shape(PipelineInputs())
    for steps in TRIED:
        attempt = copy.deepcopy(scheduler)
        try:
            family.set_timesteps(attempt, steps, shape)
            return attempt
        except (ValueError, ItemError) as error:
            reason = error
    raise reason


def _scales(state: SchedulerState) -> bool:
    scheduler = copy.deepcopy(state.scheduler)
    if float(getattr(scheduler, "init_noise_sigma", 1.0)) != 1.0:
        return True
    if not hasattr(scheduler, "scale_model_input"):
        return False
    return not torch.equal(scheduler.scale_model_input(state.noisy, state.timestep), state.noisy)
