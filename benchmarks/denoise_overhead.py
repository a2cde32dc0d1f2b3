"""What a step of denoising costs besides the network: ours, and a diffusers pipeline's.

Two ways to measure, for the same batch, steps and kind of solver, progress bars off, the rivals in
turns within each repeat. Alone: with a network that returns its input at once, in microseconds a
step. In place: with a real one, as shares of its bare calls; there the caches are cold, and the
difference of two long times is a small one. Part of `benchmarks.denoise`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ostinato.image import UNet, denoise_loop
from ostinato.image.fixed_batches import Denoiser

try:
    import diffusers
except ImportError:
    diffusers = None

BATCH = 8  # samples of a network call
STEPS = 10
SCHEDULERS = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
}
"""Our solvers, and the schedulers of diffusers that take the same steps."""


class Nothing:
    """A network that costs nothing."""

    channels, size, classes = 1, 28, 10
    sigma_min, sigma_max = 0.05, 80.0

    def __call__(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Return x."""
        return x


def passed(what: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def overheads(network: UNet, repeats: int) -> dict[str, float]:
    """Return the shares of the bare calls that steps cost in place, and what they cost alone."""
    medians = in_turns({"bare": bare(network), **rivals(network, "ddpm", repeats)}, repeats)
    call = medians.pop("bare")
    told = {f"{name}_overhead": took / call - 1 for name, took in medians.items()}
    told["call_ms"] = 1000 * call
    for solver in SCHEDULERS:
        alone = in_turns(rivals(Nothing(), solver, 4 * repeats), 4 * repeats)
        told |= {f"{solver}.{name}_us": 1e6 * took for name, took in alone.items()}
    return told


def in_turns(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds that a step takes each way; the ways take turns."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            took[name].append(passed(way) / STEPS)
    return {name: statistics.median(times[1:]) for name, times in took.items()}  # one warms up


def bare(network: UNet) -> Callable[[], object]:
    """Return the bare calls of a network."""
    x, sigma, label = torch.randn(BATCH, 1, 28, 28), torch.ones(BATCH), torch.arange(BATCH)

    @torch.no_grad()
    def call() -> None:
        for _ in range(STEPS):
            network(x, sigma, label)

    return call


def rivals(network: Denoiser, solver: str, repeats: int) -> dict[str, Callable[[], object]]:
    """Return our steps, and a pipeline's where diffusers is installed."""
    labels = list(range(BATCH))
    loops = [
        denoise_loop(labels, model=network, steps=STEPS, solver=solver) for _ in range(repeats + 1)
    ]
    ways: dict[str, Callable[[], object]] = {"step": lambda: loops.pop().run()}
    if diffusers is not None:
        ways["pipeline"] = pipeline(network, SCHEDULERS[solver])
    return ways


def pipeline(network: Denoiser, scheduler: str) -> Callable[[], object]:
    """Return a call of diffusers' unconditional pipeline that runs our network."""

    class Wrapped(diffusers.ModelMixin, diffusers.ConfigMixin):
        config_name = "config.json"

        def __init__(self) -> None:
            super().__init__()
            self.inner = network
            self.kind = torch.nn.Parameter(torch.zeros(1))  # of which a pipeline takes its own
            self.sigma, self.label = torch.ones(BATCH), torch.arange(BATCH)
            self.register_to_config(sample_size=28, in_channels=1)

        def forward(self, x: Tensor, t: Tensor) -> SimpleNamespace:
            return SimpleNamespace(sample=self.inner(x, self.sigma, self.label))

    made: Any = diffusers.DDPMPipeline(Wrapped(), getattr(diffusers, scheduler)())
    made.set_progress_bar_config(disable=True)
    return lambda: made(batch_size=BATCH, num_inference_steps=STEPS, output_type="np")
