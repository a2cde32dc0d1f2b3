"""The command line of recipes: arguments that several share, training by `ostinato train`, errors.

A recipe reports bad input as one sentence with exit code 2, as the commands of Ostinato do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from ostinato.cli.main import cli
from ostinato.errors import OstinatoError


class TextRecipe(NamedTuple):
    """The parser of a recipe that trains a text model, and the parsers of its two commands."""

    parser: argparse.ArgumentParser
    train: argparse.ArgumentParser
    evaluate: argparse.ArgumentParser

    def parse(self) -> tuple[argparse.Namespace, list[str]]:
        """Return the arguments, and those of `train` that are passed on to `ostinato train`."""
        args, options = self.parser.parse_known_args()
        if options and args.command != "train":
            self.parser.error(f"unrecognized arguments: {' '.join(options)}")
        return args, options


def recipe_parser(name: str, doc: str | None) -> tuple[argparse.ArgumentParser, Any]:
    """Return the parser of `python -m recipes.NAME`, and the action that adds its commands."""
    parser = argparse.ArgumentParser(
        prog=f"python -m recipes.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser, parser.add_subparsers(dest="command", required=True)


def text_recipe(name: str, doc: str | None, *, steps: int, examples: str) -> TextRecipe:
    """Return the parsers of a recipe with `train --steps` and `evaluate --count`.

    `steps` is the default, `examples` says what `--count` counts.
    """
    parser, commands = recipe_parser(name, doc)
    train = commands.add_parser("train", help="train the network")
    train.add_argument("--out", type=Path, required=True, help="output folder")
    train.add_argument(
        "--steps", type=positive, default=steps, help="steps of the learning-rate schedule"
    )
    evaluate = commands.add_parser("evaluate", help="measure a network")
    evaluate.add_argument("--model", required=True, help="folder of the network")
    evaluate.add_argument("--count", type=positive, default=100, help=examples)
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    return TextRecipe(parser, train, evaluate)


def train_text(
    files: Sequence[Path], out: Path, options: Mapping[str, object], more: Sequence[str]
) -> None:
    """Run `ostinato train text` on a training and a validation file.

    The model is written to OUT/model, the run to OUT/journal.db: the recipe leaves no trace in the
    working folder, and resumes from any. `more` are options as typed, which come last and win.
    """
    learned, held_out = files
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    where = ["--out", str(out / "model"), "--journal", str(out / "journal.db")]
    arguments = [str(learned), "--valid", str(held_out), *words, *where, *more]
    cli(["train", "text", *arguments], standalone_mode=False)


def print_result(result: Mapping[str, object], as_json: bool, digits: str) -> None:
    """Print measurements as one JSON object or as lines, floats in the format `digits`."""
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name}: {value:{digits}}" if isinstance(value, float) else f"{name}: {value}")


def positive(text: str) -> int:
    """Read a whole number of at least 1, as a type of argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def run(main: Callable[[], None]) -> None:
    """Run a recipe. Bad input is a message and exit code 2, never a traceback."""
    try:
        main()
    except click.ClickException as error:  # raised by `cli` outside of its standalone mode
        print(f"Error: {error.format_message()}", file=sys.stderr)
        sys.exit(2)
    except (OstinatoError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
