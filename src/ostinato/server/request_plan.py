"""What the choices of a request share: checks, strategy, and the constraint on their tokens.

Made when a request arrives, not in the generating thread: compiling a constraint takes time, and
every other request would wait. Knows no connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from ostinato.arguments import counted
from ostinato.checks import BaseCheck, JsonSchema, limited
from ostinato.decode import ConstrainedState, Constraint
from ostinato.errors import InputError, ItemError, MissingExtra
from ostinato.models import LanguageModel, Tokenizer
from ostinato.refine import Backtrack, Strategy, constraint_of, fitting
from ostinato.server.body_fields import RequestError
from ostinato.server.protocol import ApiRequest
from ostinato.server.response_format import FIELD

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """The operator's checks and strategy, for requests that set none."""

    checks: tuple[BaseCheck, ...] = ()
    strategy: Strategy | None = None


@dataclass(frozen=True, kw_only=True)
class RequestPlan:
    """How a request is answered. `checks` end with its schema; `strategy` is None without other
    checks.
    """

    checks: tuple[BaseCheck, ...]
    strategy: Strategy | None
    constraint: Constraint | None


def in_time(make: Callable[[], T], seconds: float) -> T:
    """Return `make()`. Raises `RequestError` after `seconds`.

    The thread may continue after that. The size of what a request can compile is bounded, so its
    time is, too.
    """
    try:
        return cast(T, limited(make, seconds))
    except TimeoutError:
        raise RequestError(
            400,
            "The checks and the response_format must be compiled within "
            f"{counted(seconds, 'seconds', 'g')}, and "
            "were not. Use simpler patterns and schemas, or fewer.",
            "checks",
        ) from None


def plan(body: ApiRequest, defaults: Defaults, model: LanguageModel, room: int) -> RequestPlan:
    """Return how a request is answered in at most `room` tokens.

    Raises `RequestError` for a combination that cannot be served.
    """
    checks = defaults.checks if body.checks is None else body.checks
    strategy = body.strategy or defaults.strategy or Backtrack()
    _refuse_with_checks(body, checks)
    _refuse_columns(body.columns or {}, checks)
    if checks and strategy.gives_feedback and model.tokenizer.chat_template is None:
        raise RequestError(
            400,
            f"The model must have a chat template for the strategy {strategy.kind!r}, got "
            f"{model.name!r}. Use another strategy.",
            "strategy",
        )
    constraint = None
    # The schema wins: a mask follows one grammar. The checks then act through the strategy.
    if body.response_format is not None:
        constraint = schema_constraint(body.response_format, model.tokenizer, room)
    elif strategy.masks:
        constraint = _check_constraint(body, checks, model.tokenizer, room)
    schema = () if body.response_format is None else (body.response_format,)
    # Without checks nothing is taken back, so the text can be streamed as it comes.
    return RequestPlan(
        checks=(*checks, *schema), strategy=strategy if checks else None, constraint=constraint
    )


def schema_constraint(schema: JsonSchema, tokenizer: Tokenizer, room: int) -> Constraint:
    """Return the constraint of a schema that a text of `room` tokens can match.

    Raises `RequestError` if none can, or if llguidance cannot follow the schema or is missing.
    """
    try:
        constraint = Constraint.json_schema(schema.schema or {})
        # Raises if no text of `room` tokens matches.
        ConstrainedState(constraint, tokenizer, room)
    except (InputError, ItemError) as error:
        raise RequestError(400, f"{FIELD!r} cannot be followed: {error}", FIELD) from None
    return constraint


def _check_constraint(
    body: ApiRequest, checks: Sequence[BaseCheck], tokenizer: Tokenizer, room: int
) -> Constraint | None:
    """Return the constraint of the checks that can be written as a language.

    If no text of `room` tokens matches it, it keeps no room to close. Without such a check, the
    operator's strategy acts alone, and the strategy of a request is refused.
    """
    try:
        found = constraint_of(checks, body.columns or {}, tokenizer).constraint
    except MissingExtra as error:
        raise RequestError(400, f"'strategy' cannot be followed: {error}", "strategy") from None
    if found is None and body.strategy is not None:
        raise RequestError(
            400,
            "The strategy 'constrain' must have a check that can be written as a language, got "
            "none. Add one (regex, choice, json_schema, contains, …), or use backtrack.",
            "strategy",
        )
    return found and fitting(found, tokenizer, room)


def _refuse_columns(columns: Mapping[str, object], checks: Sequence[BaseCheck]) -> None:
    # Refused now: else the check would fail with an error at every judgment.
    missing = [name for check in checks for name in check.columns if name not in columns]
    if missing:
        raise RequestError(
            400,
            f"'columns' must hold {missing[0]!r}, which a check reads, got "
            f"{', '.join(columns) or 'none'}. Add it.",
            "columns",
        )


def _refuse_with_checks(body: ApiRequest, checks: Sequence[BaseCheck]) -> None:
    """Raise `RequestError` for options that an answer with checks cannot have."""
    if checks and body.logprobs:
        raise RequestError(
            400,
            "'logprobs' must be left out with checks: which tokens stay is known only at the end.",
            "logprobs",
        )
    if body.prefill and (checks or body.response_format is not None):
        raise RequestError(
            400,
            "'continue_final_message' must be left out with checks and response_format: they judge "
            "whole answers.",
            "continue_final_message",
        )
