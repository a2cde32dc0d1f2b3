"""Train and measure drawings of digits: an autoencoder of codes, and each method to draw.

    python -m recipes.image_tokens train --data FOLDER --out DIR
    python -m recipes.image_tokens evaluate --data FOLDER --models DIR --json

FOLDER holds the test part of MNIST (see `recipes/digits.py`), 10,000 images; a fixed shuffle holds
2,000 of them out. DIR gets a drawing for each method (`row`, `unmask`, `coarse`, `pixels`), trained by
`ostinato train image-tokens`; run it again and it goes on where it was. Evaluated are the images held
out after they went through the codes, and --count drawings of each method, the classes in turn: the
Fréchet distance and the share that a classifier takes for their class (`digit_measures.py`), the
seconds that an image takes, and whether words such as "slanted" are true of what is drawn.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ostinato.cli.main import cli
from ostinato.image import Images, hold_out
from ostinato.image.tokens import (
    CodeSettings,
    ImageTokenModel,
    image_token_loop,
    load_image_token_model,
)
from ostinato.image.tokens.model import TUNED, UNMASK_STEPS
from ostinato.media import save, scaled, tiled
from recipes.digit_measures import Classifier, class_right, frechet, train_classifier
from recipes.digits import FILES, HELD, read_digits

SIDE = 28  # the classifier's
OPTIONS: Mapping[str, Sequence[str]] = {
    "row": (),
    "unmask": ("--codec", "row"),
    "coarse": ("--codec", "row"),
    "pixels": ("--size", "14", "--levels", "4", "--batch-size", "16"),
}
"""The ways, and what is said to `ostinato train image-tokens` beside the images and the method."""

SAID = ("slanted", "upright", "thick", "thin", "large", "small")


def train(data: Path, out: Path, ways: Sequence[str]) -> None:
    """Train drawings one after another; those after `row` take its autoencoder."""
    sources = [str(data / name) for name in FILES]
    for method in ways:
        began = time.process_time()
        options = [str(out / "row") if word == "row" else word for word in OPTIONS[method]]
        where = ["--out", str(out / method), "--journal", str(out / "journal.db")]
        fixed = ["--method", method, "--hold-out", str(HELD)]
        cli(["train", "drawing", *sources, *where, *fixed, *options], standalone_mode=False)
        print(f"{method}: {(time.process_time() - began) / 60:.1f} minutes of processor time.")


def drawn(
    drawing: ImageTokenModel, wishes: Sequence[str], settings: CodeSettings, steps: int
) -> Tensor:
    """Return an image of every wish, uint8 (N, C, S, S)."""
    unmasked = steps if drawing.method == "unmask" else None
    loop = image_token_loop(wishes, model=drawing, settings=settings, steps=unmasked)
    rows = [row for step in loop for _, row in step.results]
    rows.sort(key=lambda row: int(str(row["index"])))
    return torch.stack([drawing.picture(row["output"]) for row in rows])


def rebuilt(drawing: ImageTokenModel, classifier: Classifier, held: Images) -> dict[str, float]:
    """Return what images lose that go through the codes: MSE of [0, 1], PSNR in dB, and so on."""
    images = fitted(held, drawing.codec)
    back = drawing.codec.decode(drawing.codec.encode(images.pixels))
    mse = float((back.float() - images.pixels.float()).div(255).square().mean())
    clean = seen_as(back)
    assert held.labels is not None
    return {
        "mse": mse,
        "psnr": -10 * math.log10(max(mse, 1e-10)),
        "right": class_right(classifier, clean, held.labels),
        "fd": frechet(classifier, clean, held.clean()),
    }


def sampled(
    drawing: ImageTokenModel,
    classifier: Classifier,
    held: Images,
    count: int,
    settings: CodeSettings,
    steps: int,
) -> dict[str, float]:
    """Return the figures of `count` drawings, the classes in turn."""
    labels = torch.arange(count) % len(drawing.attributes.classes)
    began = time.process_time()
    made = drawn(drawing, [drawing.attributes.classes[n] for n in labels], settings, steps)
    took = time.process_time() - began
    return {
        "right": class_right(classifier, seen_as(made), labels),
        "fd": frechet(classifier, seen_as(made), held.clean()),
        "seconds": took / count,
    }


def obeyed(
    drawing: ImageTokenModel, count: int, settings: CodeSettings, steps: int
) -> dict[str, float]:
    """Return for each word the share of drawings asked so of which it is true.

    Of real images, each is true of a third.
    """
    wishes = [f"{word} {drawing.attributes.classes[n % 10]}" for word in SAID for n in range(count)]
    ids = drawing.attributes.describe(Images(drawn(drawing, wishes, settings, steps)))
    told: dict[str, float] = {}
    for at, word in enumerate(SAID):
        right = ids[at * count : (at + 1) * count] == drawing.attributes.vocabulary.index(word)
        told[word] = float(right.any(1).float().mean())
    return told


def fitted(images: Images, codec: object) -> Images:
    """Return images at the side that a codec takes."""
    side = getattr(codec, "size", None) or codec.config.size  # type: ignore[attr-defined]
    return Images(scaled(images.pixels, side), images.labels, images.names)


def seen_as(pixels: Tensor) -> Tensor:
    """Return uint8 images as the classifier takes them: (N, 1, 28, 28) in [-1, 1]."""
    return Images(scaled(pixels, SIDE)).clean()


def picture(
    drawing: ImageTokenModel, wishes: Sequence[str], settings: CodeSettings, steps: int
) -> Tensor:
    """Return a grid of pixels, six drawings of every wish in a row."""
    made = drawn(drawing, [wish for wish in wishes for _ in range(6)], settings, steps)
    rows = [list(seen_as(made[at : at + 6])) for at in range(0, len(made), 6)]
    return tiled(rows)


def evaluate(
    folders: Mapping[str, Path],
    seen: Images,
    held: Images,
    *,
    count: int,
    words: int,
    learn: int = 1500,
    given: Mapping[str, float] | None = None,
    steps: int = UNMASK_STEPS,
) -> dict[str, float]:
    """Return the figures of drawings, flat: `WAY.NAME`. `learn` are the classifier's steps."""
    classifier = train_classifier(seen, learn)
    assert held.labels is not None
    flat = {"real.right": class_right(classifier, held.clean(), held.labels)}
    for method, folder in folders.items():
        drawing = load_image_token_model(folder)
        settings = CodeSettings(**{**vars(TUNED[drawing.method]), **(given or {})})
        told = {f"codes.{n}": v for n, v in rebuilt(drawing, classifier, held).items()}
        told |= sampled(drawing, classifier, held, count, settings, steps)
        if words:
            told |= obeyed(drawing, words, settings, steps)
        for name, value in told.items():
            flat[f"{method}.{name}"] = round(value, 5)
            print(f"{method + '.' + name:24} {value:9.4f}", flush=True)
    return flat


def main() -> None:
    """Read the arguments and do what they ask."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.image_tokens",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train the drawings")
    one.add_argument("--out", type=Path, required=True, help="the folder to write")
    two = commands.add_parser("evaluate", help="measure them")
    two.add_argument("--models", type=Path, required=True, help="the folder that train wrote")
    two.add_argument("--count", type=int, default=1000, help="drawings of each method")
    two.add_argument(
        "--words", type=int, default=100, help="drawings asked with each word; 0: none"
    )
    two.add_argument("--temperature", type=float, help="instead of what is best for the method")
    two.add_argument("--guidance", type=float, help="the same")
    two.add_argument("--noise", type=float, help="the same, of unmask")
    two.add_argument("--steps", type=int, default=UNMASK_STEPS, help="of unmask")
    two.add_argument("--pictures", type=Path, help="write a PNG of each method into this folder")
    two.add_argument("--json", action="store_true", help="one flat JSON object on the last line")
    for command in (one, two):
        command.add_argument("--data", type=Path, required=True, help="folder of the IDX files")
        command.add_argument("--ways", nargs="+", choices=list(OPTIONS), default=list(OPTIONS))
    given = parser.parse_args()
    if given.command == "train":
        train(given.data, given.out, given.ways)
        return
    folders = {method: given.models / method for method in given.ways}
    if given.pictures is not None:
        write_pictures(folders, given.pictures)
    seen, held = hold_out(read_digits(given.data), HELD)
    changed = {n: getattr(given, n) for n in ("temperature", "guidance", "noise")}
    flat = evaluate(
        folders,
        seen,
        held,
        count=given.count,
        words=given.words,
        given={name: value for name, value in changed.items() if value is not None},
        steps=given.steps,
    )
    if given.json:
        print(json.dumps(flat))


WISHES = ("a slanted seven", "an upright seven", "a thick three", "a thin three", "two", "eight")


def write_pictures(folders: Mapping[str, Path], out: Path) -> None:
    """Write a PNG of six wishes, six drawings of each, for every method."""
    out.mkdir(parents=True, exist_ok=True)
    for method, folder in folders.items():
        drawing = load_image_token_model(folder)
        made = picture(drawing, WISHES, TUNED[drawing.method], UNMASK_STEPS)
        save(made, out / f"drawing-{method}.png", side=SIDE)


if __name__ == "__main__":
    main()
