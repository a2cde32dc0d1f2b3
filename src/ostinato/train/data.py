"""Examples out of files: plain text, JSONL, dialogues. Bad input is told by file and line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostinato.errors import InputError
from ostinato.models import Tokenizer


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens to learn from; `loss_mask` marks those that the loss counts (never the first)."""

    tokens: tuple[int, ...]
    loss_mask: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.tokens)


def read_text(path: Path) -> str:
    """Return a file's text. Raises `InputError` where it is missing, empty or no UTF-8."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} must exist, got no such file. Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a text file in UTF-8, got: {error}.") from None
    if not text.strip():
        raise InputError(f"{path} must hold text, got an empty file.")
    return text


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file. Raises `InputError` with the line that is broken."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}, must be JSON, got: {error}.") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}, must be an object, got {line[:40]!r}.")
        rows.append(row)
    return rows


def windows(tokens: Sequence[int], context: int) -> list[Example]:
    """Cut a long text into examples that predict `context` tokens each."""
    if len(tokens) < 2:
        raise InputError(f"The text must have at least 2 tokens, got {len(tokens)}.")
    if len(tokens) <= context:
        raise InputError(
            f"context must be shorter than the text ({len(tokens)} tokens), got {context}. "
            "Give more text, or a smaller --context."
        )
    counted = (False, *[True] * context)
    starts = range(0, len(tokens) - context, context)
    return [Example(tuple(tokens[i : i + context + 1]), counted) for i in starts]


def conversation(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]], context: int
) -> Example:
    """Return a dialogue as an example whose loss counts the assistant's turns only.

    A turn's end token counts, the template around it does not. Cut to `context` tokens.
    """
    tokens: list[int] = []
    counted: list[bool] = []
    for index, message in enumerate(messages):
        until = tokenizer.chat(messages[: index + 1], add_generation_prompt=False)
        if message["role"] == "assistant":
            opened = len(tokenizer.chat(messages[:index], add_generation_prompt=True))
            answer = [opened <= i < _end(tokenizer, until, opened) for i in range(len(until))]
            counted += answer[len(tokens) :]
        else:
            counted += [False] * (len(until) - len(tokens))
        tokens = until
    return Example(tuple(tokens[:context]), tuple(counted[:context]))


def _end(tokenizer: Tokenizer, tokens: Sequence[int], opened: int) -> int:
    """Return where an answer ends: behind its end token, or behind the last token."""
    for index in range(opened, len(tokens)):
        if tokens[index] in tokenizer.eos_ids:
            return index + 1
    return len(tokens)


def examples(
    paths: Iterable[Path],
    tokenizer: Tokenizer,
    context: int,
    *,
    end: int | None = None,
    left_out: list[str] | None = None,
) -> Iterator[Example]:
    """Yield the examples of files: windows of plain text, or one or more a JSONL row.

    A row holds `messages`, or `prompt` and `completion`, or `text`. `end` is the token put behind
    each text. A row of which nothing that counts is within `context` tokens yields no example: its
    place is added to `left_out`.
    """
    for path in paths:
        if path.suffix != ".jsonl":
            yield from windows(tokenizer.encode(read_text(path)), context)
            continue
        for number, row in enumerate(read_rows(path), 1):
            where = f"{path}, row {number}"
            found = list(_of_row(row, tokenizer, context, end, f"{where},"))
            counting = [example for example in found if any(example.loss_mask)]
            yield from counting
            if not counting and left_out is not None:
                left_out.append(where)


def _of_row(
    row: Mapping[str, Any], tokenizer: Tokenizer, context: int, end: int | None, where: str
) -> Iterator[Example]:
    ends = [] if end is None else [end]
    if isinstance(row.get("messages"), list):
        if tokenizer.chat_template is None:
            raise InputError(f"{where} holds messages, but the model has no chat template.")
        try:
            example = conversation(tokenizer, row["messages"], context)
        except (InputError, KeyError, TypeError) as error:
            raise InputError(
                f"{where} must hold messages with role and content, got: {error}."
            ) from None
        yield example
    elif "completion" in row:
        prompt = tokenizer.encode(str(row.get("prompt", "")))
        tokens = [*prompt, *tokenizer.encode(str(row["completion"])), *ends][:context]
        counted = [i >= max(1, len(prompt)) for i in range(len(tokens))]
        yield Example(tuple(tokens), tuple(counted))
    elif "text" in row:
        tokens = [*tokenizer.encode(str(row["text"])), *ends]
        for start in range(0, max(1, len(tokens) - 1), context):
            part = tokens[start : start + context + 1]
            if len(part) > 1:
                yield Example(tuple(part), (False, *[True] * (len(part) - 1)))
    else:
        names = ", ".join(sorted(row)) or "nothing"
        raise InputError(
            f"{where} must hold 'text', 'messages', or 'prompt' and 'completion', got {names}."
        )


def split(
    all_examples: Sequence[Example], share: float = 0.1
) -> tuple[list[Example], list[Example]]:
    """Return the first part to train on and the last `share` to validate with."""
    count = int(len(all_examples) * share)
    if count == 0 or count == len(all_examples):
        raise InputError(
            f"The validation part must hold at least one example, got {len(all_examples)} examples "
            "in all. Give more text, or a file with --valid."
        )
    return list(all_examples[:-count]), list(all_examples[-count:])
