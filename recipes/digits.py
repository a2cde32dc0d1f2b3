"""Train and measure `digits`, the shipped denoiser of handwritten digits, 28 x 28 pixels.

    python -m recipes.digits train --data FOLDER --out DIR
    python -m recipes.digits evaluate --data FOLDER [--model DIR] --json

FOLDER holds `images-idx3-ubyte.gz` and `labels-idx1-ubyte.gz`: the test part of MNIST (LeCun,
Cortes, Burges; CC BY-SA 3.0), 10,000 images. Training takes 1,000 seconds; the same command with
the same DIR resumes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ostinato.cli.main import cli
from ostinato.image import (
    Denoiser,
    ImageRequest,
    Images,
    denoise_loop,
    hold_out,
    load_denoiser,
    read_images,
    save_denoiser,
)
from recipes.cli_args import recipe_parser, run
from recipes.digit_measures import class_right, frechet, train_classifier

FILES = ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")
HELD_OUT = 0.2  # share of the images


def read_digits(folder: Path) -> Images:
    """Read the images and labels of a folder."""
    return read_images([folder / name for name in FILES])


def sampled(model: Denoiser | str, labels: Tensor, **settings: Any) -> tuple[Tensor, float]:
    """Sample an image of each label; return them (N, 1, S, S) and the mean calls of the network."""
    requests = [ImageRequest(label=int(label), seed=seed) for seed, label in enumerate(labels)]
    results = {
        one.index: one
        for step in denoise_loop(requests, model=model, **settings)
        for one in step.results
    }
    images = [results[n].output for n in range(len(requests))]
    calls = [result.spent["calls"] for result in results.values()]
    return torch.stack(images), sum(calls) / len(calls)


def train(data: Path, out: Path) -> None:
    """Train with the command line's own recipe; write the weights in bfloat16 to OUT/shipped."""
    sources = [str(data / name) for name in FILES]
    settings = ["--seconds", "1000", "--hold-out", "0.05", "--channels", "32"]
    cli(["train", "image", *sources, "--out", str(out), *settings], standalone_mode=False)
    save_denoiser(out / "shipped", load_denoiser(out), dtype=torch.bfloat16)


def evaluate(data: Path, model: str, count: int, steps: int, solver: str) -> dict[str, Any]:
    """Measure a model's samples, and real images that the classifier has not seen."""
    train_part, held = hold_out(read_digits(data), HELD_OUT)
    assert held.labels is not None
    classifier = train_classifier(train_part)
    labels = torch.arange(count) % 10
    images, calls = sampled(model, labels, steps=steps, solver=solver)
    # Shuffled, as the two halves of MNIST's test part come from different writers.
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(1))
    real, half = held.clean()[order], len(held) // 2
    return {
        "model": model,
        "solver": solver,
        "calls": calls,
        "distance": frechet(classifier, images, real),
        "class_right": class_right(classifier, images, labels),
        # What samples can reach: the distance between two halves of real images.
        "floor": frechet(classifier, real[:half], real[half:]),
        "real_right": class_right(classifier, held.clean(), held.labels),
    }


def main() -> None:
    """Run the command that was typed."""
    parser, commands = recipe_parser("digits", __doc__)
    training = commands.add_parser("train", help="train the denoiser")
    training.add_argument("--out", type=Path, required=True, help="output folder")
    evaluation = commands.add_parser("evaluate", help="measure a denoiser")
    evaluation.add_argument("--model", default="digits", help="folder or name of the denoiser")
    evaluation.add_argument("--count", type=int, default=2000, help="images to sample")
    evaluation.add_argument("--steps", type=int, default=10, help="denoising steps")
    evaluation.add_argument("--solver", default="dpmpp_2m", help="sampler")
    evaluation.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (training, evaluation):
        command.add_argument("--data", type=Path, required=True, help="folder of the IDX files")
    args = parser.parse_args()
    if args.command == "train":
        train(args.data, args.out)
        return
    result = evaluate(args.data, args.model, args.count, args.steps, args.solver)
    if args.json:
        print(json.dumps(result))
        return
    print(f"{result['model']}, {result['solver']}, {result['calls']:g} calls an image:")
    print(f"  distance {result['distance']:.2f} (two halves of real images: {result['floor']:.2f})")
    print(f"  class right {result['class_right']:.1%} (real images: {result['real_right']:.1%})")


if __name__ == "__main__":
    run(main)
