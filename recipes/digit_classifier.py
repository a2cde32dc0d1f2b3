"""Train and measure the classifier of digits that ships: what `--until-passes` asks.

    python -m recipes.digit_classifier train --data FOLDER --out DIR
    python -m recipes.digit_classifier evaluate --data FOLDER [--classifier DIR] --json
    python -m recipes.digit_classifier loop --data FOLDER [--count 200] --json

FOLDER holds `images-idx3-ubyte.gz` and `labels-idx1-ubyte.gz`: the test part of MNIST (LeCun,
Cortes, Burges; CC BY-SA 3.0), 10,000 images. They are shuffled with seed 0: 8,000 to train, 2,000
held out. `loop` draws digits until they pass, and asks a second classifier, of another shape and
trained by `recipes.digit_measures`, whether they are what they should be.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.image import (
    ClassifiedAs,
    Classifier,
    ClassifierConfig,
    ImageRequest,
    Images,
    Renoise,
    denoise_loop,
    hold_out,
    load_classifier,
    save_classifier,
)
from ostinato.loop import Loop, Steps
from ostinato.train import Loss, Training, TrainingConfig
from recipes.digit_measures import Classes, class_right, train_classifier
from recipes.digits import HELD, read_digits

TURN, GROW, MOVE = math.radians(14), 0.14, 2.5  # the most; MOVE in pixels
MIXED = 0.3  # share of images that two digits are laid over each other in
NONE = 0.1  # share of images that are no digit: one cut into 16 squares and put together, or noise
STEPS, BATCH = 2500, 64
SURE = 0.9


class Moved(Classes):
    """The task of telling classes in images that are turned, scaled and moved a little.

    Some are two digits laid over each other, with the probability shared, and some no digit, with
    all classes as likely: so that the classifier is in doubt about what is neither.
    """

    def __init__(self, images: Images) -> None:
        super().__init__(images)
        self._classes = len(images.names)

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the summed cross-entropy of some images."""
        dice = torch.Generator().manual_seed(seed)
        x = moved(self._pixels[list(chosen)], dice)
        wanted = F.one_hot(self._labels[list(chosen)], self._classes).float()
        share = torch.rand(len(x), generator=dice)
        share = torch.where(torch.rand(len(x), generator=dice) < MIXED, share, 1.0)
        x = x * share[:, None, None, None] + x.roll(1, 0) * (1 - share)[:, None, None, None]
        wanted = wanted * share[:, None] + wanted.roll(1, 0) * (1 - share)[:, None]
        none = torch.rand(len(x), generator=dice) < NONE
        x = torch.where(none[:, None, None, None], no_digit(x, dice), x)
        wanted = torch.where(none[:, None], 1 / self._classes, wanted)
        total = F.cross_entropy(network(x), wanted, reduction="sum")
        return Loss(total, {"images": len(chosen)})


def moved(x: Tensor, dice: torch.Generator) -> Tensor:
    """Turn, scale and move each image (B, C, S, S) a little; what comes in is black."""
    turn, grow, across, down = 2 * torch.rand(4, len(x), generator=dice) - 1
    angle, scale, side = TURN * turn, 1 + GROW * grow, x.size(-1)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    right, low = (2 * MOVE / side * share for share in (across, down))
    frames = torch.stack((torch.stack((cos, -sin, right), 1), torch.stack((sin, cos, low), 1)), 1)
    grid = F.affine_grid(frames, list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def no_digit(x: Tensor, dice: torch.Generator) -> Tensor:
    """Cut each image (B, C, S, S) into 16 squares and put them together anew, or take noise."""
    B, C, S, _ = x.shape
    squares = x.view(B, C, 4, S // 4, 4, S // 4).transpose(3, 4).reshape(B, C, 16, S // 4, S // 4)
    order = torch.rand(B, 16, generator=dice).argsort(1)[:, None, :, None, None]
    squares = squares.gather(2, order.expand(squares.shape))
    mixed = squares.view(B, C, 4, 4, S // 4, S // 4).transpose(3, 4).reshape(x.shape)
    noise = torch.randn(x.shape, generator=dice) * torch.rand(B, 1, 1, 1, generator=dice)
    first = torch.rand(B, 1, 1, 1, generator=dice) < 0.5
    return torch.where(first, mixed, noise.clamp(-1, 1))


def train(data: Path, out: Path) -> None:
    """Train on 8,000 digits; write the averaged weights in bfloat16."""
    seen, _ = hold_out(read_digits(data), HELD)
    config = TrainingConfig(
        steps=STEPS, batch_tokens=BATCH, lr=3e-3, warmup_steps=100, ema_decay=0.995
    )
    process = Training(Classifier(ClassifierConfig(names=seen.names)), Moved(seen), config)
    loop = Loop(process, until=Steps(STEPS))
    for step in loop:
        if step.tick % 100 == 0:
            print(f"step {step.tick}: loss {step.report['loss/train']:.4f}", flush=True)
    with process.best_weights():
        assert isinstance(process.network, Classifier)
        save_classifier(out, process.network, dtype=torch.bfloat16)


@torch.no_grad()
def evaluate(data: Path, name: str) -> dict[str, Any]:
    """Measure on the 2,000 digits that were held out."""
    _, held = hold_out(read_digits(data), HELD)
    assert held.labels is not None
    classifier = load_classifier(name)
    dice = torch.Generator().manual_seed(0)
    probs = classifier(held.clean()).softmax(1)
    sure, likeliest = probs.max(1)
    right = likeliest == held.labels
    passed = probs[torch.arange(len(held)), held.labels] >= SURE
    return {
        "classifier": name,
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "right": float(right.float().mean()),
        "mean_confidence": float(sure.mean()),
        "real_passed": float(passed.float().mean()),
        "sure_and_wrong": float((~right & (sure >= SURE)).float().mean()),
        "noise_sure": _sure(classifier, torch.randn(2000, 1, 28, 28, generator=dice)),
        "jumbled_sure": _sure(classifier, no_digit(held.clean(), dice)),
    }


def _sure(classifier: Classifier, images: Tensor) -> float:
    """Return the share of images that some class is given to."""
    return float((classifier(images).softmax(1).amax(1) >= SURE).float().mean())


def drawn_until(count: int, least: float, rounds: int, **settings: Any) -> list[dict[str, Any]]:
    """Draw digits, each class as often, until they pass; return their rows."""
    pictures = [ImageRequest(label=n % 10, seed=n) for n in range(count)]
    check = ClassifiedAs(classifier=load_classifier(), least=least)
    loop = denoise_loop(pictures, checks=[check], on_stop=Renoise(rounds=rounds), **settings)
    rows = [dict(row) for step in loop for _, row in step.results]
    return sorted(rows, key=lambda row: int(row["index"]))


def measure_loop(
    data: Path, count: int, least: float, rounds: int, **settings: Any
) -> dict[str, Any]:
    """Measure what passes at once and after the loop, and what it costs."""
    seen, _ = hold_out(read_digits(data), HELD)
    judge = train_classifier(seen)
    labels = torch.arange(count) % 10
    plain = drawn_until(count, 0.0, 1, **settings)
    rows = drawn_until(count, least, rounds, **settings)
    once, after = (torch.stack([row["output"] for row in each]) for each in (plain, rows))
    calls = [float(row["spent"]["calls"]) for row in rows]
    return {
        "count": count,
        "least": least,
        "rounds": rounds,
        **settings,
        "passed_at_once": sum(row["accepted"] and not row["attempts"][:-1] for row in rows) / count,
        "passed_after": sum(bool(row["accepted"]) for row in rows) / count,
        "calls_at_once": sum(float(row["spent"]["calls"]) for row in plain) / count,
        "calls_each": sum(calls) / count,
        "calls_most": max(calls),
        "right_at_once_by_another": class_right(judge, once, labels),
        "right_after_by_another": class_right(judge, after, labels),
    }


def main() -> None:
    """Read the arguments and do what they ask."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.digit_classifier",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train the classifier")
    one.add_argument("--out", type=Path, required=True, help="the folder to write")
    two = commands.add_parser("evaluate", help="measure a classifier on real digits")
    two.add_argument("--classifier", default="digits", help="its folder, or a shipped one's name")
    three = commands.add_parser("loop", help="measure drawing until it passes")
    three.add_argument("--count", type=int, default=200, help="digits to draw")
    three.add_argument("--least", type=float, default=SURE, help="the probability asked for")
    three.add_argument("--rounds", type=int, default=3)
    three.add_argument("--steps", type=int, default=20)
    three.add_argument("--solver", default="dpmpp_2m")
    for command in (one, two, three):
        command.add_argument("--data", type=Path, required=True, help="folder of the IDX files")
    for command in (two, three):
        command.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if given.command == "train":
        train(given.data, given.out)
        return
    if given.command == "evaluate":
        result = evaluate(given.data, given.classifier)
    else:
        result = measure_loop(
            given.data,
            given.count,
            given.least,
            given.rounds,
            steps=given.steps,
            solver=given.solver,
        )
    if given.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:26} {value:.4g}" if isinstance(value, float) else f"{name:26} {value}")


if __name__ == "__main__":
    main()
