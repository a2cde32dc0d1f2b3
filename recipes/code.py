"""Train and measure a small model that completes Python, on the standard library of this machine.

    python -m recipes.code train --out DIR [--steps 800] [OPTIONS]
    python -m recipes.code evaluate --model DIR/model [--count 100] --json

Every twentieth file is held out. Functions of these are completed from their first line, as the
model likes, and under the check `parses`, whose verdict on beginnings lets the writing go back as
soon as no line that follows can make Python of it. Run the training again with the same DIR and it
goes on where it was. OPTIONS are those of `ostinato train text`, in place of the recipe's.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import sysconfig
import warnings
from codeop import PyCF_ALLOW_INCOMPLETE_INPUT  # type: ignore[attr-defined]
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ostinato.checks import Function
from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.loop import PrefixStatus, PrefixVerdict, Span
from ostinato.models import LanguageModel, load_model
from ostinato.refine import Backtrack, Refine, Resample, Strategy
from ostinato.train import TextTask, windows
from recipes.cli_args import positive, run

HELD_OUT = 20
CONTEXT = 256  # prompts of some 400 characters leave room for LENGTH tokens
LENGTH = 96
SHAPE = {"layers": "4", "width": "192", "heads": "6", "vocabulary": "2048"}
SCHEDULE = {"optimizer": "muon", "lr": "0.02", "batch-tokens": "4632", "ema-decay": "0.99"}

Row = Mapping[str, object]


def sources(folder: Path) -> list[str]:
    """Return the texts of a folder's Python files and those of its packages, tests left out."""
    found = sorted(p for p in [*folder.glob("*.py"), *folder.glob("[a-z]*/*.py")] if p.is_file())
    left_out = {"test", "idlelib", "lib2to3", "encodings", "pydoc_data", "site-packages"}
    texts = [p.read_text("utf-8", "replace") for p in found if p.parent.name not in left_out]
    return [text for text in texts if text.strip()]


def split(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the texts to learn from, and every twentieth, which is held out."""
    held = texts[HELD_OUT - 1 :: HELD_OUT]
    return [text for i, text in enumerate(texts, 1) if i % HELD_OUT], list(held)


def parts(folder: Path) -> tuple[list[str], list[str]]:
    """Return the texts of a folder to learn from, and those held out, of which there must be one.

    Raises `InputError` for a folder of too few files.
    """
    texts = sources(folder)
    if len(texts) < HELD_OUT:
        raise InputError(
            f"--data must be a folder of at least {HELD_OUT} Python files, got {len(texts)} in "
            f"{folder}. Name another, or leave it out for the standard library."
        )
    return split(texts)


def openings(text: str, before: int = 400) -> Iterator[dict[str, str]]:
    """Yield a row for each outermost function of at least three lines; none of what is no Python.

    `opening` is its head, from `def` to the colon; `prompt` is that behind the `before` characters
    that stand in front of it.
    """
    lines = text.splitlines(keepends=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old escapes
        try:
            nodes = ast.parse(text).body
        except (SyntaxError, ValueError):  # of another version, or with a null byte
            return
    for node in nodes:
        if isinstance(node, ast.FunctionDef) and len(node.body) >= 3:
            head = "".join(lines[node.lineno - 1 : node.body[0].lineno - 1])
            if head.rstrip().endswith(":"):
                above = "".join(lines[: node.lineno - 1])
                yield {"opening": head, "prompt": above[-before:] + head}


# The check ------------------------------------------------------------------------------------


def parse(source: str, *, unfinished: bool = False) -> str:
    """Return why this is no Python, or nothing; `unfinished`: and no lines behind mend it."""
    flags = ast.PyCF_ONLY_AST | (PyCF_ALLOW_INCOMPLETE_INPUT if unfinished else 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<completion>", "exec", flags)
    except (SyntaxError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        return "" if unfinished and "incomplete input" in reason else reason
    return ""


def whole_lines(text: str) -> str:
    """Return a text without its last line, which may go on."""
    return text[: text.rfind("\n") + 1]


def body(text: str, opening: str) -> str:
    """Return the lines of a completion that belong to the function.

    It ends before a line that is not indented, where what stands before that is whole.
    """
    kept = ""
    for line in whole_lines(text).splitlines(keepends=True):
        if line.strip() and not line[0].isspace() and not parse(opening + kept):
            break
        kept += line
    return kept


def completes(text: str, item: Row) -> tuple[bool, str]:
    """Judge a completion: with the function's head it is Python, as far as its lines are whole."""
    opening = str(item["opening"])
    reason = parse(opening + body(text, opening))
    return not reason, reason


def can_complete(text: str, item: Row) -> PrefixVerdict:
    """Judge a beginning by the lines that are whole."""
    lines = whole_lines(text)
    reason = parse(f"{item['opening']}{lines}", unfinished=True)
    if not reason:
        return PrefixVerdict()
    start = lines.rstrip("\n").rfind("\n") + 1
    return PrefixVerdict(PrefixStatus.IMPOSSIBLE, reason, Span(start, len(text)))


PARSES = Function(name="parses", function=completes, prefix=can_complete)


# Commands -------------------------------------------------------------------------------------


def train(folder: Path, out: Path, steps: int, more: Sequence[str] = ()) -> None:
    """Train with the command line, and `more` options of it, on all files but those held out."""
    out.mkdir(parents=True, exist_ok=True)
    for name, texts in zip(("learned", "held"), parts(folder), strict=True):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (out / f"{name}.jsonl").write_text(rows, encoding="utf-8")
    files = [str(out / "learned.jsonl"), "--valid", str(out / "held.jsonl")]
    size = ["--steps", str(steps), "--context", str(CONTEXT), "--valid-every", "400"]
    where = ["--out", str(out / "model"), "--journal", str(out / "journal.db")]
    options = [part for name, value in (SHAPE | SCHEDULE).items() for part in (f"--{name}", value)]
    cli(["train", "text", *files, *options, *size, *where, *more], standalone_mode=False)


def bits_per_character(model: LanguageModel, texts: Sequence[str]) -> float:
    """Return what a character of these texts costs, in bits."""
    text = "".join(texts)
    tokens = model.tokenizer.encode(text)
    context = min(CONTEXT, len(tokens) - 1)
    task = TextTask(windows(tokens, context), windows(tokens, context))
    with torch.no_grad():
        nats = task.validate(model.llama().eval(), 4096)["loss/valid"]
    return nats * len(tokens) / len(text) / math.log(2)


def completed(model: LanguageModel, rows: Sequence[Row], strategy: Strategy) -> list[Row]:
    """Complete each row's function."""
    job = Refine(
        model,
        rows,
        prompt=lambda row, edits: str(row["prompt"]),
        checks=[PARSES],
        strategy=strategy,
        max_new_tokens=LENGTH,
    )
    return job.run()


def share(rows: Sequence[Row]) -> float:
    """Return the share of completions that parse."""
    return sum(bool(row["accepted"]) for row in rows) / len(rows)


def evaluate(folder: Path, name: str, count: int) -> dict[str, Any]:
    """Measure bits a character, and the share of completions that parse: as they come, and not."""
    held = parts(folder)[1]
    model = load_model(name)
    found = [row for text in held for row in openings(text)]
    if not found:
        raise InputError(f"The held-out files of {folder} must hold functions, got none.")
    rows = found[:: max(1, len(found) // count)][:count]
    plain = completed(model, rows, Resample(rounds=1))
    back = completed(model, rows, Backtrack())
    spent: Any = [row["spent"] for row in back]
    return {
        "model": name,
        "functions": len(rows),
        "bits/character": bits_per_character(model, held),
        "parses/plain": share(plain),
        "parses/backtrack": share(back),
        "tokens/computed": sum(part.get("computed", 0) for part in spent) / len(rows),
    }


def main() -> None:
    """Read the arguments and do what they ask."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.code",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train the network")
    one.add_argument("--out", type=Path, required=True, help="the folder to write")
    one.add_argument("--steps", type=positive, default=800, help="that the rate is planned for")
    two = commands.add_parser("evaluate", help="measure a network")
    two.add_argument("--model", required=True, help="its folder")
    two.add_argument("--count", type=positive, default=100, help="functions to complete")
    two.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (one, two):
        library = Path(sysconfig.get_path("stdlib"))
        command.add_argument("--data", type=Path, default=library, help="a folder of Python files")
    given, more = parser.parse_known_args()
    if given.command == "train":
        train(given.data, given.out, given.steps, more)
        return
    if more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    result = evaluate(given.data, given.model, given.count)
    if given.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")


if __name__ == "__main__":
    run(main)
