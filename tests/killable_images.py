"""Loops of images that `check_killed` starts in processes of their own and kills.

They import little, as these processes start often.
"""

from __future__ import annotations

from typing import Any

import torch
from tiny_denoiser import TinyDenoiser
from toys import slowly

from ostinato.image.dataset import Images
from ostinato.image.denoise import Denoise
from ostinato.image.image_request import ImageRequest
from ostinato.image.training import ImageTask
from ostinato.image.unet import UNet, UNetConfig
from ostinato.journal import Stopped
from ostinato.loop import (
    Action,
    CheckpointSchedule,
    GiveUp,
    GoBack,
    History,
    Lanes,
    Loop,
    Policy,
    StartOver,
    Steps,
    Verdict,
)
from ostinato.train import Training, TrainingConfig


def denoise_in_color(**where: Any) -> Loop:
    """Images of 64 x 64 in color, whose tensors are too large for lists of numbers."""
    return denoise(channels=3, size=64, **where)


def denoise(solver: str = "dpmpp_2m", channels: int = 1, size: int = 8, **where: Any) -> Loop:
    """Images in a few slots; those that fail are noised again."""
    network = TinyDenoiser(channels, size)
    process = Denoise(network, slots=3, steps=8, solver=solver, guidance=1.5)
    items = [(f"image {n}", {"label": n % 3}) for n in range(6)]

    def again(stopped: Stopped, history: History) -> Action:
        if history.backtracks() >= 2:
            return GiveUp("Twice is enough.")
        return GoBack(4, {"renoise": history.output}, stopped.sentence)

    def judge(output: Any, item: object) -> list[Verdict]:
        score = float(output.abs().mean())
        return [Verdict("dark", score < 0.4, message="Draw it darker.")]

    each = Steps(100) | slowly(0.004)
    lanes = Lanes(process, items, Policy(each=each, judge=judge, on_stop=again))
    return Loop(lanes, until=Steps(10_000), checkpoint=CheckpointSchedule(steps=5), **where)


def train(optimizer: Any = "muon", **where: Any) -> Loop:
    """Train a small denoiser that validates, samples and averages its weights on the way."""
    shapes = torch.arange(48 * 64).view(48, 1, 8, 8)
    images = Images((shapes * shapes % 251).to(torch.uint8), torch.arange(48) % 3, ("a", "b", "c"))
    shape = UNetConfig(size=8, classes=3, patch=1, widths=(16, 16), blocks=1, embedding=16, head=16)
    config = TrainingConfig(
        optimizer=optimizer, steps=40, batch_tokens=8, ema_decay=0.9, valid_every=9, sample_every=20
    )
    task = ImageTask(
        images.at(range(40)),
        images.at(range(40, 48)),
        sampler=lambda unet: unet(torch.ones(1, 1, 8, 8), torch.ones(1), torch.zeros(1).long()),
    )
    process = Training(UNet(shape, seed=1), task, config)
    return Loop(process, until=Steps(40), checkpoint=CheckpointSchedule(steps=7), **where)


def train_vae(**where: Any) -> Loop:
    """Train a small variational autoencoder that goes back once, as its posterior collapses."""
    from ostinato.image.vae import VAE, PosteriorCollapse, VAEConfig, VaeTask, rescue

    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (48, 1, 8, 8), generator=draws, dtype=torch.uint8)
    images = Images(pixels, torch.arange(48) % 3, ("a", "b", "c"))
    task = VaeTask(images.at(range(40)), images.at(range(40, 48)), beta=2000.0, components=2)
    config = TrainingConfig(
        steps=40, batch_tokens=8, lr=0.005, ema_decay=0.9, valid_every=9, sample_every=20
    )
    return Loop(
        Training(VAE(VAEConfig.for_images(1, 8, width=16, latent=4), seed=1), task, config),
        until=Steps(40) | PosteriorCollapse(below=1.0, patience=5, grace=12),
        on_stop=rescue(1),
        checkpoint=CheckpointSchedule(steps=7),
        **where,
    )


def decode(**where: Any) -> Loop:
    """Decode points, three at a time."""
    from ostinato.image.vae import VAE, DecodePoints, Point, VAEConfig

    process = DecodePoints(VAE(VAEConfig.for_images(1, 8, width=16, latent=4), seed=1), slots=3)
    items = [(f"point {n}", Point(at=(n / 9, -n / 9, 0.0, 1.0))) for n in range(40)]
    return one_step(process, items, **where)


def generate(**where: Any) -> Loop:
    """Draw images of noise, three at a time; those that fail are drawn again."""
    from ostinato.adversarial import GanConfig, Generate, Generator

    shape = GanConfig(size=8, classes=2, names=("a", "b"), latent=4, widths=(4,), features=8)
    items = [(f"image {n}", ImageRequest(label=n % 2, seed=n)) for n in range(40)]
    return one_step(Generate(Generator(shape, seed=1), slots=3), items, **where)


def one_step(process: Any, items: list[Any], **where: Any) -> Loop:
    """Make images that take one step each."""

    def again(stopped: Stopped, history: History) -> Action:
        return StartOver() if history.lane.round < 2 else GiveUp("Twice is enough.")

    def judge(output: Any, item: object) -> list[Verdict]:
        return [Verdict("bright", float(output.mean()) > 0, message="Draw it brighter.")]

    each = Steps(100) | slowly(0.004)
    lanes = Lanes(process, items, Policy(each=each, judge=judge, on_stop=again))
    return Loop(lanes, until=Steps(10_000), checkpoint=CheckpointSchedule(steps=5), **where)
