"""Train and measure the shipped classifier of digits, which `--until-passes` uses.

    python -m recipes.digit_classifier train --data FOLDER --out DIR
    python -m recipes.digit_classifier evaluate --data FOLDER [--classifier DIR] --json
    python -m recipes.digit_classifier loop --data FOLDER [--count 200] --json

FOLDER holds `images-idx3-ubyte.gz` and `labels-idx1-ubyte.gz`: the test part of MNIST (LeCun,
Cortes, Burges; CC BY-SA 3.0), 10,000 images. They are shuffled with seed 0: 8,000 to train, 2,000
held out. `loop` samples digits until they pass. A second classifier, of another architecture and
trained by `recipes.digit_measures`, then says whether their classes are right.
"""

from __future__ import annotations

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
from ostinato.loop import LaneResult, Loop, Steps
from ostinato.train import Loss, Training, TrainingConfig
from recipes.cli_args import print_result, recipe_parser, run
from recipes.digit_measures import ClassificationTask, class_right, train_classifier
from recipes.digits import HELD_OUT, read_digits

TURN, GROW, MOVE = math.radians(14), 0.14, 2.5  # the maxima: radians, share, pixels
MIXED = 0.3  # share of images that are a mixture of two digits
NONE = 0.1  # share of images that are no digit: 16 shuffled squares of one, or noise
STEPS, BATCH = 2500, 64
SURE = 0.9  # the probability at which a digit passes


class AugmentedClassificationTask(ClassificationTask):
    """Classify images that are turned, scaled and moved a little.

    Some are mixtures of two digits with shared probability (mixup); some are no digit, with equal
    probability for all classes. Without these the classifier would be sure of anything.
    """

    def __init__(self, images: Images) -> None:
        super().__init__(images)
        self._classes = len(images.names)

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the summed cross-entropy of a batch, augmented by `seed`."""
        generator = torch.Generator().manual_seed(seed)
        x = moved(self._pixels[list(chosen)], generator)
        target = F.one_hot(self._labels[list(chosen)], self._classes).float()
        share = torch.rand(len(x), generator=generator)
        share = torch.where(torch.rand(len(x), generator=generator) < MIXED, share, 1.0)
        x = x * share[:, None, None, None] + x.roll(1, 0) * (1 - share)[:, None, None, None]
        target = target * share[:, None] + target.roll(1, 0) * (1 - share)[:, None]
        none = torch.rand(len(x), generator=generator) < NONE
        x = torch.where(none[:, None, None, None], no_digit(x, generator), x)
        target = torch.where(none[:, None], 1 / self._classes, target)
        total = F.cross_entropy(network(x), target, reduction="sum")
        return Loss(total, {"images": len(chosen)})


def moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, scale and move each image (B, C, S, S) a little; the new border is black."""
    turn, grow, across, down = 2 * torch.rand(4, len(x), generator=generator) - 1
    angle, scale, side = TURN * turn, 1 + GROW * grow, x.size(-1)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    right, low = (2 * MOVE / side * share for share in (across, down))
    frames = torch.stack((torch.stack((cos, -sin, right), 1), torch.stack((sin, cos, low), 1)), 1)
    grid = F.affine_grid(frames, list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # it pads with 0, black is -1


def no_digit(x: Tensor, generator: torch.Generator) -> Tensor:
    """Replace each image (B, C, S, S) by its 16 squares in random order, or by noise."""
    B, C, S, _ = x.shape
    squares = x.view(B, C, 4, S // 4, 4, S // 4).transpose(3, 4).reshape(B, C, 16, S // 4, S // 4)
    order = torch.rand(B, 16, generator=generator).argsort(1)[:, None, :, None, None]
    squares = squares.gather(2, order.expand(squares.shape))
    shuffled = squares.view(B, C, 4, 4, S // 4, S // 4).transpose(3, 4).reshape(x.shape)
    noise = torch.randn(x.shape, generator=generator) * torch.rand(B, 1, 1, 1, generator=generator)
    first = torch.rand(B, 1, 1, 1, generator=generator) < 0.5
    return torch.where(first, shuffled, noise.clamp(-1, 1))


def train(data: Path, out: Path) -> None:
    """Train on 8,000 digits; write the averaged weights in bfloat16."""
    train_part, _ = hold_out(read_digits(data), HELD_OUT)
    config = TrainingConfig(
        steps=STEPS, batch_tokens=BATCH, lr=3e-3, warmup_steps=100, ema_decay=0.995
    )
    process = Training(
        Classifier(ClassifierConfig(names=train_part.names)),
        AugmentedClassificationTask(train_part),
        config,
    )
    loop = Loop(process, until=Steps(STEPS))
    for step in loop:
        if step.tick % 100 == 0:
            print(f"step {step.tick}: loss {step.report['loss/train']:.4f}", flush=True)
    with process.best_weights():
        assert isinstance(process.network, Classifier)
        save_classifier(out, process.network, dtype=torch.bfloat16)


@torch.no_grad()
def evaluate(data: Path, name: str) -> dict[str, Any]:
    """Measure on the 2,000 digits held out."""
    _, held = hold_out(read_digits(data), HELD_OUT)
    assert held.labels is not None
    classifier = load_classifier(name)
    generator = torch.Generator().manual_seed(0)
    probs = classifier(held.clean()).softmax(1)
    confidence, predicted = probs.max(1)
    right = predicted == held.labels
    passed = probs[torch.arange(len(held)), held.labels] >= SURE
    return {
        "classifier": name,
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "right": float(right.float().mean()),
        "mean_confidence": float(confidence.mean()),
        "real_passed": float(passed.float().mean()),
        "sure_and_wrong": float((~right & (confidence >= SURE)).float().mean()),
        "noise_sure": _sure(classifier, torch.randn(2000, 1, 28, 28, generator=generator)),
        "jumbled_sure": _sure(classifier, no_digit(held.clean(), generator)),
    }


def _sure(classifier: Classifier, images: Tensor) -> float:
    """Return the share of images that pass as some class."""
    return float((classifier(images).softmax(1).amax(1) >= SURE).float().mean())


def sampled_until(count: int, least: float, rounds: int, **settings: Any) -> list[LaneResult]:
    """Sample digits, the classes in turn, until they pass; return their results in order."""
    requests = [ImageRequest(label=n % 10, seed=n) for n in range(count)]
    check = ClassifiedAs(classifier=load_classifier(), least=least)
    loop = denoise_loop(requests, checks=[check], on_stop=Renoise(rounds=rounds), **settings)
    results = [one for step in loop for one in step.results]
    return sorted(results, key=lambda result: result.index)


def measure_loop(
    data: Path, count: int, least: float, rounds: int, **settings: Any
) -> dict[str, Any]:
    """Measure what passes at once and after the loop, and the cost."""
    train_part, _ = hold_out(read_digits(data), HELD_OUT)
    judge = train_classifier(train_part)
    labels = torch.arange(count) % 10
    plain = sampled_until(count, 0.0, 1, **settings)
    looped = sampled_until(count, least, rounds, **settings)
    once, after = (torch.stack([one.output for one in each]) for each in (plain, looped))
    calls = [one.spent["calls"] for one in looped]
    return {
        "count": count,
        "least": least,
        "rounds": rounds,
        **settings,
        "passed_at_once": sum(one.accepted and not one.attempts[:-1] for one in looped) / count,
        "passed_after": sum(one.accepted for one in looped) / count,
        "calls_at_once": sum(one.spent["calls"] for one in plain) / count,
        "calls_each": sum(calls) / count,
        "calls_most": max(calls),
        "right_at_once_by_another": class_right(judge, once, labels),
        "right_after_by_another": class_right(judge, after, labels),
    }


def main() -> None:
    """Run the command that was typed."""
    parser, commands = recipe_parser("digit_classifier", __doc__)
    training = commands.add_parser("train", help="train the classifier")
    training.add_argument("--out", type=Path, required=True, help="output folder")
    evaluation = commands.add_parser("evaluate", help="measure a classifier on real digits")
    evaluation.add_argument(
        "--classifier", default="digits", help="folder or name of the classifier"
    )
    sampling = commands.add_parser("loop", help="measure sampling until it passes")
    sampling.add_argument("--count", type=int, default=200, help="digits to sample")
    sampling.add_argument(
        "--least", type=float, default=SURE, help="the probability at which a digit passes"
    )
    sampling.add_argument("--rounds", type=int, default=3, help="drafts per digit")
    sampling.add_argument("--steps", type=int, default=20, help="denoising steps")
    sampling.add_argument("--solver", default="dpmpp_2m", help="sampler")
    for command in (training, evaluation, sampling):
        command.add_argument("--data", type=Path, required=True, help="folder of the IDX files")
    for command in (evaluation, sampling):
        command.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.command == "train":
        train(args.data, args.out)
        return
    if args.command == "evaluate":
        result = evaluate(args.data, args.classifier)
    else:
        result = measure_loop(
            args.data,
            args.count,
            args.least,
            args.rounds,
            steps=args.steps,
            solver=args.solver,
        )
    print_result(result, args.json, ".4g")


if __name__ == "__main__":
    run(main)
