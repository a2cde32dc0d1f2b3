"""Train and measure a small masked language model that fills gaps in plays, letter by letter.

    python -m recipes.masked_text train --data FOLDER --out DIR [--steps 1500] [OPTIONS]
    python -m recipes.masked_text evaluate --data FOLDER --model DIR --json

FOLDER holds `input.txt`: plays by Shakespeare (public domain), 1.1 M characters. The last tenth is
held out. Run the training again with the same DIR and it goes on where it was. OPTIONS are those of
`ostinato train text`, in place of the recipe's: `--width 256 --layers 6 --device cuda`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.loop import Lanes, Loop, Steps
from ostinato.models import MaskedModel, load_masked_model
from ostinato.text import FillConfig, MaskedText, Unmask
from recipes.cli_args import positive, run

CONTEXT = 95
LONGEST = CONTEXT // 3
"""Characters of a gap, which lies in the middle third of a piece."""
SHAPE = {"kind": "masked", "tokenizer": "char", "layers": "4", "width": "128", "heads": "4"}
SCHEDULE = {
    "optimizer": "muon",
    "lr": "0.01",
    "batch-tokens": "6144",
    "ema-decay": "0.99",
}


class Torn(NamedTuple):
    """A piece of text, and where a gap was torn into it."""

    text: str
    start: int
    end: int

    @property
    def gaps(self) -> MaskedText:
        """The text with the gap."""
        parts = (self.text[: self.start], self.text[self.end :])
        return MaskedText(parts, (self.end - self.start,))


def split(text: str) -> tuple[str, str]:
    """Return what is learned from, and the last tenth."""
    at = len(text) * 9 // 10
    return text[:at], text[at:]


def plays(folder: Path) -> str:
    """Read `input.txt` of a folder. Raises `InputError` where it is no text, or too short."""
    path = folder / "input.txt"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a text in UTF-8, got: {error}.") from None
    if len(text) <= 10 * (CONTEXT + 1):
        raise InputError(
            f"{path} must have more than {10 * (CONTEXT + 1)} characters, of which a tenth is held "
            f"out, got {len(text)}. Give a longer text."
        )
    return text


def torn(text: str, count: int, gap: int, seed: int = 0) -> list[Torn]:
    """Tear a gap of `gap` characters into the middle third of `count` pieces of a text."""
    if not 1 <= gap <= LONGEST:
        raise InputError(f"--gap must be from 1 to {LONGEST}, got {gap}. Take 8.")
    dice = random.Random(seed)
    made = []
    for _ in range(count):
        at = dice.randrange(len(text) - CONTEXT)
        start = dice.randrange(CONTEXT // 3, 2 * CONTEXT // 3 - gap)
        made.append(Torn(text[at : at + CONTEXT], start, start + gap))
    return made


def filled(model: MaskedModel, pieces: Sequence[Torn], steps: int) -> list[str]:
    """Fill each gap with the likeliest characters, the surest first."""
    process = Unmask(model, steps=steps, fill=FillConfig(temperature=0.0, noise=0.0))
    items = [(str(n), piece.gaps) for n, piece in enumerate(pieces)]
    texts: dict[str, str] = {}
    for step in Loop(Lanes(process, items, each=Steps(steps)), until=Steps(1 << 62)):
        texts |= {key: str(row["output"]) for key, row in step.results}
    return [texts[str(n)][piece.start : piece.end] for n, piece in enumerate(pieces)]


def right(pieces: Sequence[Torn], fills: Sequence[str]) -> float:
    """Return the share of the gaps' characters that are those that were torn out."""
    pairs = [
        (a, b)
        for piece, fill in zip(pieces, fills, strict=True)
        for a, b in zip(piece.text[piece.start : piece.end], fill, strict=False)
    ]
    return sum(a == b for a, b in pairs) / sum(piece.end - piece.start for piece in pieces)


def train(data: Path, out: Path, steps: int, more: Sequence[str] = ()) -> None:
    """Train with the command line, and `more` options of it, on all but the last tenth."""
    out.mkdir(parents=True, exist_ok=True)
    learned, held = split(plays(data))
    for name, text in (("learned", learned), ("held", held)):
        (out / f"{name}.txt").write_text(text, encoding="utf-8")
    files = [str(out / "learned.txt"), "--valid", str(out / "held.txt")]
    size = ["--steps", str(steps), "--context", str(CONTEXT)]
    where = ["--out", str(out / "model"), "--journal", str(out / "journal.db")]
    options = [part for name, value in (SHAPE | SCHEDULE).items() for part in (f"--{name}", value)]
    cli(["train", "text", *files, *options, *size, *where, *more], standalone_mode=False)


def evaluate(data: Path, model: str, count: int, gap: int) -> dict[str, Any]:
    """Measure how many characters of held-out gaps are found, in one step and in many."""
    learned, held = split(plays(data))
    network, pieces = load_masked_model(model), torn(held, count, gap)
    commonest = Counter(learned).most_common(1)[0][0]
    shares = {f"right/{n}": right(pieces, filled(network, pieces, n)) for n in (1, 4, gap)}
    return {
        "model": model,
        "gap": gap,
        **shares,
        "right/commonest": right(pieces, [commonest * gap] * count),
    }


def main() -> None:
    """Read the arguments and do what they ask."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.masked_text",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train the network")
    one.add_argument("--out", type=Path, required=True, help="the folder to write")
    one.add_argument("--steps", type=positive, default=1500, help="that the rate is planned for")
    two = commands.add_parser("evaluate", help="measure a network")
    two.add_argument("--model", required=True, help="its folder")
    two.add_argument("--count", type=positive, default=200, help="gaps to fill")
    two.add_argument("--gap", type=positive, default=8, help="characters of a gap")
    two.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (one, two):
        command.add_argument("--data", type=Path, required=True, help="folder of input.txt")
    given, more = parser.parse_known_args()
    if given.command == "train":
        train(given.data, given.out, given.steps, more)
        return
    if more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    result = evaluate(given.data, given.model, given.count, given.gap)
    if given.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name}: {value:.1%}" if isinstance(value, float) else f"{name}: {value}")


if __name__ == "__main__":
    run(main)
