"""Train and measure image token models of digits: the autoencoder, and each method.

    python -m recipes.image_tokens train --data FOLDER --out DIR
    python -m recipes.image_tokens evaluate --data FOLDER --models DIR --json

FOLDER holds the test part of MNIST (see `recipes/digits.py`), 10,000 images; a fixed shuffle holds
2,000 of them out. `train` writes a model for each method (`row`, `unmask`, `coarse`, `pixels`) to
DIR by `ostinato train image-tokens`; the same command resumes it.

`evaluate` measures the held-out images after encoding and decoding, and --count samples of each
method, the classes in turn. It prints the Fréchet distance and the share of right classes
(`digit_measures.py`), seconds per image, and whether words such as "slanted" fit the samples.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ostinato.cli.main import cli
from ostinato.image import Images, hold_out
from ostinato.image.tokens import (
    TUNED,
    UNMASK_STEPS,
    CodeSettings,
    ImageTokenModel,
    image_token_loop,
    load_image_token_model,
)
from ostinato.media import in_grid, save, scaled, tiled
from recipes.cli_args import recipe_parser, run
from recipes.digit_measures import FeatureClassifier, class_right, frechet, train_classifier
from recipes.digits import FILES, HELD_OUT, read_digits

SIDE = 28  # pixels of the classifier's input
OPTIONS: Mapping[str, Sequence[str]] = {
    "row": (),
    "unmask": ("--codec", "row"),
    "coarse": ("--codec", "row"),
    # Smaller images and batches: 28 x 28 would be 784 tokens an image, 14 x 14 are 196.
    "pixels": ("--size", "14", "--levels", "4", "--batch-size", "16"),
}
"""By method, the options of `ostinato train image-tokens` beside the images and the method."""

WORDS = ("slanted", "upright", "thick", "thin", "large", "small")


def train(data: Path, out: Path, methods: Sequence[str]) -> None:
    """Train models one after another; `unmask` and `coarse` use the autoencoder of `row`."""
    sources = [str(data / name) for name in FILES]
    for method in methods:
        start = time.process_time()  # CPU time, which other programs on the machine hardly change
        options = [str(out / "row") if word == "row" else word for word in OPTIONS[method]]
        where = ["--out", str(out / method), "--journal", str(out / "journal.db")]
        fixed = ["--method", method, "--hold-out", str(HELD_OUT)]
        cli(["train", "image-tokens", *sources, *where, *fixed, *options], standalone_mode=False)
        print(f"{method}: {(time.process_time() - start) / 60:.1f} minutes of CPU time.")


def sampled(
    model: ImageTokenModel, prompts: Sequence[str], settings: CodeSettings, steps: int
) -> Tensor:
    """Return an image of every prompt, uint8 (N, C, S, S)."""
    unmask_steps = steps if model.method == "unmask" else None
    loop = image_token_loop(prompts, model=model, settings=settings, steps=unmask_steps)
    results = [result for step in loop for result in step.results]
    results.sort(key=lambda result: result.index)
    return torch.stack([model.image(result.output) for result in results])


def reconstruction(
    model: ImageTokenModel, classifier: FeatureClassifier, held: Images
) -> dict[str, float]:
    """Measure images after encoding and decoding: MSE of pixels in [0, 1], PSNR in dB, and more."""
    images = fitted(held, model.codec)
    decoded = model.codec.decode(model.codec.encode(images.pixels))
    mse = float((decoded.float() - images.pixels.float()).div(255).square().mean())
    clean = classifier_input(decoded)
    assert held.labels is not None
    return {
        "mse": mse,
        "psnr": -10 * math.log10(max(mse, 1e-10)),
        "right": class_right(classifier, clean, held.labels),
        "fd": frechet(classifier, clean, held.clean()),
    }


def sample_quality(
    model: ImageTokenModel,
    classifier: FeatureClassifier,
    held: Images,
    count: int,
    settings: CodeSettings,
    steps: int,
) -> dict[str, float]:
    """Measure `count` samples, the classes in turn; `seconds` is CPU time per image."""
    classes = model.attributes.classes
    labels = torch.arange(count) % len(classes)
    start = time.process_time()
    images = sampled(model, [classes[n] for n in labels], settings, steps)
    seconds = time.process_time() - start
    clean = classifier_input(images)
    return {
        "right": class_right(classifier, clean, labels),
        "fd": frechet(classifier, clean, held.clean()),
        "seconds": seconds / count,
    }


def word_accuracy(
    model: ImageTokenModel, count: int, settings: CodeSettings, steps: int
) -> dict[str, float]:
    """Return by word the share of `count` samples with it in their prompt that it fits.

    Each word fits a third of the real images.
    """
    attributes = model.attributes
    prompts = [f"{word} {attributes.classes[n % 10]}" for word in WORDS for n in range(count)]
    ids = attributes.describe(Images(sampled(model, prompts, settings, steps)))
    shares: dict[str, float] = {}
    for at, word in enumerate(WORDS):
        right = ids[at * count : (at + 1) * count] == attributes.vocabulary.index(word)
        shares[word] = float(right.any(1).float().mean())
    return shares


def fitted(images: Images, codec: object) -> Images:
    """Return images scaled to the side that a codec takes."""
    side = getattr(codec, "size", None) or codec.config.size  # type: ignore[attr-defined]
    return Images(scaled(images.pixels, side), images.labels, images.names)


def classifier_input(pixels: Tensor) -> Tensor:
    """Return uint8 images as (N, 1, 28, 28) in [-1, 1]."""
    return Images(scaled(pixels, SIDE)).clean()


def prompt_grid(
    model: ImageTokenModel, prompts: Sequence[str], settings: CodeSettings, steps: int
) -> Tensor:
    """Return a grid of images in [-1, 1], a row of six samples for every prompt."""
    images = sampled(model, [prompt for prompt in prompts for _ in range(6)], settings, steps)
    return tiled(in_grid(list(classifier_input(images)), 6))


def evaluate(
    folders: Mapping[str, Path],
    train_part: Images,
    held: Images,
    *,
    count: int,
    words: int,
    learn: int = 1500,
    overrides: Mapping[str, float] | None = None,
    steps: int = UNMASK_STEPS,
) -> dict[str, float]:
    """Return the measurements of models as `METHOD.NAME`.

    `words` is the number of samples per word, `learn` that of the classifier's training steps.
    """
    classifier = train_classifier(train_part, learn)
    assert held.labels is not None
    flat = {"real.right": class_right(classifier, held.clean(), held.labels)}
    for method, folder in folders.items():
        model = load_image_token_model(folder)
        settings = replace(TUNED[model.method], **(overrides or {}))
        measured = {f"codes.{n}": v for n, v in reconstruction(model, classifier, held).items()}
        measured |= sample_quality(model, classifier, held, count, settings, steps)
        if words:
            measured |= word_accuracy(model, words, settings, steps)
        for name, value in measured.items():
            flat[f"{method}.{name}"] = round(value, 5)
            print(f"{method + '.' + name:24} {value:9.4f}", flush=True)
    return flat


def main() -> None:
    """Run the command that was typed."""
    parser, commands = recipe_parser("image_tokens", __doc__)
    training = commands.add_parser("train", help="train the models")
    training.add_argument("--out", type=Path, required=True, help="output folder")
    evaluation = commands.add_parser("evaluate", help="measure the models")
    add = evaluation.add_argument
    add("--models", type=Path, required=True, help="output folder of train")
    add("--count", type=int, default=1000, help="samples of each method")
    add("--words", type=int, default=100, help="samples for each word; 0: none")
    add("--temperature", type=float, help="default: the best one of the method")
    add("--guidance", type=float, help="default: the best one of the method")
    add("--noise", type=float, help="of unmask")
    add("--steps", type=int, default=UNMASK_STEPS, help="of unmask")
    add("--figures", type=Path, help="write a PNG of each method into this folder")
    add("--json", action="store_true", help="one flat JSON object on the last line")
    for command in (training, evaluation):
        command.add_argument("--data", type=Path, required=True, help="folder of the IDX files")
        command.add_argument("--methods", nargs="+", choices=list(OPTIONS), default=list(OPTIONS))
    args = parser.parse_args()
    if args.command == "train":
        train(args.data, args.out, args.methods)
        return
    folders = {method: args.models / method for method in args.methods}
    if args.figures is not None:
        write_figures(folders, args.figures)
    train_part, held = hold_out(read_digits(args.data), HELD_OUT)
    changed = {n: getattr(args, n) for n in ("temperature", "guidance", "noise")}
    flat = evaluate(
        folders,
        train_part,
        held,
        count=args.count,
        words=args.words,
        overrides={name: value for name, value in changed.items() if value is not None},
        steps=args.steps,
    )
    if args.json:
        print(json.dumps(flat))


PROMPTS = ("a slanted seven", "an upright seven", "a thick three", "a thin three", "two", "eight")


def write_figures(folders: Mapping[str, Path], out: Path) -> None:
    """Write a PNG for every method: six samples of each of six prompts."""
    out.mkdir(parents=True, exist_ok=True)
    for method, folder in folders.items():
        model = load_image_token_model(folder)
        grid = prompt_grid(model, PROMPTS, TUNED[model.method], UNMASK_STEPS)
        save(grid, out / f"image-tokens-{method}.png", side=SIDE)


if __name__ == "__main__":
    run(main)
