"""Training examples from files: plain text, JSONL rows, dialogues.

Bad input is reported with its file and line. Knows tokenizers, no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostinato.errors import InputError
from ostinato.models import Tokenizer
from ostinato.text_files import read_jsonl
from ostinato.text_files import read_text as text_of


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens to learn from; `loss_mask` marks those that the loss counts.

    The first token never counts: nothing before it predicts it.
    """

    tokens: tuple[int, ...]
    loss_mask: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.tokens)


def read_text(path: Path) -> str:
    """Return a file's text. Raises `InputError` if it is missing, empty or not UTF-8."""
    text = text_of(path)
    if not text.strip():
        raise InputError(f"{path} must hold text, got an empty file. Check the path.")
    return text


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file. Raises `InputError` that lists the bad lines."""
    rows = [row for _, row in read_jsonl(path)]
    if not rows:
        raise InputError(f"{path} must hold rows, got an empty file. Check the path.")
    return rows


def windows(tokens: Sequence[int], context: int) -> list[Example]:
    """Cut a long text into examples that predict `context` tokens each; drop a shorter rest."""
    if len(tokens) < 2:
        raise InputError(f"The text must have at least 2 tokens, got {len(tokens)}.")
    if len(tokens) <= context:
        raise InputError(
            f"context must be shorter than the text ({len(tokens)} tokens), got {context}. "
            "Give more text, or a smaller --context."
        )
    loss_mask = (False, *[True] * context)
    starts = range(0, len(tokens) - context, context)
    # Neighbors share one token: the last that one predicts is the first that the next reads.
    return [Example(tuple(tokens[i : i + context + 1]), loss_mask) for i in starts]


def conversation(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]], context: int
) -> Example:
    """Return a dialogue as an example whose loss counts only the assistant's turns.

    A turn's end token counts; the template around it does not. Cut to `context` tokens.
    """
    tokens: list[int] = []
    loss_mask: list[bool] = []
    # A template does not say which tokens belong to a turn, so it is applied to every prefix of
    # the dialogue: what a prefix adds is that turn.
    for index, message in enumerate(messages):
        prefix = tokenizer.chat(messages[: index + 1], add_generation_prompt=False)
        start = end = 0
        if message["role"] == "assistant":
            start = len(tokenizer.chat(messages[:index], add_generation_prompt=True))
            end = _answer_end(tokenizer, prefix, start)
        loss_mask += [start <= i < end for i in range(len(tokens), len(prefix))]
        tokens = prefix
    return Example(tuple(tokens[:context]), tuple(loss_mask[:context]))


def _answer_end(tokenizer: Tokenizer, tokens: Sequence[int], start: int) -> int:
    """Return the index after an answer: after its end token, else after the last token."""
    for index in range(start, len(tokens)):
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
    """Yield the examples of files: windows of plain text, or one or more for each JSONL row.

    A row holds `messages`, or `prompt` and `completion`, or `text`. `end` is the token appended to
    each text. A row with no counted token within `context` yields no example; its file and row
    number are added to `left_out`.
    """
    for path in paths:
        if path.suffix != ".jsonl":
            yield from windows(tokenizer.encode(read_text(path)), context)
            continue
        for number, row in enumerate(read_rows(path), 1):
            where = f"{path}, row {number}"
            row_examples = _of_row(row, tokenizer, context, end, f"{where},")
            counted = [example for example in row_examples if any(example.loss_mask)]
            yield from counted
            if not counted and left_out is not None:
                left_out.append(where)


def _of_row(
    row: Mapping[str, Any], tokenizer: Tokenizer, context: int, end: int | None, where: str
) -> Iterator[Example]:
    suffix = [] if end is None else [end]
    if isinstance(row.get("messages"), list):
        if tokenizer.chat_template is None:
            raise InputError(
                f"{where} holds messages, but the model has no chat template. "
                "Use a chat model, or rows with 'prompt' and 'completion'."
            )
        try:
            example = conversation(tokenizer, row["messages"], context)
        except (InputError, KeyError, TypeError) as error:
            raise InputError(
                f"{where} must hold messages with role and content, got: {error}."
            ) from None
        yield example
    elif "completion" in row:
        prompt = tokenizer.encode(str(row.get("prompt", "")))
        tokens = [*prompt, *tokenizer.encode(str(row["completion"])), *suffix][:context]
        # Without a prompt the first token has nothing to be predicted from.
        loss_mask = [i >= max(1, len(prompt)) for i in range(len(tokens))]
        yield Example(tuple(tokens), tuple(loss_mask))
    elif "text" in row:
        tokens = [*tokenizer.encode(str(row["text"])), *suffix]
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
    """Return the examples to train on, and the last `share` of them to validate with.

    The last, not random ones: windows of one text would otherwise be neighbors of training text.
    """
    count = int(len(all_examples) * share)
    if count == 0 or count == len(all_examples):
        raise InputError(
            f"The validation part must hold at least one example, got {len(all_examples)} examples "
            "in total. Give more text, or a file with --valid."
        )
    return list(all_examples[:-count]), list(all_examples[-count:])
