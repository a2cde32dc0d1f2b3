"""Any Python function as a check, with or without a verdict on beginnings."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, overload

from ostinato.checks.base import CERTAIN, POSSIBLE, BaseCheck
from ostinato.errors import InputError
from ostinato.loop import Item, PrefixStatus, PrefixVerdict, Span, Verdict

Call = Callable[..., object]


class Retry(Exception):
    """Raised by a check's function: the output does not pass, and why."""


@dataclass(frozen=True, kw_only=True)
class Function(BaseCheck):
    """A function of the output, or of the output and the item.

    It returns a bool, a score in [0, 1] (passed from `threshold` on), a pair of either and a
    reason, or a `Verdict`; or it raises `Retry("why")`. `prefix` is called with a beginning and
    returns False or a reason where nothing can repair it, a pair of those, an `PrefixStatus` or a
    `PrefixVerdict`; None or True say nothing.
    """

    kind: ClassVar[str] = "python"
    trusted: ClassVar[bool] = False

    function: Call = field(repr=False)
    prefix: Call | None = field(default=None, repr=False)
    threshold: float = 0.5
    call: str = ""
    _pair: bool = field(init=False, repr=False, compare=False)
    _prefix_pair: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", getattr(self.function, "__name__", "python"))
        if not 0 <= self.threshold <= 1:
            raise self.refuse("threshold", "in [0, 1]", self.threshold, "A score is in [0, 1].")
        object.__setattr__(self, "_pair", self._takes_item(self.function))
        pair = self.prefix is not None and self._takes_item(self.prefix)
        object.__setattr__(self, "_prefix_pair", pair)

    def __call__(self, *args: object) -> object:
        """Call the function itself."""
        return self.function(*args)

    def judge(self, output: object, item: Item) -> Verdict:
        """Call the function; what it returns in vain is an error of the check."""
        try:
            result = self.function(output, item) if self._pair else self.function(output)
        except Retry as retry:
            return self.verdict(False, str(retry) or "Write it again.")
        return self._verdict_of(result)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Call the prefix function, if there is one."""
        if self.prefix is None:
            return POSSIBLE
        whole = Span(0, len(output)) if isinstance(output, str) else None
        try:
            result = self.prefix(output, item) if self._prefix_pair else self.prefix(output)
        except Retry as retry:
            return PrefixVerdict(PrefixStatus.IMPOSSIBLE, str(retry), whole)
        return _prefix_verdict_of(result, whole)

    def _takes_item(self, function: Call) -> bool:
        """Whether the function takes the item too. Raises `InputError` for other arguments."""
        if not callable(function):
            raise self.refuse("function", "callable", function, "Give a function.")
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some builtins have none
            return False
        for count in (2, 1):
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
            return self._checked(result)
        reason = ""
        if isinstance(result, tuple) and len(result) == 2:
            result, why = result
            reason = "" if why is None else str(why)
        value = _scalar(result)
        if value is None:
            return self.error(
                f"A check's function must return a bool, a score in [0, 1], a pair with a reason "
                f"or a Verdict, got {_shown(result)}. Return one of these."
            )
        if not 0 <= value <= 1:  # also where it is not a number
            return self.error(f"A score must be in [0, 1], got {value!r}. Scale it.")
        passed = value >= self.threshold if not isinstance(value, bool) else value
        return self.verdict(passed, reason or self._default_reason(value), float(value))

    def _checked(self, verdict: Verdict) -> Verdict:
        if not verdict.error and not (math.isfinite(verdict.score) and 0 <= verdict.score <= 1):
            return self.error(f"A score must be in [0, 1], got {verdict.score!r}. Scale it.")
        return verdict

    def _default_reason(self, value: float) -> str:
        if isinstance(value, bool):
            return f"The check '{self.name}' does not hold."
        return f"The score of '{self.name}' is {value:.2f}, at least {self.threshold:g} is wanted."


def _wants_two(signature: inspect.Signature) -> bool:
    """Whether two arguments are what the function is for: none of the two has a default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = [p for p in signature.parameters.values() if p.kind in kinds]
    second = places[1] if len(places) > 1 else None
    return second is not None and (second.default is second.empty or second.name == "item")


def _scalar(value: object) -> bool | float | None:
    """Return a bool or a number, out of an array of one element too; None for anything else."""
    if not isinstance(value, bool | Real) and callable(getattr(value, "item", None)):
        try:
            value = value.item()  # type: ignore[attr-defined]
        except (TypeError, ValueError, RuntimeError):
            return None
    if isinstance(value, bool):
        return value
    return float(value) if isinstance(value, Real) else None


def _shown(value: object) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")


def _prefix_verdict_of(result: object, whole: Span | None) -> PrefixVerdict:
    reason = ""
    if isinstance(result, PrefixVerdict):
        return result
    if isinstance(result, tuple) and len(result) == 2:
        result, why = result
        reason = "" if why is None else str(why)
    if isinstance(result, PrefixStatus):
        return {
            PrefixStatus.CERTAIN: CERTAIN,
            PrefixStatus.POSSIBLE: POSSIBLE,
            PrefixStatus.IMPOSSIBLE: PrefixVerdict(PrefixStatus.IMPOSSIBLE, reason, whole),
        }[result]
    if isinstance(result, str) and result:
        return PrefixVerdict(PrefixStatus.IMPOSSIBLE, result, whole)
    if result is None or isinstance(result, str) or _scalar(result):
        return POSSIBLE
    if _scalar(result) is None:
        raise InputError(
            f"A prefix function must return a bool, a reason, a PrefixStatus or a PrefixVerdict, got "
            f"{_shown(result)}. Return one of these."
        )
    return PrefixVerdict(PrefixStatus.IMPOSSIBLE, reason or "No continuation can pass.", whole)


@overload
def check(function: Call, /) -> Function: ...
@overload
def check(
    *, name: str = "", threshold: float = 0.5, prefix: Call | None = None
) -> Callable[[Call], Function]: ...
def check(function: Call | None = None, /, **options: Any) -> Function | Callable[[Call], Function]:
    """Make a function a check: `@check`, or `@check(name="polite", threshold=0.8)`."""
    if function is not None:
        return Function(function=function)
    return lambda given: Function(function=given, **options)
