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
