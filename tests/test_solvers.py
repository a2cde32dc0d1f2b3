"""Each solver takes the steps of the `diffusers` scheduler of its name, on the same model."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ostinato.errors import InputError
from ostinato.image.solvers import (
    SOLVERS,
    advance,
    heun_step,
    jump_sigmas,
    karras_sigmas,
    linear_betas,
    solver_named,
    vp_sigmas,
)

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
BETAS = linear_betas()
VP = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def clean_of(x: Tensor, sigma: float) -> Tensor:
    """A model that is exact for pixels of variance 0.25 around 0.1, and a little bent."""
    mean = 0.1 + 0.1 * torch.sin(3 * x / math.sqrt(1 + sigma**2))
    return mean + (x - mean) * 0.25 / (0.25 + sigma**2)


def noise_of(x: Tensor, sigma: float) -> Tensor:
    return (x - clean_of(x, sigma)) / sigma


def start(sigma: float) -> Tensor:
    return torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(0)) * sigma


def ours(name: str, sigmas: tuple[float, ...], noises: list[Tensor]) -> list[Tensor]:
    solver, x, seen = SOLVERS[name], start(sigmas[0]), []
    previous = None
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        clean = clean_of(x, sigma)
        after = advance(
            solver,
            x,
            sigma,
            sigma_next,
            clean,
            previous=previous,
            noise=noises[i] if noises else None,
        )
        if solver.second and sigma_next:
            after = heun_step(x, sigma, sigma_next, clean, after, clean_of(after, sigma_next))
        previous, x = (sigma, clean), after
        seen.append(x)
    return seen


def vp_steps(scheduler: Any, steps: int, **named: Any) -> tuple[tuple[float, ...], list[Tensor]]:
    """Run a variance-preserving scheduler; return its levels and its images, rescaled to ours."""
    scheduler.set_timesteps(steps)
    kept = scheduler.alphas_cumprod
    sigmas = [float(((1 - kept[t]) / kept[t]) ** 0.5) for t in scheduler.timesteps]
    sigmas.append(0.0)
    x = start(sigmas[0]) / math.sqrt(1 + sigmas[0] ** 2)
    seen = []
    for i, t in enumerate(scheduler.timesteps):
        eps = noise_of(x * math.sqrt(1 + sigmas[i] ** 2), sigmas[i])
        x = scheduler.step(eps[None], t, x[None], **named).prev_sample[0]
        seen.append(x * math.sqrt(1 + sigmas[i + 1] ** 2))
    return tuple(sigmas), seen


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b.to(torch.float32), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("steps", [5, 20])
def test_ddim_is_that_of_diffusers(steps: int) -> None:
    scheduler = diffusers.DDIMScheduler(**VP, clip_sample=False, set_alpha_to_one=True)
    sigmas, expected = vp_steps(scheduler, steps)
    assert sigmas == pytest.approx(vp_sigmas(steps, BETAS), rel=1e-4)
    same(ours("ddim", sigmas, []), expected)


@pytest.mark.parametrize("steps", [5, 20])
def test_ddpm_is_that_of_diffusers(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.schedulers import scheduling_ddpm

    generator = torch.Generator().manual_seed(1)
    noises = [torch.randn(1, 6, 6, generator=generator) for _ in range(steps)]
    queue = list(noises)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: queue.pop(0)[None])
    scheduler = diffusers.DDPMScheduler(**VP, clip_sample=False)
    sigmas, expected = vp_steps(scheduler, steps)
    same(ours("ddpm", sigmas, noises), expected)


@pytest.mark.parametrize("steps", [5, 20])
def test_dpm_solver_is_that_of_diffusers(steps: int) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **VP,
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="leading",
        final_sigmas_type="zero",
    )
    sigmas, expected = vp_steps(scheduler, steps)
    same(ours("dpmpp_2m", sigmas, []), expected)


@pytest.mark.parametrize("name", ["euler", "heun"])
@pytest.mark.parametrize("steps", [5, 20])
def test_euler_and_heun_are_those_of_diffusers(name: str, steps: int) -> None:
    kind = {"euler": "EulerDiscreteScheduler", "heun": "HeunDiscreteScheduler"}[name]
    scheduler = getattr(diffusers, kind)(**VP, use_karras_sigmas=True)
    scheduler.set_timesteps(steps)
    levels = [float(s) for s in scheduler.sigmas]
    sigmas = tuple(dict.fromkeys(levels))  # Heun's list holds each level twice
    x, expected = start(sigmas[0]), []
    for i, t in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x[None], t)
        x = scheduler.step(noise_of(x, levels[i])[None], t, x[None]).prev_sample[0]
        if name == "euler" or i % 2 == 1 or levels[i + 1] == 0:
            expected.append(x)
    same(ours(name, sigmas, []), expected)


def test_karras_levels_are_those_of_diffusers() -> None:
    scheduler = diffusers.EulerDiscreteScheduler(**VP, use_karras_sigmas=True)
    scheduler.set_timesteps(7)
    expected = [float(s) for s in scheduler.sigmas]
    levels = karras_sigmas(7, expected[-2], expected[0])
    assert levels == pytest.approx(expected, rel=1e-3)


def test_levels_jump_over_those_that_drown_every_image() -> None:
    levels = jump_sigmas(9, 0.05, 80.0)
    assert (len(levels), levels[0], levels[-1]) == (10, 80.0, 0.0)
    assert levels[1:] == karras_sigmas(8, 0.05, 10.0)
    assert jump_sigmas(9, 0.05, 10.0) == karras_sigmas(9, 0.05, 10.0)  # nothing to jump over
    assert jump_sigmas(2, 0.05, 80.0) == karras_sigmas(2, 0.05, 80.0)


def test_one_step_ends_in_the_clean_prediction() -> None:
    sigmas = karras_sigmas(1, 0.02, 10.0)
    for name in SOLVERS:
        (end,) = ours(name, sigmas, [torch.zeros(1, 6, 6)])
        assert torch.equal(end, clean_of(start(sigmas[0]), sigmas[0]))


def test_a_wrong_solver_or_schedule_is_told() -> None:
    with pytest.raises(InputError, match="one of ddpm, ddim, euler, heun, dpmpp_2m, got 'eular'"):
        solver_named("eular")
    with pytest.raises(InputError, match="steps must be at least 1"):
        karras_sigmas(0, 0.1, 1.0)
    with pytest.raises(InputError, match="below sigma_max"):
        karras_sigmas(3, 2.0, 1.0)
    with pytest.raises(InputError, match="from 1 to 1000"):
        vp_sigmas(1001, BETAS)
