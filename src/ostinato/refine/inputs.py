"""What `Refine` is given, checked and completed at once: items, checks, strategy, prompt.

Knows no model.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ostinato.arguments import did_you_mean, require, require_choice
from ostinato.checks import KINDS, BaseCheck, Function, Template, from_spec, to_spec
from ostinato.errors import InputError, ItemError
from ostinato.loop import Check, content_keys
from ostinato.refine.prompts import Message, refuse_unusable, with_feedback
from ostinato.refine.strategies.backtrack import Backtrack
from ostinato.refine.strategies.base import Abort, Feedback, Resample, Strategy
from ostinato.refine.strategies.steering import BestOf, Constrain, Smc
from ostinato.text_files import half_character

if TYPE_CHECKING:
    from ostinato.decode import TokenPrompt

Row = Mapping[str, object]
PromptOf = Callable[[Row, Mapping[str, object]], "str | Sequence[Message] | TokenPrompt"]
"""Makes an item's prompt: `prompt(item, edits)`; `edits["feedback"]` contains the last draft.

A `TokenPrompt` needs a model in this process: its tokens are used as they are."""

AnyCheck = Check | Callable[..., object] | str
"""A check, a function of the text (and of the item), or the name of a kind of check."""

STRATEGIES: Mapping[str, type[Strategy]] = {
    kind.kind: kind for kind in (Backtrack, Abort, BestOf, Constrain, Feedback, Resample, Smc)
}
"""The strategies that can be named, by kind."""


def strategy_of(strategy: Strategy | str | None) -> Strategy:
    """Return a strategy by its kind, with default options; `Backtrack` for None."""
    if isinstance(strategy, str):
        require_choice("strategy", strategy, STRATEGIES)
        return STRATEGIES[strategy]()
    if strategy is None:
        return Backtrack()
    expected = f"a Strategy or one of {', '.join(STRATEGIES)}"
    right = isinstance(strategy, Strategy)
    require(right, "strategy", expected, strategy, 'Write for example strategy="resample".')
    return strategy


def checks_of(checks: Iterable[AnyCheck]) -> tuple[Check, ...]:
    """Return checks; a plain function, and the name of a kind, becomes one.

    Raises `InputError` for anything else, and for a kind that needs parameters.
    """
    alone = not isinstance(checks, Iterable) or isinstance(checks, str)
    given: list[Any] = [checks] if alone else list(checks)
    fix = "Without one every reply is accepted: `ostinato.text.write` writes texts."
    require(bool(given), "checks", "at least one check, function or name", checks, fix)
    made = tuple(_check(number, one) for number, one in enumerate(given, 1))
    names = [check.name for check in made]
    for name in names:
        # Verdicts are found by the name of their check.
        if names.count(name) > 1:
            raise InputError(
                f"The names of checks must be unique, got {name!r} twice. Give one another name: "
                'name="…", or @check(name="…") for a function.'
            )
    return made


def _check(number: int, one: AnyCheck) -> Check:
    if isinstance(one, str):
        return _named_check(number, one)
    if callable(getattr(one, "judge", None)) and not isinstance(one, type):
        return one  # type: ignore[return-value]
    if callable(one) and not isinstance(one, type):
        return Function(function=one)
    fix = "Give a check such as Length(max=40), a function of the text, or a name of a kind."
    require(False, f"Check {number} of checks", "a check, a function or a name", one, fix)
    raise AssertionError


def _named_check(number: int, kind: str) -> Check:
    """Return a check of a kind with default parameters."""
    require_choice(f"Check {number} of checks", kind, sorted(KINDS))
    if kind == Function.kind:
        raise InputError(f"Check {number} of checks must be the function itself, got {kind!r}.")
    try:
        return from_spec(kind, {})
    except InputError as error:
        raise InputError(
            f"Check {number} of checks, {kind!r}, must have parameters: {error} "
            f"Write {KINDS[kind].__name__}(…) of ostinato.checks."
        ) from None


def prompt_of(prompt: str | PromptOf) -> PromptOf:
    """Return a prompt function as it is, or that of a template."""
    if not isinstance(prompt, str):
        fix = 'Write for example prompt="Answer: {message}".'
        require(callable(prompt), "prompt", "a template or a function", prompt, fix)
        return prompt
    parsed = Template(prompt)  # raises for a wrong template here, not at the first item

    def fill(row: Row, edits: Mapping[str, object]) -> str | Sequence[Message]:
        text = parsed.fill(row)
        feedback = edits.get("feedback")
        if not isinstance(feedback, Mapping):
            return text
        return with_feedback([{"role": "user", "content": text}], feedback)

    return fill


def usable_prompt(prompt: PromptOf, checks: Sequence[Check]) -> PromptOf:
    """Return a prompt function that raises `ItemError` for an item or prompt of no use."""

    def checked(row: Row, edits: Mapping[str, object]) -> str | Sequence[Message] | TokenPrompt:
        refuse_unusable(row, checks)
        made = prompt(row, edits)
        if half := half_character(made):  # of a prompt function's own
            raise ItemError(f"The prompt must hold whole characters, got half of one, {half}.")
        return made

    return checked


def require_columns(
    items: Sequence[tuple[str, Row]], prompt: str | PromptOf, checks: Sequence[Check]
) -> None:
    """Raise `InputError` for the first item without a column that the prompt or a check needs."""
    needed = dict.fromkeys(Template(prompt).columns if isinstance(prompt, str) else (), "prompt")
    for check in checks:
        for column in check.columns if isinstance(check, BaseCheck) else ():
            needed.setdefault(column, f"check {check.name!r}")
    for number, (_, row) in enumerate(items, 1):
        for column, user in needed.items():
            if column not in row:
                raise InputError(
                    f"Item {number} must have the column {column!r}, which the {user} needs, got "
                    f"{', '.join(map(repr, row)) or 'none'}.{did_you_mean(column, map(str, row))}"
                )


def keyed(items: Iterable[Row | tuple[str, Row]]) -> list[tuple[str, Row]]:
    """Give each item a key: its own, its `id`, or the hash of its content and its occurrence.

    Raises `InputError` with the item's number, from 1.
    """
    fix = "Write for example [{'message': …}]."
    alone = isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable)
    require(not alone, "items", "a list of mappings of columns", items, fix)
    pairs = [_pair(number, item) for number, item in enumerate(items, 1)]
    if not pairs:
        raise InputError("Refine must have at least one item, got none. Add one.")
    hashes = content_keys([row for _, row in pairs])
    keys = [hashed if key is None else key for (key, _), hashed in zip(pairs, hashes, strict=True)]
    seen: dict[str, int] = {}
    for number, key in enumerate(keys, 1):
        if key in seen:
            raise InputError(
                f"The id of item {number} must be unique, got {key!r}, which item {seen[key]} has. "
                "Change one."
            )
        seen[key] = number
    return [(key, row) for key, (_, row) in zip(keys, pairs, strict=True)]


def _pair(number: int, item: object) -> tuple[str | None, Row]:
    """Return an item's own key, None if it has none, and its columns."""
    pair = isinstance(item, tuple) and len(item) == 2
    key, row = item if isinstance(item, tuple) and pair else (None, item)
    if not isinstance(row, Mapping):
        raise InputError(
            f"Item {number} must be a mapping of columns, or a pair (key, mapping), got "
            f"{item!r:.60}. Write for example {{'message': …}}."
        )
    if not pair and "id" not in row:
        return None, row
    key = key if pair else row["id"]
    if isinstance(key, bool) or not isinstance(key, str | int) or not str(key).strip():
        fix = "Set a key" if pair else "Set one, or leave 'id' out"
        raise InputError(
            f"The {'key' if pair else 'id'} of item {number} must be a text or a whole number, "
            f"got {key!r}. {fix}."
        )
    return str(key), row


# What results depend on --------------------------------------------------------------------------


def check_value(check: Check) -> list[object]:
    """Return what verdicts depend on: a check's table, and the source of a function's module."""
    if not isinstance(check, BaseCheck):
        return [check.name, module_source(type(check))]
    # Through JSON, as a table holds paths and tuples, which a hash cannot.
    spec = json.loads(json.dumps(to_spec(check), default=str))
    return [spec, module_source(check.function)] if isinstance(check, Function) else [spec]


def strategy_value(strategy: Strategy) -> list[object]:
    """Return what a strategy's answers depend on."""
    return [strategy.kind, {f.name: getattr(strategy, f.name) for f in fields(strategy)}]


def module_source(function: object) -> str:
    """Return the source of a function's module; empty where there is none.

    The whole module: the function may call others in it.
    """
    try:
        module = inspect.getmodule(function)
        return inspect.getsource(module) if module else ""
    except (OSError, TypeError):
        return ""
