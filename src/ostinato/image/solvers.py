"""Solvers of diffusion: from a noisy image and its clean prediction to the next noise level.

Pure functions of one lane's tensors. All are written for x = clean + sigma * noise, the notation of
EDM (Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022): an
image of a variance-preserving process is this x divided by sqrt(1 + sigma^2), so DDPM, DDIM and
DPM-Solver++ take the same steps as in their papers. Knows no network and no loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ostinato.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Solver:
    """How a step is taken.

    `eta` is the share of fresh noise (1: the ancestral step of DDPM, 0: none, DDIM's range between,
    Song et al. 2021, equation 16); `second` asks for a prediction at the next level, too (Heun);
    `multistep` uses the prediction of the step before (DPM-Solver++ 2M).
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
    """Return the solver of a name. Raises `InputError` where there is none."""
    if isinstance(name, Solver):
        return name
    if name not in SOLVERS:
        raise InputError(f"A solver must be one of {', '.join(SOLVERS)}, got {name!r}.")
    return SOLVERS[str(name)]


def advance(
    solver: Solver,
    x: Tensor,
    sigma: float,
    sigma_next: float,
    denoised: Tensor,
    *,
    before: tuple[float, Tensor] | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Return x (of any shape) at `sigma_next`, given the clean prediction `denoised` at `sigma`.

    `before` is the last step's sigma and prediction, where there was one; `noise` is standard
    normal and needed where `eta` is above 0. For Heun this is the first half, see `correct`.
    """
    if sigma_next == 0.0:
        return denoised
    if solver.multistep and before is not None:
        return _two_steps(x, sigma, sigma_next, denoised, before)
    if solver.eta == 0.0:
        return _toward(x, denoised, sigma_next / sigma)
    assert noise is not None
    fresh = min(1.0, solver.eta * math.sqrt(max(0.0, 1.0 - (sigma_next / sigma) ** 2)))
    kept = sigma_next * math.sqrt(1.0 - fresh**2)
    return _toward(x, denoised, kept / sigma).add_(noise * _factor(sigma_next * fresh, x.dtype))


def correct(
    x: Tensor, sigma: float, sigma_next: float, denoised: Tensor, guess: Tensor, second: Tensor
) -> Tensor:
    """Return Heun's x at `sigma_next`: by the mean of the slopes at x and at `guess`.

    `second` is the clean prediction for `guess`, the Euler step, at `sigma_next`.
    """
    slope = (x - denoised) / sigma + (guess - second) / sigma_next
    return x + slope * ((sigma_next - sigma) / 2)


def _two_steps(
    x: Tensor, sigma: float, sigma_next: float, denoised: Tensor, before: tuple[float, Tensor]
) -> Tensor:
    """DPM-Solver++ 2M: the prediction is extended along the line through the last two."""
    sigma_before, denoised_before = before
    h, h_before = math.log(sigma / sigma_next), math.log(sigma_before / sigma)
    ahead = h / (2 * h_before)
    left, dtype = sigma_next / sigma, x.dtype
    denoised = (denoised * _factor(1 + ahead, dtype)).sub_(denoised_before * _factor(ahead, dtype))
    return denoised.mul_(_factor(1 - left, dtype)).add_(x * _factor(left, dtype))


def _toward(x: Tensor, denoised: Tensor, kept: float) -> Tensor:
    """Return the clean prediction with a share of the noise that is left in x."""
    return (x - denoised).mul_(_factor(kept, x.dtype)).add_(denoised)


@lru_cache(maxsize=1024)
def _factor(value: float, dtype: torch.dtype) -> Tensor:
    """Return a number as a tensor: torch multiplies by one in half the time, to the same bits."""
    with torch.inference_mode(False):  # it is kept beyond the mode in which it is made
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


DROWNED = 10.0
"""A noise level at which little is to be seen of an image in [-1, 1]."""


def jump_sigmas(steps: int, sigma_min: float, sigma_max: float) -> tuple[float, ...]:
    """Return `sigma_max`, then Karras levels from 10 where it is far higher, and a last 0.

    Above 10 the prediction stays near the mean image whatever the noise: one straight step crosses
    these levels as well as five, and leaves the others for where the image takes shape.
    """
    if steps < 5 or sigma_max < 2 * DROWNED or sigma_min >= DROWNED:
        return karras_sigmas(steps, sigma_min, sigma_max)
    return (sigma_max, *karras_sigmas(steps - 1, sigma_min, DROWNED))


def vp_sigmas(steps: int, betas: Sequence[float]) -> tuple[float, ...]:
    """Return the noise levels of a variance-preserving process and a last 0.

    `betas` are those of its training (Ho et al. 2020, section 2); `steps` of them are taken, evenly
    spaced and with the first ("leading"), as DDIM does.
    """
    if not 1 <= steps <= len(betas):
        raise InputError(f"steps must be from 1 to {len(betas)}, got {steps}.")
    kept = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), 0)
    levels = ((1 - kept) / kept).sqrt()
    stride = len(betas) // steps
    return (*(float(levels[i * stride]) for i in reversed(range(steps))), 0.0)


def linear_betas(count: int = 1000, first: float = 1e-4, last: float = 0.02) -> tuple[float, ...]:
    """Return the betas of DDPM (Ho et al. 2020, section 4)."""
    return tuple(torch.linspace(first, last, count, dtype=torch.float64).tolist())


def _check_levels(steps: int, sigma_min: float, sigma_max: float) -> None:
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}.")
    if not 0 < sigma_min < sigma_max:
        raise InputError(
            f"sigma_min must be above 0 and below sigma_max, got {sigma_min} and {sigma_max}."
        )
