"""Diffusion solvers: from a noisy image and its clean prediction to the next noise level.

Pure functions of tensors of any shape, in the notation of EDM: x = clean + sigma * noise (Karras et
al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022). An image of a
variance-preserving process is this x divided by sqrt(1 + sigma^2). So DDPM, DDIM and DPM-Solver++
take the same steps as in their papers. Knows no network and no loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ostinato.arguments import did_you_mean, require, require_at_least
from ostinato.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Solver:
    """How a solver takes a step.

    `eta` scales the fresh noise: 1 is DDPM's ancestral step, 0 is deterministic, DDIM lies between
    (Song et al. 2021, equation 16). `second` needs a second prediction, at the next level (Heun).
    `multistep` uses the prediction of the previous step (DPM-Solver++ 2M).
    """

    name: str
    eta: float = 0.0
    second: bool = False
    multistep: bool = False


SOLVERS = {
    solver.name: solver
    for solver in (
        Solver(name="ddpm", eta=1.0),  # Ho et al. 2020, algorithm 2
        Solver(name="ddim"),  # Song et al. 2021
        Solver(name="euler"),  # Karras et al. 2022, algorithm 1 without its correction
        Solver(name="heun", second=True),  # Karras et al. 2022, algorithm 1
        Solver(name="dpmpp_2m", multistep=True),  # Lu et al. 2022, algorithm 2
    )
}


def solver_named(name: object) -> Solver:
    """Return a solver by name. Raises `InputError` for an unknown one."""
    if isinstance(name, Solver):
        return name
    if name not in SOLVERS:
        hint = did_you_mean(name, SOLVERS)
        raise InputError(f"A solver must be one of {', '.join(SOLVERS)}, got {name!r}.{hint}")
    return SOLVERS[str(name)]


def advance(
    solver: Solver,
    x: Tensor,
    sigma: float,
    sigma_next: float,
    denoised: Tensor,
    *,
    previous: tuple[float, Tensor] | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Return x at `sigma_next`, given the clean prediction `denoised` of x at `sigma`.

    `previous` is the sigma and `denoised` of the step before, if any. `noise` is standard normal,
    needed where `eta` is above 0. For Heun this is the Euler step; `heun_step` corrects it.
    """
    if sigma_next == 0.0:
        return denoised  # every solver ends here, and the logarithms below would be infinite
    if solver.multistep and previous is not None:
        return _dpmpp_2m(x, sigma, sigma_next, denoised, previous)
    if solver.eta == 0.0:
        return _rescaled(x, denoised, sigma_next / sigma)
    assert noise is not None
    fresh = min(1.0, solver.eta * math.sqrt(max(0.0, 1.0 - (sigma_next / sigma) ** 2)))
    sigma_up, sigma_down = sigma_next * fresh, sigma_next * math.sqrt(1.0 - fresh**2)
    return _rescaled(x, denoised, sigma_down / sigma).add_(noise * _factor(sigma_up, x.dtype))


def heun_step(
    x: Tensor, sigma: float, sigma_next: float, denoised: Tensor, euler: Tensor, denoised_2: Tensor
) -> Tensor:
    """Return Heun's x at `sigma_next`, by the mean slope (Karras et al. 2022, algorithm 1).

    `euler` is x after the Euler step, `denoised_2` the clean prediction of it at `sigma_next`.
    """
    slopes = (x - denoised) / sigma + (euler - denoised_2) / sigma_next
    return x + slopes * ((sigma_next - sigma) / 2)


def _dpmpp_2m(
    x: Tensor, sigma: float, sigma_next: float, denoised: Tensor, previous: tuple[float, Tensor]
) -> Tensor:
    """DPM-Solver++ 2M (Lu et al. 2022, algorithm 2)."""
    sigma_last, old_denoised = previous
    h, h_last = math.log(sigma / sigma_next), math.log(sigma_last / sigma)
    inv_2r = h / (2 * h_last)  # 1 / (2 r) with the paper's r = h_last / h
    ratio, dtype = sigma_next / sigma, x.dtype
    # No `lerp` or `addcmul`: fused operations round differently, perhaps even within one tensor and
    # at its end (docs/log.md). In place only on tensors made here.
    D = (denoised * _factor(1 + inv_2r, dtype)).sub_(old_denoised * _factor(inv_2r, dtype))
    return D.mul_(_factor(1 - ratio, dtype)).add_(x * _factor(ratio, dtype))


def _rescaled(x: Tensor, denoised: Tensor, ratio: float) -> Tensor:
    """Return x with its noise, x - denoised, multiplied by `ratio`."""
    return (x - denoised).mul_(_factor(ratio, x.dtype)).add_(denoised)


@lru_cache(maxsize=1024)
def _factor(value: float, dtype: torch.dtype) -> Tensor:
    """Return a number as a tensor: torch multiplies by one in half the time, to the same bits."""
    with torch.inference_mode(False):  # the cache outlives the caller's inference mode
        return torch.tensor(value, dtype=dtype)


def karras_sigmas(
    steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> tuple[float, ...]:
    """Return `steps` falling noise levels and a last 0 (Karras et al. 2022, equation 5)."""
    _check_levels(steps, sigma_min, sigma_max)
    if steps == 1:
        return (sigma_max, 0.0)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)]
    return (*levels, 0.0)


JUMP_TO = 10.0
"""A noise level at which little of an image in [-1, 1] is visible.

A jump from 80 to it gave a distance of 1.41 in ten calls, all levels 1.74, a jump to 4 1.68.
Starting there, without the jump, gave more wrong classes: 7.7% instead of 5.5% (docs/log.md).
"""


def jump_sigmas(steps: int, sigma_min: float, sigma_max: float) -> tuple[float, ...]:
    """Return `sigma_max`, then Karras levels from 10 where it is far higher, and a last 0.

    Above 10 the prediction stays near the mean image whatever the noise is. One straight step
    crosses these levels as well as five, and leaves the others for where the image takes shape.

    """
    if steps < 5 or sigma_max < 2 * JUMP_TO or sigma_min >= JUMP_TO:
        return karras_sigmas(steps, sigma_min, sigma_max)
    return (sigma_max, *karras_sigmas(steps - 1, sigma_min, JUMP_TO))


def vp_sigmas(steps: int, betas: Sequence[float]) -> tuple[float, ...]:
    """Return the noise levels of a variance-preserving process and a last 0.

    `betas` are those of its training (Ho et al. 2020, section 2). `steps` of them are taken, evenly
    spaced from the first on ("leading" spacing), as DDIM does.
    """
    require(1 <= steps <= len(betas), "steps", f"from 1 to {len(betas)}", steps)
    alphas_cumprod = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), 0)
    levels = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
    stride = len(betas) // steps
    return (*(float(levels[i * stride]) for i in reversed(range(steps))), 0.0)


def linear_betas(count: int = 1000, first: float = 1e-4, last: float = 0.02) -> tuple[float, ...]:
    """Return the linear schedule of betas of DDPM (Ho et al. 2020, section 4)."""
    return tuple(torch.linspace(first, last, count, dtype=torch.float64).tolist())


def _check_levels(steps: int, sigma_min: float, sigma_max: float) -> None:
    require_at_least(1, steps=steps)
    if not 0 < sigma_min < sigma_max:
        raise InputError(
            f"sigma_min must be above 0 and below sigma_max, got {sigma_min} and {sigma_max}."
        )
