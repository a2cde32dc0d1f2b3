"""Train and measure `digits`, the denoiser that ships: handwritten digits, 28 x 28.

    python -m recipes.digits train --data FOLDER --out DIR
    python -m recipes.digits evaluate --data FOLDER [--model DIR] --json

FOLDER holds `images-idx3-ubyte.gz` and `labels-idx1-ubyte.gz`: the test part of MNIST (LeCun,
Cortes, Burges; CC BY-SA 3.0), 10,000 images. Training takes 1,000 seconds; run it again with the
same DIR and it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ostinato.cli.main import cli
from ostinato.image import (
    ImageRequest,
    Images,
    denoise_loop,
    hold_out,
    load_denoiser,
    read_images,
    save_denoiser,
)
from ostinato.image.fixed_batches import Denoiser
from recipes.digit_measures import class_right, frechet, train_classifier

FILES = ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")
HELD = 0.2


def read_digits(folder: Path) -> Images:
    """Return the digits of a folder."""
    return read_images([folder / name for name in FILES])


def sampled(model: Denoiser | str, labels: Tensor, **settings: Any) -> tuple[Tensor, float]:
    """Draw an image of each label; return them (N, 1, S, S) and the mean calls of the network."""
    pictures = [ImageRequest(label=int(label), seed=seed) for seed, label in enumerate(labels)]
    rows = {
        row["index"]: row
        for step in denoise_loop(pictures, model=model, **settings)
        for _, row in step.results
    }
    images: list[Any] = [rows[n]["output"] for n in range(len(pictures))]
    calls: list[Any] = [row["spent"] for row in rows.values()]
    return torch.stack(images), sum(spent["calls"] for spent in calls) / len(calls)


def train(data: Path, out: Path) -> None:
    """Train with the command line's own recipe; write the weights in bfloat16 to OUT/shipped."""
    sources = [str(data / name) for name in FILES]
    settings = ["--seconds", "1000", "--hold-out", "0.05", "--channels", "32"]
    cli(["train", "image", *sources, "--out", str(out), *settings], standalone_mode=False)
    save_denoiser(out / "shipped", load_denoiser(out), dtype=torch.bfloat16)


def evaluate(data: Path, model: str, count: int, steps: int, solver: str) -> dict[str, Any]:
    """Measure a model's samples beside real images that the classifier has not seen."""
    seen, held = hold_out(read_digits(data), HELD)
    assert held.labels is not None and seen.labels is not None
    classifier = train_classifier(seen)
    labels = torch.arange(count) % 10
    images, calls = sampled(model, labels, steps=steps, solver=solver)
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(1))
    real, half = held.clean()[order], len(held) // 2
    return {
        "model": model,
        "solver": solver,
        "calls": calls,
        "distance": frechet(classifier, images, real),
        "class_right": class_right(classifier, images, labels),
        "floor": frechet(classifier, real[:half], real[half:]),
        "real_right": class_right(classifier, held.clean(), held.labels),
    }


def main() -> None:
    """Read the arguments and do what they ask."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.digits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train the denoiser")
    one.add_argument("--out", type=Path, required=True, help="the folder to write")
    two = commands.add_parser("evaluate", help="measure a denoiser")
    two.add_argument("--model", default="digits", help="its folder, or a shipped one's name")
    two.add_argument("--count", type=int, default=2000, help="images to draw")
    two.add_argument("--steps", type=int, default=10)
    two.add_argument("--solver", default="dpmpp_2m")
    two.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (one, two):
        command.add_argument("--data", type=Path, required=True, help="folder of the IDX files")
    given = parser.parse_args()
    if given.command == "train":
        train(given.data, given.out)
        return
    result = evaluate(given.data, given.model, given.count, given.steps, given.solver)
    if given.json:
        print(json.dumps(result))
        return
    print(f"{result['model']}, {result['solver']}, {result['calls']:g} calls an image:")
    print(f"  distance {result['distance']:.2f} (two halves of real images: {result['floor']:.2f})")
    print(f"  class right {result['class_right']:.1%} (real images: {result['real_right']:.1%})")


if __name__ == "__main__":
    main()
