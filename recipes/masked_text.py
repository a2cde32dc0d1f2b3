"""Train and measure a small masked language model that fills gaps in plays, letter by letter.

    python -m recipes.masked_text train --data FOLDER --out DIR [--steps 1500] [OPTIONS]
    python -m recipes.masked_text evaluate --data FOLDER --model DIR --json

FOLDER holds `input.txt`: plays by Shakespeare (public domain), 1.1 M characters. The last tenth is
held out. The same command with the same DIR resumes the training. OPTIONS are those of
`ostinato train text` and replace the recipe's: `--width 256 --layers 6 --device cuda`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ostinato.arguments import require
from ostinato.errors import InputError
from ostinato.loop import Lanes, Loop, Policy, Steps
from ostinato.models import MaskedModel, load_masked_model
from ostinato.text import FillConfig, MaskedText, Unmask
from recipes.cli_args import print_result, run, text_recipe, train_text

CONTEXT = 95
LONGEST = CONTEXT // 3  # characters of a gap, which lies in the middle third of a piece
OPTIONS = {
    "kind": "masked",
    "tokenizer": "char",
    "layers": 4,
    "width": 128,
    "heads": 4,
    "optimizer": "muon",
    "lr": 0.01,
    "batch-tokens": 6144,
    "ema-decay": 0.99,
    "context": CONTEXT,
}


class GapExample(NamedTuple):
    """A piece of text, and the characters of it that are to be filled in."""

    text: str
    start: int
    end: int

    @property
    def answer(self) -> str:
        """The characters in the gap."""
        return self.text[self.start : self.end]

    @property
    def gaps(self) -> MaskedText:
        """The text with the gap; a token is a character."""
        parts = (self.text[: self.start], self.text[self.end :])
        return MaskedText(parts, (self.end - self.start,))


def split(text: str) -> tuple[str, str]:
    """Return the text to train on, and the last tenth, which is held out."""
    at = len(text) * 9 // 10
    return text[:at], text[at:]


def read_plays(folder: Path) -> str:
    """Read `input.txt` of a folder. Raises `InputError` where it is no text, or too short."""
    path = folder / "input.txt"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be text in UTF-8, got: {error}.") from None
    if len(text) <= 10 * (CONTEXT + 1):
        raise InputError(
            f"{path} must have more than {10 * (CONTEXT + 1)} characters, of which a tenth is held "
            f"out, got {len(text)}. Give a longer text."
        )
    return text


def gap_examples(text: str, count: int, gap: int, seed: int = 0) -> list[GapExample]:
    """Draw `count` pieces of a text, each with a gap of `gap` characters in its middle third.

    Both sides then have context, as the network sees both.
    """
    require(1 <= gap <= LONGEST, "--gap", f"from 1 to {LONGEST}", gap, "Take 8.")
    rng = random.Random(seed)
    examples = []
    for _ in range(count):
        at = rng.randrange(len(text) - CONTEXT)
        start = rng.randrange(CONTEXT // 3, 2 * CONTEXT // 3 - gap)
        examples.append(GapExample(text[at : at + CONTEXT], start, start + gap))
    return examples


def fill(model: MaskedModel, examples: Sequence[GapExample], steps: int) -> list[str]:
    """Fill each gap greedily, most confident characters first."""
    process = Unmask(model, steps=steps, fill=FillConfig(temperature=0.0, noise=0.0))
    items = [(str(n), example.gaps) for n, example in enumerate(examples)]
    texts: dict[str, str] = {}
    # No limit of its own: the loop ends with the last item.
    for step in Loop(Lanes(process, items, Policy(each=Steps(steps)))):
        texts |= {one.key: str(one.output) for one in step.results}
    return [texts[str(n)][example.start : example.end] for n, example in enumerate(examples)]


def accuracy(examples: Sequence[GapExample], fills: Sequence[str]) -> float:
    """Return the share of the gaps' characters that are right."""
    pairs = [
        (a, b)
        for example, text in zip(examples, fills, strict=True)
        # Not strict: a model whose tokens are words may return a shorter text.
        for a, b in zip(example.answer, text, strict=False)
    ]
    return sum(a == b for a, b in pairs) / sum(len(example.answer) for example in examples)


def train(data: Path, out: Path, steps: int, more: Sequence[str] = ()) -> None:
    """Train with `ostinato train text` on all but the last tenth."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "learned.txt", out / "held.txt"]
    for path, text in zip(files, split(read_plays(data)), strict=True):
        path.write_text(text, encoding="utf-8")
    train_text(files, out, {**OPTIONS, "steps": steps}, more)


def evaluate(data: Path, model: str, count: int, gap: int) -> dict[str, Any]:
    """Measure the accuracy on held-out gaps: in one step, in four, and in a step per character.

    The baseline fills every gap with the most common character.
    """
    learned, held_out = split(read_plays(data))
    network, examples = load_masked_model(model), gap_examples(held_out, count, gap)
    commonest = Counter(learned).most_common(1)[0][0]
    shares = {f"right/{n}": accuracy(examples, fill(network, examples, n)) for n in (1, 4, gap)}
    return {
        "model": model,
        "gap": gap,
        **shares,
        "right/commonest": accuracy(examples, [commonest * gap] * count),
    }


def main() -> None:
    """Run the command that was typed."""
    recipe = text_recipe("masked_text", __doc__, steps=1500, examples="gaps to fill")
    recipe.evaluate.set_defaults(count=200)
    recipe.evaluate.add_argument("--gap", type=int, default=8, help="characters per gap")
    for command in (recipe.train, recipe.evaluate):
        command.add_argument("--data", type=Path, required=True, help="folder of input.txt")
    args, options = recipe.parse()
    if args.command == "train":
        train(args.data, args.out, args.steps, options)
    else:
        print_result(evaluate(args.data, args.model, args.count, args.gap), args.json, ".1%")


if __name__ == "__main__":
    run(main)
