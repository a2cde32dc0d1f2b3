"""Reads conditions in their Python spelling: parsed, never evaluated."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Sequence

from ostinato.arguments import did_you_mean, require_type
from ostinato.errors import InputError
from ostinato.loop.conditions.base import AllOf, AnyOf, Condition, Never, State
from ostinato.loop.conditions.budgets import Budget, Epochs, Seconds, Steps
from ostinato.loop.conditions.duel import ModeCollapse, Overpowered
from ostinato.loop.conditions.metrics import (
    Converges,
    Exceeds,
    NoProgress,
    NotFinite,
    Phrase,
    Plateau,
    Reaches,
)

NAMES: dict[str, type[Condition]] = {
    kind.__name__: kind
    for kind in (
        Budget,
        Converges,
        Epochs,
        ModeCollapse,
        Never,
        NoProgress,
        NotFinite,
        Exceeds,
        Overpowered,
        Phrase,
        Plateau,
        Reaches,
        Seconds,
        Steps,
    )
}


RENAMED = {"Past": "Exceeds", "When": "Predicate", "Possible": "StillPassable"}
"""Names of conditions in checkpoints of older versions, with those of today."""


UNLIMITED = "Steps(4611686018427387904)"
"""How checkpoints of older versions spell `Never()`."""


def up_to_date(spelling: str) -> str:
    """Return the spelling of a condition with today's names."""
    spelling = spelling.replace(UNLIMITED, str(Never()))
    return re.sub(rf"\b({'|'.join(RENAMED)})(?=\()", lambda name: RENAMED[name[1]], spelling)


def parse(text: str) -> Condition:
    """Read a condition such as `Steps(1000) | Plateau('loss/valid', patience=5)`.

    Raises `InputError` that names what is not understood.
    """
    require_type("A condition", text, str)
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        fault = error.msg if isinstance(error, SyntaxError) else str(error)
        raise InputError(
            f"The condition {text!r} must be in Python's spelling, got: {fault}. "
            "Write for example Steps(1000) | Plateau('loss/valid')."
        ) from None
    return _condition(tree.body, text)


def transfer_state(spelling: str, state: State, condition: Condition) -> State:
    """Return the first state of another condition: what was spent stays spent.

    `spelling` and `state` are of the condition before. Counters of patience start again.
    """
    try:
        before = list(_leaves(parse(spelling), state))
    except InputError:  # it held a callable, of which only the name is spelled
        before = []
    return condition.wake(_filled(condition, before))


def _leaves(condition: Condition, state: State) -> Iterator[tuple[Condition, State]]:
    if isinstance(condition, AnyOf | AllOf):
        for part, its in zip(condition.conditions, state, strict=True):
            yield from _leaves(part, its)
    else:
        yield condition, state


def _filled(condition: Condition, before: Sequence[tuple[Condition, State]]) -> State:
    if isinstance(condition, AnyOf | AllOf):
        return [_filled(part, before) for part in condition.conditions]
    for old, state in before:
        same = type(old) is type(condition) and condition.spends
        if same and getattr(old, "name", None) == getattr(condition, "name", None):
            return state
    return condition.initial_state()


def _condition(node: ast.expr, text: str) -> Condition:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _condition(node.left, text) | _condition(node.right, text)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
        return _condition(node.left, text) & _condition(node.right, text)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _call(node, node.func.id, text)
    raise InputError(
        f"The condition {text!r} must be made of conditions joined by | and &, "
        f"got {ast.unparse(node)!r}. Conditions are: {', '.join(NAMES)}."
    )


def _call(node: ast.Call, name: str, text: str) -> Condition:
    if name not in NAMES:
        raise InputError(
            f"Unknown condition {name!r}.{did_you_mean(name, NAMES)} "
            f"Conditions are: {', '.join(NAMES)}."
        )
    arguments = [_value(argument, text) for argument in node.args]
    keywords = {word.arg: _value(word.value, text) for word in node.keywords if word.arg}
    known = inspect.signature(NAMES[name])
    try:
        known.bind(*arguments, **keywords)
    except TypeError as error:  # an argument is missing, unknown or too many
        unknown = [key for key in keywords if key not in known.parameters]
        guess = did_you_mean(unknown[0], known.parameters) if unknown else ""
        raise InputError(
            f"{name} in {text!r} must be written as {_usage(NAMES[name])}, got: {error}.{guess}"
        ) from None
    return NAMES[name](*arguments, **keywords)


def _usage(condition: type[Condition]) -> str:
    """Return how a condition is written: `Steps(limit)`."""
    parameters = inspect.signature(condition).parameters.values()
    named = (str(one.replace(annotation=inspect.Parameter.empty)) for one in parameters)
    return f"{condition.__name__}({', '.join(named)})"


def _value(node: ast.expr, text: str) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise InputError(
            f"A value in {text!r} must be a number or a text, got {ast.unparse(node)!r}."
        ) from None
