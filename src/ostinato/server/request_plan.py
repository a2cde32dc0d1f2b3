"""What the choices of a request share: checks, strategy, and what their tokens are held to.

Made where a request comes in, not in the thread that writes: to compile a constraint takes time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from ostinato.checks import BaseCheck, JsonSchema, limited
from ostinato.decode import ConstrainedState, Constraint
from ostinato.errors import InputError, ItemError, MissingExtra
from ostinato.models import LanguageModel, Tokenizer
from ostinato.refine import Backtrack, Strategy, constraint_of, fitting
from ostinato.server.body_fields import RequestError
from ostinato.server.protocol import ApiRequest
from ostinato.server.response_format import FORM

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """The checks and the strategy of requests that name none."""

    checks: tuple[BaseCheck, ...] = ()
    strategy: Strategy | None = None


@dataclass(frozen=True, kw_only=True)
class RequestPlan:
    """How a request is answered. `checks` ends in its form, `strategy` is None without others."""

    checks: tuple[BaseCheck, ...]
    strategy: Strategy | None
    constraint: Constraint | None


def in_time(make: Callable[[], T], seconds: float) -> T:
    """Return what `make` makes of a request. Raises `RequestError` after so many seconds.

    It may go on in its thread: what a request may say is bounded, and so is that.
    """
    try:
        return cast(T, limited(make, seconds))
    except TimeoutError:
        raise RequestError(
            400,
            f"The checks and forms must be ready within {seconds:g} seconds, and are not. Use "
            "simpler patterns and schemas, or fewer.",
            "checks",
        ) from None


def plan(request: ApiRequest, defaults: Defaults, model: LanguageModel, room: int) -> RequestPlan:
    """Return how a request is answered in at most `room` tokens.

    Raises `RequestError` for what cannot be asked for, together or at all.
    """
    checks = defaults.checks if request.checks is None else request.checks
    strategy = request.strategy or defaults.strategy or Backtrack()
    _refuse_with_checks(request, checks)
    _refuse_columns(request.columns or {}, checks)
    if checks and strategy.gives_feedback and model.tokenizer.chat_template is None:
        raise RequestError(
            400,
            f"The strategy {strategy.kind!r} needs a model with a chat template, got "
            f"{model.name!r}. Name another.",
            "strategy",
        )
    constraint = None
    if request.form is not None:
        constraint = held_to_form(request.form, model.tokenizer, room)
    elif strategy.masks:
        constraint = _held_to_checks(request, checks, model.tokenizer, room)
    form = () if request.form is None else (request.form,)
    return RequestPlan(
        checks=(*checks, *form), strategy=strategy if checks else None, constraint=constraint
    )


def held_to_form(form: JsonSchema, tokenizer: Tokenizer, room: int) -> Constraint:
    """Return the constraint of a form, which a text of `room` tokens can meet.

    Raises `RequestError` where none can, and where llguidance cannot follow it or is not there.
    """
    try:
        constraint = Constraint.json_schema(form.schema or {})
        ConstrainedState(constraint, tokenizer, room)
    except (InputError, ItemError) as error:
        raise RequestError(400, f"{FORM!r} cannot be followed: {error}", FORM) from None
    return constraint


def _held_to_checks(
    request: ApiRequest, checks: Sequence[BaseCheck], tokenizer: Tokenizer, room: int
) -> Constraint | None:
    """Return the constraint of the checks that can be said as a language.

    Where no text of `room` tokens is found that meets it, it keeps no room to end. The strategy of
    the one who serves does without where no check can be said so, that of a request is refused.
    """
    try:
        found = constraint_of(checks, request.columns or {}, tokenizer).constraint
    except MissingExtra as error:
        raise RequestError(400, f"'strategy' cannot be followed: {error}", "strategy") from None
    if found is None and request.strategy is not None:
        raise RequestError(
            400,
            "The strategy 'constrain' must have a check that can be said as a language, got none. "
            "Add one (regex, choice, json_schema, contains, …), or use backtrack.",
            "strategy",
        )
    return found and fitting(found, tokenizer, room)


def _refuse_columns(columns: Mapping[str, object], checks: Sequence[BaseCheck]) -> None:
    missing = [name for check in checks for name in check.columns if name not in columns]
    if missing:
        raise RequestError(
            400,
            f"'columns' must hold {missing[0]!r}, which a check reads, got "
            f"{', '.join(columns) or 'none'}. Add it.",
            "columns",
        )


def _refuse_with_checks(request: ApiRequest, checks: Sequence[BaseCheck]) -> None:
    """Raise `RequestError` for what cannot be asked of an answer that has checks."""
    if checks and request.logprobs:
        raise RequestError(
            400,
            "'logprobs' must be left out with checks: what stands is known at the end only.",
            "logprobs",
        )
    if request.begun and (checks or request.form is not None):
        raise RequestError(
            400,
            "'continue_final_message' must be left out with checks and forms: they are of whole "
            "answers.",
            "continue_final_message",
        )
