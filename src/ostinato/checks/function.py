"""Any Python function as a check, with or without a prefix verdict."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, overload

from ostinato.arguments import require_types
from ostinato.checks.base import POSSIBLE, BaseCheck
from ostinato.errors import InputError
from ostinato.loop import Item, PrefixStatus, PrefixVerdict, Span, Verdict

Call = Callable[..., object]

NOT_IN_JOBS = {"not_in_jobs": True}
"""Metadata of a dataclass field that no job file can spell."""


class Retry(Exception):
    """Raised by a check's function: the output does not pass, and the message says why."""


@dataclass(frozen=True, kw_only=True)
class Function(BaseCheck):
    """A function of the output, or of the output and the item.

    `function` returns a bool, a score in [0, 1] (which passes from `threshold` on), a pair of
    either and a reason, or a `Verdict`. It may also raise `Retry("why")`. `prefix` gets a prefix of
    the output. Where no continuation can pass, it returns False, a reason, or a pair of both; where
    one may, None or True. It may also return a `PrefixStatus` or a `PrefixVerdict`.
    """

    kind: ClassVar[str] = "python"
    trusted: ClassVar[bool] = False

    function: Call = field(repr=False, metadata=NOT_IN_JOBS)
    prefix: Call | None = field(default=None, repr=False, metadata=NOT_IN_JOBS)
    threshold: float = 0.5
    call: str = ""
    _pair: bool = field(init=False, repr=False, compare=False)
    _prefix_pair: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_types(self, f"'{{}}' of the check '{self.name or self.kind}'")
        if not self.name:
            object.__setattr__(self, "name", getattr(self.function, "__name__", "python"))
        if not 0 <= self.threshold <= 1:
            raise self.refuse("threshold", "in [0, 1]", self.threshold, "Scores are in [0, 1].")
        object.__setattr__(self, "_pair", self._takes_item(self.function))
        pair = self.prefix is not None and self._takes_item(self.prefix)
        object.__setattr__(self, "_prefix_pair", pair)

    def __call__(self, *args: object) -> object:
        """Call the function itself."""
        return self.function(*args)

    def judge(self, output: object, item: Item) -> Verdict:
        """Call the function; a result of another type is an error of the check."""
        try:
            result = self.function(output, item) if self._pair else self.function(output)
        except Retry as retry:
            return self.verdict(False, str(retry) or "Write it again.")
        return self._verdict_of(result)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Call the prefix function. Raises `InputError` for a result of another type."""
        if self.prefix is None:
            return POSSIBLE
        whole = Span(0, len(output)) if isinstance(output, str) else None
        try:
            result = self.prefix(output, item) if self._prefix_pair else self.prefix(output)
        except Retry as retry:
            return PrefixVerdict(PrefixStatus.IMPOSSIBLE, str(retry), whole)
        if isinstance(result, PrefixVerdict):
            return result
        status, reason = _prefix_status(result)
        if status is PrefixStatus.IMPOSSIBLE:
            return PrefixVerdict(status, reason or "No continuation can pass.", whole)
        return PrefixVerdict(status)

    def _takes_item(self, function: Call) -> bool:
        """Whether the function takes the item too. Raises `InputError` for another signature."""
        if not callable(function):
            raise self.refuse("function", "callable", function, "Pass a function.")
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some builtins have no signature
            return False
        for count in (2, 1):  # two first: a default fits both, and `_wants_two` decides
            try:
                signature.bind(*[None] * count)
            except TypeError:
                continue
            return count == 2 and _wants_two(signature)
        raise self.refuse(
            "function", "callable with (text) or (text, item)", str(signature), "Change it."
        )

    def _verdict_of(self, result: object) -> Verdict:
        if isinstance(result, Verdict):
            in_range = math.isfinite(result.score) and 0 <= result.score <= 1
            return result if result.error or in_range else self._out_of_range(result.score)
        result, reason = _with_reason(result)
        value = _scalar(result)
        if value is None:
            return self.error(
                f"A check's function must return a bool, a score in [0, 1], a pair with a reason "
                f"or a Verdict, got {_type_of(result)}. Return one of these."
            )
        if not 0 <= value <= 1:  # also if it is NaN
            return self._out_of_range(value)
        passed = value if isinstance(value, bool) else value >= self.threshold
        return self.verdict(passed, reason or self._default_reason(value), float(value))

    def _out_of_range(self, score: float) -> Verdict:
        return self.error(f"A score must be in [0, 1], got {score!r}. Scale it.")

    def _default_reason(self, value: float) -> str:
        if isinstance(value, bool):
            return f"The check '{self.name}' does not hold."
        return f"The score of '{self.name}' is {value:.2f}, at least {self.threshold:g} is wanted."


def _wants_two(signature: inspect.Signature) -> bool:
    """Whether a function of two arguments means the second one for the item.

    It does if that has no default or is called `item`: `def f(text, limit=3)` takes a text only.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in signature.parameters.values() if p.kind in kinds]
    second = positional[1] if len(positional) > 1 else None
    return second is not None and (second.default is second.empty or second.name == "item")


def _with_reason(result: object) -> tuple[object, str]:
    """Split a pair of a result and a reason; any other result has no reason."""
    if isinstance(result, tuple) and len(result) == 2:
        return result[0], "" if result[1] is None else str(result[1])
    return result, ""


def _scalar(value: object) -> bool | float | None:
    """Return a bool or a number, also from an array of one element; None for anything else."""
    if not isinstance(value, bool | Real) and callable(getattr(value, "item", None)):
        try:
            value = value.item()  # type: ignore[attr-defined]
        except (TypeError, ValueError, RuntimeError):
            return None
    if isinstance(value, bool):
        return value
    return float(value) if isinstance(value, Real) else None


def _type_of(value: object) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")


def _prefix_status(result: object) -> tuple[PrefixStatus, str]:
    """Return the status and reason of what a prefix function returned."""
    result, reason = _with_reason(result)
    match result:
        case PrefixStatus():  # before `str`, which it is too
            return result, reason
        case str():
            return (PrefixStatus.IMPOSSIBLE if result else PrefixStatus.POSSIBLE), result
        case None:
            return PrefixStatus.POSSIBLE, ""
    value = _scalar(result)
    if value is None:
        raise InputError(
            "A prefix function must return a bool, a reason, a PrefixStatus or a PrefixVerdict, "
            f"got {_type_of(result)}. Return one of these."
        )
    return (PrefixStatus.POSSIBLE, "") if value else (PrefixStatus.IMPOSSIBLE, reason)


@overload
def check(function: Call, /) -> Function: ...
@overload
def check(
    *, name: str = "", threshold: float = 0.5, prefix: Call | None = None
) -> Callable[[Call], Function]: ...
def check(function: Call | None = None, /, **options: Any) -> Function | Callable[[Call], Function]:
    """Turn a function into a check: `@check`, or `@check(name="polite", threshold=0.8)`."""
    if function is not None:
        return Function(function=function)
    return lambda decorated: Function(function=decorated, **options)
