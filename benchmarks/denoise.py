"""Digits after three minutes of training: ours beside the DDPM recipe of diffusers' example.

    python -m benchmarks.denoise --data FOLDER [--seconds 180] [--json]
    python -m benchmarks.denoise --parts overhead [--json]

FOLDER holds the 10,000 test images of MNIST (see `recipes/digits.py`): 8,000 to train, 2,000 held
out. A classifier trained here gives features and classes. Measured, each beside other real images:
the Fréchet distance of samples to held-out images, and the share of samples that are recognized.
Also: the distance by solver and number of calls, what `Converges` saves, and what a step costs
beyond the network, ours and a diffusers pipeline's (`--parts overhead`: seconds, needs no data).

The peer (`pip install diffusers`; left out if missing) is the recipe of its unconditional training
example: a UNet2DModel that predicts the noise, linear betas, AdamW at 1e-4 after 500 steps of
warm-up, averaged weights. It also gets the classes, a size that two cores can train, and ten calls
of its DDIM scheduler: its thousand ancestral ones would take an hour.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.denoise_overhead import overheads
from benchmarks.digit_bench import Bench, prepared, show, trained_for
from ostinato.image import (
    RECIPE,
    SOLVERS,
    Images,
    ImageTask,
    UNet,
    load_denoiser,
    save_denoiser,
    shape_for,
)
from ostinato.loop import Converges, Reaches
from ostinato.train import BatchSampler, Training
from recipes.digits import sampled

try:
    import diffusers
except ImportError:
    diffusers = None

TEN = {"steps": 9, "guidance": 2.75, "guided": (1.0, 3.0)}  # one step of two calls: ten in all
PARTS = ("ours", "ddpm", "overhead", "converges", "solvers")


def train_ours(images: Images, seconds: float, steps: int | None) -> tuple[UNet, int]:
    """Train our recipe for some steps, or for seconds, which include a measurement of its speed."""

    def make(steps: int) -> Training:
        config = replace(RECIPE, steps=steps, sample_every=0)
        return Training(UNet(shape_for(images)), ImageTask(images), config)

    process, made = trained_for(make, seconds, steps)
    with process.best_weights():
        network = copy.deepcopy(process.network)
    assert isinstance(network, UNet)
    network.eval()
    return network, made


class Peer:
    """The DDPM recipe of diffusers' example, class-conditional."""

    def __init__(self) -> None:
        self.unet: Any = diffusers.UNet2DModel(
            sample_size=28,
            in_channels=1,
            out_channels=1,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            num_class_embeds=10,
            norm_num_groups=16,
        )
        self.scheduler: Any = diffusers.DDPMScheduler(num_train_timesteps=1000)

    def train(self, images: Images, seconds: float) -> int:
        """Train for some seconds; return the steps. The network keeps the averaged weights."""
        assert images.labels is not None
        start = time.perf_counter()
        clean, sampler = images.clean(), BatchSampler([1] * len(images), 64, 0)
        optimizer = torch.optim.AdamW(
            self.unet.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6
        )
        average: Any = diffusers.training_utils.EMAModel(
            self.unet.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75
        )
        step = 0
        while time.perf_counter() - start < seconds:
            chosen = list(sampler.batch(step)[1])
            x, noise = clean[chosen], torch.randn(len(chosen), 1, 28, 28)
            t = torch.randint(0, 1000, (len(chosen),))
            predicted = self.unet(self.scheduler.add_noise(x, noise, t), t, images.labels[chosen])
            F.mse_loss(predicted.sample, noise).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
            optimizer.param_groups[0]["lr"] = 1e-4 * min(1.0, (step + 1) / 500)
            optimizer.step()
            optimizer.zero_grad()
            average.step(self.unet.parameters())
            step += 1
        average.copy_to(self.unet.parameters())
        self.unet.eval()
        return step

    @torch.no_grad()
    def sample(self, labels: Tensor, steps: int) -> Tensor:
        """Return an image of each label after some steps of DDIM."""
        scheduler: Any = diffusers.DDIMScheduler(num_train_timesteps=1000)
        scheduler.set_timesteps(steps)
        samples = []
        for chunk in torch.split(labels, 100):
            x = torch.randn(len(chunk), 1, 28, 28)
            for t in scheduler.timesteps:
                x = scheduler.step(self.unet(x, t, chunk).sample, t, x).prev_sample
            samples.append(x.clamp(-1, 1))
        return torch.cat(samples)


def by_solver(network: UNet, bench: Bench, calls: Sequence[int]) -> dict[str, float]:
    """Return the distance by solver and number of calls (a step of Heun's has two)."""
    figures: dict[str, float] = {}
    for name, solver in SOLVERS.items():
        for number in calls:
            steps = (number + 1) // 2 if solver.second else number
            images, _ = sampled(network, bench.labels, solver=name, steps=steps)
            figures[f"{name}.{number}.fd"] = bench.distance(images)
    return figures


def converging(network: UNet, bench: Bench) -> dict[str, float]:
    """Return distance and calls of 20 steps, and of those that end when the image is stable."""
    figures: dict[str, float] = {}
    stable = Converges("change", 0.02, over=2) & Reaches("sigma", below=0.5)
    for name, settings in {"all": {}, "converges": {"each": stable}}.items():
        images, calls = sampled(network, bench.labels, steps=20, **settings)
        figures |= {f"{name}.calls": calls, f"{name}.fd": bench.distance(images)}
    return figures


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.denoise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder of the IDX files")
    parser.add_argument("--seconds", type=float, default=180, help="of training each recipe")
    parser.add_argument("--steps", type=int, help="train ours for steps, not seconds")
    parser.add_argument("--count", type=int, default=2000, help="samples for the distance")
    parser.add_argument("--few", type=int, default=500, help="samples for each solver")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="what to measure")
    parser.add_argument("--model", type=Path, help="use this denoiser, train none")
    parser.add_argument("--save", type=Path, help="write the trained denoiser to this folder")
    parser.add_argument(
        "--calls", type=int, nargs="+", default=[5, 10, 20], help="network calls for each solver"
    )
    parser.add_argument("--repeats", type=int, default=15, help="repeats of the overhead's timing")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, {platform.processor()}, torch {torch.__version__}")
    if options.parts == ["overhead"]:
        show(flat := overheads(load_denoiser(options.model or "digits"), options.repeats))
    elif options.data is None:
        parser.error("--data must be given for all parts but `overhead` alone.")
    else:
        flat = measured(options)
    if options.json:
        print(json.dumps({name: round(value, 4) for name, value in flat.items()}))


def measured(options: argparse.Namespace) -> dict[str, float]:
    """Train what the chosen parts need, and measure them."""
    seen, bench, flat = prepared(options.data, options.count)
    show(flat)
    if {"ours", "solvers", "overhead", "converges"} & set(options.parts):
        network, flat["steps"] = (
            (load_denoiser(options.model), 0)
            if options.model
            else train_ours(seen, options.seconds, options.steps)
        )
        if options.save:
            save_denoiser(options.save, network)
    if "ours" in options.parts:
        for names, settings in (
            (("fd10", "class_right"), TEN),
            (("plain_fd10", "plain_right"), {"steps": 10}),
        ):
            images, calls = sampled(network, bench.labels, **settings)
            assert calls == 10
            show(figures := bench.samples(images, *names))
            flat |= figures
    if "ddpm" in options.parts and diffusers is not None:
        peer = Peer()
        flat["ddpm_steps"] = peer.train(seen, options.seconds)
        show(figures := bench.samples(peer.sample(bench.labels, 10), "ddpm_fd", "ddpm_right"))
        flat |= figures
    few = replace(bench, count=options.few)
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "overhead": lambda: overheads(network, options.repeats),
        "converges": lambda: converging(network, few),
        "solvers": lambda: by_solver(network, few, options.calls),
    }
    for name, part in parts.items():
        if name in options.parts:
            show(figures := part())
            flat |= figures
    return flat


if __name__ == "__main__":
    main()
