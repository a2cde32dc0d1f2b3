"""What a denoising step costs besides the network: ours, and a diffusers pipeline's.

Measured for the same batch, steps and kind of solver, without progress bars, taking turns within
each repeat. Alone: with a network that returns its input at once, in microseconds per step. In
place: with a real network, as a share of its bare calls. In place the caches are cold, and the
result is a small difference of two long times. Part of `benchmarks.denoise`.
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
    """A network that returns its input at once."""

    channels, size, classes = 1, 28, 10
    sigma_min, sigma_max = 0.05, 80.0

    def __call__(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Return x."""
        return x


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def overheads(network: UNet, repeats: int) -> dict[str, float]:
    """Return the cost of steps in place, as shares of the bare calls, and alone in microseconds."""
    medians = in_turns({"bare": bare(network), **runners(network, "ddpm", repeats)}, repeats)
    call = medians.pop("bare")
    figures = {f"{name}_overhead": took / call - 1 for name, took in medians.items()}
    figures["call_ms"] = 1000 * call
    for solver in SCHEDULERS:
        alone = in_turns(runners(Nothing(), solver, 4 * repeats), 4 * repeats)
        figures |= {f"{solver}.{name}_us": 1e6 * took for name, took in alone.items()}
    return figures


def in_turns(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds per step of each call; the calls take turns."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            took[name].append(seconds(call) / STEPS)
    # The first repeat warms up.
    return {name: statistics.median(times[1:]) for name, times in took.items()}


def bare(network: UNet) -> Callable[[], object]:
    """Return a call of the network alone, for all steps."""
    x, sigma, label = torch.randn(BATCH, 1, 28, 28), torch.ones(BATCH), torch.arange(BATCH)

    @torch.no_grad()
    def call() -> None:
        for _ in range(STEPS):
            network(x, sigma, label)

    return call


def runners(network: Denoiser, solver: str, repeats: int) -> dict[str, Callable[[], object]]:
    """Return our steps, and a pipeline's if diffusers is installed."""
    labels = list(range(BATCH))
    loops = [
        denoise_loop(labels, model=network, steps=STEPS, solver=solver) for _ in range(repeats + 1)
    ]
    calls: dict[str, Callable[[], object]] = {"step": lambda: loops.pop().run()}
    if diffusers is not None:
        calls["pipeline"] = pipeline(network, SCHEDULERS[solver])
    return calls


def pipeline(network: Denoiser, scheduler: str) -> Callable[[], object]:
    """Return a call of diffusers' unconditional pipeline that runs our network."""

    class Wrapped(diffusers.ModelMixin, diffusers.ConfigMixin):
        config_name = "config.json"

        def __init__(self) -> None:
            super().__init__()
            self.inner = network
            self.kind = torch.nn.Parameter(torch.zeros(1))  # a pipeline reads its type and device
            self.sigma, self.label = torch.ones(BATCH), torch.arange(BATCH)
            self.register_to_config(sample_size=28, in_channels=1)

        def forward(self, x: Tensor, t: Tensor) -> SimpleNamespace:
            return SimpleNamespace(sample=self.inner(x, self.sigma, self.label))

    pipe: Any = diffusers.DDPMPipeline(Wrapped(), getattr(diffusers, scheduler)())
    pipe.set_progress_bar_config(disable=True)
    return lambda: pipe(batch_size=BATCH, num_inference_steps=STEPS, output_type="np")
