"""Digits after five minutes of a generator's training: ours beside the recipe of PyTorch's DCGAN.

    python -m benchmarks.duel --data FOLDER [--seconds 300] [--json]

FOLDER holds the 10,000 test images of MNIST (see `recipes/digits.py`): 8,000 to train, 2,000 held
out. As many samples as these are compared with them, in the features of a classifier trained here:
`fd` is the Fréchet distance, `precision` and `recall` are those of Kynkäänniemi et al. 2019, and
`classes` is how many classes have at least a tenth of their due share of the samples. `floor_fd` is
the distance of other real images. Ours has the defaults of `ostinato train gan`, and what is
measured are its averaged weights at the end: nothing is chosen by these figures.

The peer is the recipe of PyTorch's DCGAN tutorial for images of 28 pixels: binary cross-entropy,
Adam with betas (0.5, 0.999), batches of 128, batch normalization, weights from N(0, 0.02), noise of
100 values. The tutorial's rate of 2e-4 is made for hours. So every rate of the generator and every
width of `GRID` trains for `--trial` seconds; the best `--finalists` start again and train for the
whole time. Each is measured five times, off the clock, and the best figure of all counts.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.digit_bench import Bench, prepared, show, trained_for
from ostinato.adversarial import Discriminator, Duel, DuelConfig, Generator, gan_for
from ostinato.image import Images
from ostinato.train import BatchSampler

PARTS = ("ours", "dcgan")
LATENT, BATCH = 100, 128
NEVER = 10**9  # steps; a duel may make more than were foreseen
MARKS = 5  # measurements of a training of the peer


@dataclass(frozen=True)
class Setting:
    """Rate of the generator, rate of the discriminator, channels of the finest level."""

    lr: float
    discriminator_lr: float
    width: int


RATES = ((2e-4, 2e-4), (1e-3, 2e-4), (1e-3, 1e-3), (5e-3, 2e-4))
WIDTHS = (16, 32, 64)  # 64: the tutorial's
GRID = tuple(Setting(*rates, width) for rates, width in product(RATES, WIDTHS))


@dataclass(frozen=True)
class Figures:
    """What was measured of the peer's samples, and after how many seconds of training."""

    fd: float
    classes: int
    seconds: float
    setting: Setting


def train_ours(seen: Images, held: Images, seconds: float) -> tuple[Duel, int]:
    """Train a duel with our defaults; return it and its steps. No best weights are chosen."""
    shape = gan_for(seen)

    def make(steps: int) -> Duel:
        config = DuelConfig(steps=steps, sample_every=0, valid_every=NEVER)
        return Duel(Generator(shape), Discriminator(shape, seed=1), seen, held, config)

    return trained_for(make, seconds)


def ours(seen: Images, bench: Bench, seconds: float) -> dict[str, float]:
    """Return our figures after some seconds of training."""
    duel, steps = train_ours(seen, bench.held, seconds)
    with duel.best_weights():
        images, _ = duel.samples(bench.count, "bench", bench.labels)
    updates = duel.config.discriminator_updates
    return {
        "ours.fd": bench.distance(images),
        **{f"ours.{name}": value for name, value in bench.precision_recall(images).items()},
        "ours.classes": bench.classes(images),
        "images_per_s": steps * updates * duel.config.batch_images / seconds,
    }


class Dcgan:
    """The recipe of the tutorial, with its rates and its width as a setting."""

    def __init__(self, images: Images, setting: Setting) -> None:
        torch.manual_seed(0)
        self.setting = setting
        self._images, self._sampler = images.clean(), BatchSampler([1] * len(images), BATCH, 0)
        self.generator, self.discriminator = generator(setting.width), discriminator(setting.width)
        self._optimizers = [
            torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999))
            for network, lr in (
                (self.generator, setting.lr),
                (self.discriminator, setting.discriminator_lr),
            )
        ]

    def step(self, number: int) -> None:
        """Update the discriminator, then the generator."""
        real = self._images[list(self._sampler.batch(number)[1])]
        made = self.generator(noise(len(real)))
        one, other = self._optimizers
        other.zero_grad()
        # Real and generated images apart: each has its own statistics of the batch.
        loss = self._loss(real, 1.0) + self._loss(made.detach(), 0.0)
        loss.backward()  # type: ignore[no-untyped-call]
        other.step()
        one.zero_grad()
        self._loss(made, 1.0).backward()  # type: ignore[no-untyped-call]
        one.step()

    def _loss(self, images: Tensor, target: float) -> Tensor:
        logits = self.discriminator(images).flatten()
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    @torch.no_grad()
    def samples(self, number: int) -> Tensor:
        """Return images, made with the statistics of their batches as in the tutorial."""
        draws = torch.Generator().manual_seed(1)
        z = torch.randn(number, LATENT, 1, 1, generator=draws)
        return torch.cat([self.generator(part) for part in torch.split(z, BATCH)])

    def trained(self, seconds: float, marks: int) -> Iterator[float]:
        """Train for some seconds; pause `marks` times, evenly, at the seconds that are given."""
        spent, reached = 0.0, 0
        for number in count():
            start = time.perf_counter()
            self.step(number)
            spent += time.perf_counter() - start
            if spent >= seconds * (reached + 1) / marks:
                yield spent
                reached = math.floor(spent / seconds * marks)  # a long step may pass two
            if spent >= seconds:
                return


def generator(width: int) -> nn.Sequential:
    """Return the generator: noise (B, 100, 1, 1) to 4, 7, 14 and 28 pixels a side."""
    layers: list[nn.Module] = []
    for a, b, kernel, stride, padding in (
        (LATENT, 4 * width, 4, 1, 0),
        (4 * width, 2 * width, 3, 2, 1),
        (2 * width, width, 4, 2, 1),
    ):
        convolution = nn.ConvTranspose2d(a, b, kernel, stride, padding, bias=False)
        layers += [convolution, nn.BatchNorm2d(b), nn.ReLU()]
    layers += [nn.ConvTranspose2d(width, 1, 4, 2, 1, bias=False), nn.Tanh()]
    return drawn(nn.Sequential(*layers))


def discriminator(width: int) -> nn.Sequential:
    """Return the discriminator: the generator's layers in reverse, down to a logit."""
    layers: list[nn.Module] = [nn.Conv2d(1, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for a, b, kernel in ((width, 2 * width, 4), (2 * width, 4 * width, 3)):
        convolution = nn.Conv2d(a, b, kernel, 2, 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    return drawn(nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 4, bias=False)))


def drawn(network: nn.Sequential) -> nn.Sequential:
    """Draw the initial weights as the tutorial does; return the network."""
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
    return network


def noise(number: int) -> Tensor:
    """Return noise for as many images."""
    return torch.randn(number, LATENT, 1, 1)


def measured(peer: Dcgan, bench: Bench, seconds: float) -> list[Figures]:
    """Train the peer; return its figures at every mark. Weights that are not finite end it."""
    found = []
    for spent in peer.trained(seconds, MARKS):
        images = peer.samples(bench.count)
        if not bool(images.isfinite().all()):
            break
        found.append(Figures(bench.distance(images), bench.classes(images), spent, peer.setting))
    return found


def dcgan(
    seen: Images, bench: Bench, seconds: float, trial: float, finalists: int
) -> dict[str, float]:
    """Return the peer's best figures, over its settings and times."""
    tried: dict[Setting, Figures] = {}
    for setting in GRID:
        if found := measured(Dcgan(seen, setting), bench, trial):
            tried[setting] = shown(best(found))
    chosen = sorted(tried, key=lambda setting: tried[setting].fd)[:finalists]
    for setting in chosen:
        found = measured(Dcgan(seen, setting), bench, seconds)
        tried[setting] = shown(best([*found, tried[setting]]))
    one = best(list(tried.values()))
    return {
        "dcgan.fd": one.fd,
        "dcgan.classes": one.classes,
        "dcgan.lr": one.setting.lr,
        "dcgan.discriminator_lr": one.setting.discriminator_lr,
        "dcgan.width": one.setting.width,
        "dcgan.seconds": one.seconds,
    }


def best(figures: list[Figures]) -> Figures:
    """Return the figures of the lowest distance."""
    return min(figures, key=lambda one: one.fd)


def shown(one: Figures) -> Figures:
    """Print a line of figures; return them."""
    s = one.setting
    print(
        f"dcgan rates {s.lr:g} and {s.discriminator_lr:g}, width {s.width}: distance "
        f"{one.fd:.2f}, {one.classes} classes, after {one.seconds:.0f} s",
        flush=True,
    )
    return one


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.duel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the IDX files")
    parser.add_argument("--seconds", type=float, default=300, help="of training each recipe")
    parser.add_argument("--trial", type=float, default=30, help="seconds of each setting's trial")
    parser.add_argument("--finalists", type=int, default=3, help="settings that get all seconds")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="what to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, {platform.processor()}, torch {torch.__version__}")
    seen, bench, real = prepared(options.data)
    flat = {"floor_fd": real["floor_fd"]}
    show(flat)
    if "ours" in options.parts:
        show(figures := ours(seen, bench, options.seconds))
        flat |= figures
    if "dcgan" in options.parts:
        trial = min(options.trial, options.seconds)
        show(figures := dcgan(seen, bench, options.seconds, trial, options.finalists))
        flat |= figures
    if options.json:
        print(json.dumps({name: round(value, 4) for name, value in flat.items()}))


if __name__ == "__main__":
    main()
