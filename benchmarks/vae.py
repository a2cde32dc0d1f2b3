"""Digits after two minutes of an autoencoder's training: ours beside PyTorch's example.

    python -m benchmarks.vae --data FOLDER [--seconds 120] [--json]

FOLDER holds the 10,000 test images of MNIST (see `recipes/digits.py`): 8,000 to train, 2,000 held
out. `fd`, `precision` and `recall` compare as many random samples with these, in the features of a
classifier trained here, as `benchmarks/duel.py` does; `floor_fd` is the distance of other real
images. `reconstruction` is the mean squared error of the held-out images, whose pixels are in
[0, 1]. Ours has the defaults of `ostinato train vae`; its time includes that of fitting the prior,
and what is measured are its averaged weights at the end. `ours.standard_fd` is the distance of
samples of the standard normal distribution instead. `ours.bits_per_dim` is the bound of a
normal likelihood, which the peer does not have.

The peer is the recipe of pytorch/examples/vae: one hidden layer of 400, 20 numbers, binary
cross-entropy, Adam at 1e-3, batches of 128. So small a set it learns by heart: it is measured off
the clock after 1/16, 1/8, 1/4, 1/2 and all of the time, and the best of each figure counts.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.denoise_overhead import seconds as seconds_of
from benchmarks.digit_bench import Bench, prepared, show, trained_for
from ostinato.image import Images
from ostinato.image.vae import RECIPE, VAE, VAEConfig, VaeTask, VaeTrainingRun
from ostinato.train import BatchSampler, Training

PARTS = ("ours", "peer")
LATENT, HIDDEN, BATCH = 20, 400, 128
NEVER = 10**9  # steps; a training may make more than were foreseen
MARKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the time, at which the peer is measured


# Ours -------------------------------------------------------------------------------------------


def train_ours(seen: Images, held: Images, seconds: float) -> tuple[Training, int]:
    """Train an autoencoder with our defaults, and fit its prior; return it and its steps."""
    run = VaeTrainingRun(out=Path("unused"), sources=("unused",))
    shape = VAEConfig.for_images(seen.channels, seen.size, width=run.width, latent=run.latent)
    fitting = seconds_of(lambda: VAE(shape).fit_prior(seen))

    def make(steps: int) -> Training:
        plan = replace(RECIPE, steps=steps, valid_every=NEVER, sample_every=0)
        task = VaeTask(seen, held, beta=run.beta, free_bits=run.free_bits)
        return Training(VAE(shape), task, plan)

    return trained_for(make, seconds - fitting)


@torch.no_grad()
def ours(seen: Images, bench: Bench, seconds: float) -> dict[str, float]:
    """Return our figures after some seconds of training."""
    with torch.enable_grad():
        training, steps = train_ours(seen, bench.held, seconds)
    network = training.network
    assert isinstance(network, VAE)
    with training.best_weights():
        network.eval()
        network.fit_prior(seen)
        draws = torch.Generator().manual_seed(0)
        points = torch.stack([network.prior.draw(draws) for _ in range(bench.count)])
        images = decoded(network, points)
        standard = torch.randn(points.shape, generator=torch.Generator().manual_seed(1))
        found = training.validate()
        held = bench.held.clean()
        restored = torch.cat([network(part) for part in torch.split(held, BATCH)])
        return {
            "ours.fd": bench.distance(images),
            **{f"ours.{name}": value for name, value in bench.precision_recall(images).items()},
            "ours.reconstruction": float((restored.clamp(-1, 1) - held).square().mean()) / 4,
            "ours.standard_fd": bench.distance(decoded(network, standard)),
            "ours.bits_per_dim": found["bits_per_dim"],
            "ours.kl": found["kl/valid"],
            "ours.active_units": found["active_units"],
            "images_per_s": steps * training.config.batch_tokens / seconds,
        }


def decoded(network: VAE, points: Tensor) -> Tensor:
    """Return the images of points, in batches: nothing here needs them to be the same alone."""
    return torch.cat([network.draw(part).clamp(-1, 1) for part in torch.split(points, BATCH)])


# The peer ---------------------------------------------------------------------------------------


class Peer(nn.Module):
    """The autoencoder of the example; images are (B, 784) in [0, 1]."""

    def __init__(self, images: Images) -> None:
        super().__init__()
        torch.manual_seed(0)
        self._images = unit(images.clean())
        self._sampler = BatchSampler([1] * len(images), BATCH, 0)
        pixels = self._images.size(1)
        self.encoder = nn.Linear(pixels, HIDDEN)
        self.mean, self.log_variance = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, pixels), nn.Sigmoid()
        )
        self._optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the points of images."""
        h = F.relu(self.encoder(x))
        return self.mean(h), self.log_variance(h)

    def step(self, number: int) -> float:
        """Take a step; return its loss in nats per image."""
        x = self._images[list(self._sampler.batch(number)[1])]
        mean, log_variance = self.encode(x)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        error = F.binary_cross_entropy(self.decoder(z), x, reduction="sum")
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        loss = error + divergence
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return float(loss.detach()) / len(x)

    def trained(self, seconds: float) -> Iterator[float]:
        """Train for some seconds; pause at `MARKS` of them, at the seconds that are given."""
        spent, left = 0.0, list(MARKS)
        for number in count():
            start = time.perf_counter()
            self.step(number)
            spent += time.perf_counter() - start
            if spent >= seconds * left[0]:
                yield spent
                left = [mark for mark in left if seconds * mark > spent]  # a step may pass two
            if not left:
                return

    @torch.no_grad()
    def figures(self, bench: Bench) -> dict[str, float]:
        """Return the figures of random samples and of the held-out images."""
        draws = torch.Generator().manual_seed(1)
        made = self.decoder(torch.randn(bench.count, LATENT, generator=draws))
        images = 2 * made.view(-1, *bench.held.pixels.shape[1:]) - 1
        x = unit(bench.held.clean())
        error = (self.decoder(self.encode(x)[0]) - x).square().mean()
        found = {"fd": bench.distance(images), **bench.precision_recall(images)}
        return found | {"reconstruction": float(error)}


def unit(images: Tensor) -> Tensor:
    """Return images (B, C, S, S) in [-1, 1] as rows in [0, 1]."""
    return (images.flatten(1) + 1) / 2


def peer(seen: Images, bench: Bench, seconds: float) -> dict[str, float]:
    """Return the best of each of the peer's figures over its marks."""
    example, found = Peer(seen), []
    for spent in example.trained(seconds):
        found.append(example.figures(bench))
        told = ", ".join(f"{name} {value:.4f}" for name, value in found[-1].items())
        print(f"peer after {spent:.0f} s: {told}", flush=True)
    best = {name: min(one[name] for one in found) for name in ("fd", "reconstruction")}
    best |= {name: max(one[name] for one in found) for name in ("precision", "recall")}
    return {f"peer.{name}": value for name, value in best.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vae",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the IDX files")
    parser.add_argument("--seconds", type=float, default=120, help="of training each recipe")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="what to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, {platform.processor()}, torch {torch.__version__}")
    seen, bench, real = prepared(options.data)
    flat = {"floor_fd": real["floor_fd"]}
    show(flat)
    for name, part in {"ours": ours, "peer": peer}.items():
        if name in options.parts:
            show(figures := part(seen, bench, options.seconds))
            flat |= figures
    if options.json:
        print(json.dumps({name: round(value, 5) for name, value in flat.items()}))


if __name__ == "__main__":
    main()
