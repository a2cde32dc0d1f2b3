"""Image token models and their training as loops that `check_killed` starts and kills."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from toys import slowly

from ostinato.image import Images, ReconstructionTask
from ostinato.image.tokens import (
    VQ,
    Attributes,
    CodeSettings,
    ImageTokenModel,
    PixelQuantizer,
    VQConfig,
    new_image_token_model,
    task_of,
)
from ostinato.image.tokens.config import Method
from ostinato.journal import Stopped
from ostinato.loop import (
    Action,
    CheckpointSchedule,
    GiveUp,
    GoBack,
    History,
    Lanes,
    Loop,
    Never,
    Policy,
    Steps,
    Verdict,
)
from ostinato.train import Task, Training, TrainingConfig

AGAIN: Mapping[str, Mapping[str, object]] = {
    "row": {"temperature": 0.7},
    "pixels": {"temperature": 0.7},
    "unmask": {"mask": [0, 1, 5], "guidance": 2.0},
    "coarse": {"put": {"3": 2}, "prompt": "a thin one"},
}


def images(count: int = 60) -> Images:
    """Return random images of 8 x 8 pixels, of three classes."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, 1, 8, 8)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 3, ("zero", "one", "two"))


def token_model(method: Method) -> ImageTokenModel:
    """Return an untrained model whose network prefers some codes."""
    codec = (
        PixelQuantizer(size=8, levels=4)
        if method == "pixels"
        else VQ(VQConfig(size=8, halvings=1)).eval()
    )
    model = new_image_token_model(
        method, codec, Attributes.of(images()), layers=1, width=16, heads=1, seed=1
    )
    with torch.no_grad():
        for name, p in model.network.named_parameters():
            if p.dim() > 1 and "embed" in name:
                p.mul_(8)
    return model


def draw(method: Method, **where: Any) -> Loop:
    """Images in a few slots; some go back half of their steps with an edit."""
    model = token_model(method)
    settings = CodeSettings(guidance=1.5) if method in ("unmask", "coarse") else CodeSettings()
    prompts = ["a slanted two", "thin", "", "one", "the large zero", "upright"]

    def judge(output: Any, item: object) -> list[Verdict]:
        return [Verdict("even", sum(output.tokens) % 2 == 0, message="Draw an even image.")]

    def again(stopped: Stopped, history: History) -> Action:
        if history.backtracks() >= 2:
            return GiveUp("Twice is enough.")
        return GoBack(history.position // 2, AGAIN[method], stopped.sentence)

    lanes = Lanes(
        model.lanes(settings=settings, steps=6 if method == "unmask" else None, slots=4),
        [(f"image {n}", prompt) for n, prompt in enumerate(prompts)],
        Policy(each=Never() | slowly(0.008), judge=judge, on_stop=again),
        seed=2,
    )
    return Loop(lanes, until=Steps(10_000), checkpoint=CheckpointSchedule(steps=4), **where)


def learn(method: str, **where: Any) -> Loop:
    """Train an autoencoder (`codes`), or the network of a method on codes of one."""
    train, valid = images().at(range(48)), images().at(range(48, 60))
    task: Task
    if method == "codes":
        network: torch.nn.Module = VQ(VQConfig(size=8, halvings=1, width=16), seed=0)
        task = ReconstructionTask(train, valid)
    else:
        model = token_model(method)  # type: ignore[arg-type]
        network, task = model.network, task_of(model, train, valid)
    config = TrainingConfig(
        steps=40, batch_tokens=8, optimizer="muon", lr=0.01, ema_decay=0.9, valid_every=6
    )
    return Loop(
        Training(network, task, config),
        until=Steps(40),
        checkpoint=CheckpointSchedule(steps=7),
        **where,
    )
