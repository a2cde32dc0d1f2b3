"""Training examples from files: plain text, JSONL rows, dialogues.

Bad input is reported with its file and line. Knows tokenizers, no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostinato.arguments import counted
from ostinato.errors import InputError, ItemError
from ostinato.models import Tokenizer
from ostinato.text_files import read_jsonl, read_text
from ostinato.train.rows import Completion, Dialogue, PlainText, parse_row


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens to learn from; `loss_mask` marks those that the loss counts.

    The first token never counts: nothing before it predicts it.
    """

    tokens: tuple[int, ...]
    loss_mask: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.tokens)


def read_corpus(path: Path) -> str:
    """Return a file's text. Raises `InputError` if it is missing, empty or not UTF-8."""
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path} must hold text, got an empty file. Check the path.")
    return text


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file. Raises `InputError` that lists the bad lines."""
    rows = [row for _, row in read_jsonl(path)]
    if not rows:
        raise InputError(f"{path} must hold rows, got an empty file. Check the path.")
    return rows


def windows(tokens: Sequence[int], context: int, where: str = "The text") -> list[Example]:
    """Cut a long text into examples that predict `context` tokens each; drop a shorter rest.

    `where` names the text in messages.
    """
    if len(tokens) < 2:
        raise InputError(f"{where} must have at least 2 tokens, got {len(tokens)}. Give more text.")
    if len(tokens) <= context:
        raise InputError(
            f"context must be shorter than the text, got {context} for {where}, which has "
            f"{counted(len(tokens), 'tokens')}. Give more text, or a smaller --context."
        )
    loss_mask = (False, *[True] * context)
    starts = range(0, len(tokens) - context, context)
    # Neighbors share one token: the last that one predicts is the first that the next reads.
    return [Example(tuple(tokens[i : i + context + 1]), loss_mask) for i in starts]


def conversation(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]], context: int
) -> Example:
    """Return a dialogue as an example whose loss counts only the assistant's words.

    A turn's end token counts; the template around it does not. Cut to `context` tokens.
    """
    tokens, loss_mask = tokenizer.chat_with_mask(messages)
    return Example(tuple(tokens[:context]), tuple(loss_mask[:context]))


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
        if path.suffix.lower() != ".jsonl":
            text = read_corpus(path)
            tokens = _tokens(text, tokenizer, tokenizer.prompt, str(path))
            yield from windows(tokens, context, str(path))
            continue
        for number, row in enumerate(read_rows(path), 1):
            where = f"{path}, row {number}"
            row_examples = _of_row(parse_row(row, where), tokenizer, context, end, where)
            counted = [example for example in row_examples if any(example.loss_mask)]
            yield from counted
            if not counted and left_out is not None:
                left_out.append(where)


def _of_row(
    row: PlainText | Completion | Dialogue,
    tokenizer: Tokenizer,
    context: int,
    end: int | None,
    where: str,
) -> Iterator[Example]:
    suffix = [] if end is None else [end]
    if isinstance(row, Dialogue):
        yield _dialogue(row, tokenizer, context, where)
    elif isinstance(row, Completion):
        # As a model is asked: the completion continues the prompt's tokens.
        prompt = _tokens(row.prompt, tokenizer, tokenizer.prompt, where)
        completion = _tokens(row.completion, tokenizer, tokenizer.continuation, where)
        tokens = [*prompt, *completion, *suffix][:context]
        # Without a prompt the first token has nothing to be predicted from.
        loss_mask = [i >= max(1, len(prompt)) for i in range(len(tokens))]
        yield Example(tuple(tokens), tuple(loss_mask))
    else:
        tokens = [*_tokens(row.text, tokenizer, tokenizer.prompt, where), *suffix]
        for start in range(0, max(1, len(tokens) - 1), context):
            part = tokens[start : start + context + 1]
            if len(part) > 1:
                yield Example(tuple(part), (False, *[True] * (len(part) - 1)))


def _dialogue(row: Dialogue, tokenizer: Tokenizer, context: int, where: str) -> Example:
    if tokenizer.chat_template is None:
        raise InputError(
            f"{where} holds messages, but the model has no chat template. "
            "Use a chat model, or rows with 'prompt' and 'completion'."
        )
    try:
        return conversation(tokenizer, row.messages, context)
    except (InputError, ItemError, KeyError, TypeError) as error:
        raise InputError(
            f"{where}, must hold messages with role and content, got: {error}."
        ) from None


def _tokens(
    text: str, tokenizer: Tokenizer, encode: Callable[[str], list[int]], where: str
) -> list[int]:
    """Return the tokens of a text. Raises `InputError` for characters without a token."""
    try:
        tokenizer.require_known(text)
        return encode(text)
    except ItemError as error:
        raise InputError(f"{where}: {error}") from None


def split(
    all_examples: Sequence[Example], share: float = 0.1
) -> tuple[list[Example], list[Example]]:
    """Return the examples to train on, and the last `share` of them to validate with: at least one.

    The last, not random ones: windows of one text would otherwise be neighbors of training text.
    """
    count = max(1, int(len(all_examples) * share))
    if count >= len(all_examples):
        raise InputError(
            "The validation part must hold at least one example, got "
            f"{counted(len(all_examples), 'examples')} "
            "in total. Give more text, or a file with --valid."
        )
    return list(all_examples[:-count]), list(all_examples[-count:])
