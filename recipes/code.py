"""Train and measure a small model that completes Python, on the standard library of this machine.

    python -m recipes.code train --out DIR [--steps 800] [OPTIONS]
    python -m recipes.code evaluate --model DIR/model [--count 100] --json

Every twentieth file is held out. Functions of these are completed from their first line: freely,
and under the check `parses`. The check's verdict on prefixes lets the strategy backtrack as soon as
no further line can make the text Python. The same command with the same DIR resumes the training.
OPTIONS are those of `ostinato train text` and replace the recipe's.
"""

from __future__ import annotations

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
from ostinato.errors import InputError
from ostinato.loop import PrefixStatus, PrefixVerdict, Span
from ostinato.models import LanguageModel, load_model
from ostinato.refine import Backtrack, Refine, Resample, Strategy
from ostinato.train import TextTask, windows
from recipes.cli_args import print_result, run, text_recipe, train_text

HELD_OUT = 20  # one file in this many
CONTEXT = 256  # prompts of some 400 characters leave room for LENGTH tokens
LENGTH = 96
OPTIONS = {
    "layers": 4,
    "width": 192,
    "heads": 6,
    "vocab-size": 2048,
    "optimizer": "muon",
    "lr": 0.02,
    "batch-tokens": 4632,
    "ema-decay": 0.99,
    "context": CONTEXT,
    "valid-every": 400,
}

Row = Mapping[str, object]


def read_sources(folder: Path) -> list[str]:
    """Return the texts of a folder's Python files and those of its packages, without tests."""
    paths = sorted(p for p in [*folder.glob("*.py"), *folder.glob("[a-z]*/*.py")] if p.is_file())
    # Encodings and pydoc_data are tables, lib2to3 is code for Python 2.
    left_out = {"test", "idlelib", "lib2to3", "encodings", "pydoc_data", "site-packages"}
    texts = [p.read_text("utf-8", "replace") for p in paths if p.parent.name not in left_out]
    return [text for text in texts if text.strip()]


def split(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the texts to train on, and every twentieth, which is held out."""
    held_out = texts[HELD_OUT - 1 :: HELD_OUT]
    return [text for i, text in enumerate(texts, 1) if i % HELD_OUT], list(held_out)


def read_split(folder: Path) -> tuple[list[str], list[str]]:
    """Return the texts of a folder to train on, and at least one that is held out.

    Raises `InputError` for a folder of too few files.
    """
    texts = read_sources(folder)
    if len(texts) < HELD_OUT:
        raise InputError(
            f"--data must be a folder of at least {HELD_OUT} Python files, got {len(texts)} in "
            f"{folder}. Name another, or leave it out for the standard library."
        )
    return split(texts)


def openings(text: str, before: int = 400) -> Iterator[dict[str, str]]:
    """Yield a row for each top-level function of at least three statements.

    `opening` is its head, from `def` to the colon; `prompt` is the head after the `before`
    characters that precede it. Text that is not Python has none.
    """
    lines = text.splitlines(keepends=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old files
        try:
            nodes = ast.parse(text).body
        except (SyntaxError, ValueError):  # of another version, or with a null byte
            return
    for node in nodes:
        if isinstance(node, ast.FunctionDef) and len(node.body) >= 3:
            head = "".join(lines[node.lineno - 1 : node.body[0].lineno - 1])
            # A body on the line of its `def` leaves no head of whole lines.
            if head.rstrip().endswith(":"):
                above = "".join(lines[: node.lineno - 1])
                yield {"opening": head, "prompt": above[-before:] + head}


# The check ------------------------------------------------------------------------------------


def parse(source: str, *, unfinished: bool = False) -> str:
    """Return why the source is not Python, or "".

    `unfinished`: why no further lines can make it Python. The compiler reports input that may still
    become valid with a message of its own, as for the prompt of the interactive interpreter.
    """
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
    """Return a text without its last line, which may not be complete."""
    return text[: text.rfind("\n") + 1]


def body(text: str, opening: str) -> str:
    """Return the lines of a completion that belong to the function.

    It ends before a line that is not indented, unless the lines before need it: a string or a
    bracket may continue at the left margin.
    """
    kept = ""
    for line in whole_lines(text).splitlines(keepends=True):
        if line.strip() and not line[0].isspace() and not parse(opening + kept):
            break
        kept += line
    return kept


def is_python(text: str, item: Row) -> tuple[bool, str]:
    """Judge a completion: its whole lines must be Python after the function's head."""
    opening = str(item["opening"])
    reason = parse(opening + body(text, opening))
    return not reason, reason


def can_become_python(text: str, item: Row) -> PrefixVerdict:
    """Judge a prefix by its whole lines; an incomplete line could still become anything."""
    lines = whole_lines(text)
    reason = parse(f"{item['opening']}{lines}", unfinished=True)
    if not reason:
        return PrefixVerdict()
    start = lines.rstrip("\n").rfind("\n") + 1
    return PrefixVerdict(PrefixStatus.IMPOSSIBLE, reason, Span(start, len(text)))


PARSES = Function(name="parses", function=is_python, prefix=can_become_python)


# Commands -------------------------------------------------------------------------------------


def train(folder: Path, out: Path, steps: int, more: Sequence[str] = ()) -> None:
    """Train with `ostinato train text` on all files but those held out."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "learned.jsonl", out / "held.jsonl"]
    for path, texts in zip(files, read_split(folder), strict=True):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        path.write_text(rows, encoding="utf-8")
    train_text(files, out, {**OPTIONS, "steps": steps}, more)


def bits_per_character(model: LanguageModel, texts: Sequence[str]) -> float:
    """Return the cross-entropy in bits per character, which compares models of any tokenizer."""
    text = "".join(texts)
    tokens = model.tokenizer.encode(text)
    context = min(CONTEXT, len(tokens) - 1)
    task = TextTask(windows(tokens, context), windows(tokens, context))
    with torch.no_grad():
        nats = task.validate(model.llama().eval(), 4096)["loss/valid"]
    return nats * len(tokens) / len(text) / math.log(2)


def complete(model: LanguageModel, rows: Sequence[Row], strategy: Strategy) -> list[Row]:
    """Complete the function of each row under the check `parses`."""
    job = Refine(
        model,
        rows,
        prompt=lambda row, edits: str(row["prompt"]),
        checks=[PARSES],
        strategy=strategy,
        max_new_tokens=LENGTH,
    )
    return job.run()


def pass_rate(rows: Sequence[Row]) -> float:
    """Return the share of completions that parse."""
    return sum(bool(row["accepted"]) for row in rows) / len(rows)


def evaluate(folder: Path, name: str, count: int) -> dict[str, Any]:
    """Measure bits per character, and the pass rates of single drafts and of backtracking."""
    held_out = read_split(folder)[1]
    model = load_model(name)
    heads = [row for text in held_out for row in openings(text)]
    if not heads:
        raise InputError(f"The held-out files of {folder} must hold functions, got none.")
    rows = heads[:: max(1, len(heads) // count)][:count]  # spread over all files
    plain = complete(model, rows, Resample(rounds=1))
    back = complete(model, rows, Backtrack())
    spent: Any = [row["tokens"] for row in back]
    return {
        "model": name,
        "functions": len(rows),
        "bits/character": bits_per_character(model, held_out),
        "parses/plain": pass_rate(plain),
        "parses/backtrack": pass_rate(back),
        "tokens/computed": sum(part.get("computed", 0) for part in spent) / len(rows),
    }


def main() -> None:
    """Run the command that was typed."""
    recipe = text_recipe("code", __doc__, steps=800, examples="functions to complete")
    for command in (recipe.train, recipe.evaluate):
        library = Path(sysconfig.get_path("stdlib"))
        command.add_argument("--data", type=Path, default=library, help="folder of Python files")
    args, options = recipe.parse()
    if args.command == "train":
        train(args.data, args.out, args.steps, options)
    else:
        print_result(evaluate(args.data, args.model, args.count), args.json, ".3f")


if __name__ == "__main__":
    run(main)
