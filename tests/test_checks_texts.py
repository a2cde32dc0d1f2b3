"""What a text does to a check of ours is a failed verdict; only a broken check is an error."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest
from test_checks_prefix import CHECKS, ITEM, spoken
from tiny import tiny_model

from ostinato.checks import (
    BaseCheck,
    Choice,
    Contains,
    Excludes,
    JsonSchema,
    Regex,
    Retry,
    check,
    check_prefix_all,
    judge_all,
)
from ostinato.checks import patterns as searched
from ostinato.checks import regex_check as matched
from ostinato.decode import Constraint
from ostinato.decode.constrained_state import ConstrainedState
from ostinato.errors import InputError
from ostinato.loop import Verdict
from ostinato.refine.strategies.constrain import constraint_of

TEXTS = {
    "half a character": "half \ud83d of",
    "half in JSON": '{"\\ud83d": "\\ud83d"}',
    "NUL": "a\0b",
    "deep arrays": "[" * 5000 + "]" * 5000,
    "deep objects": '{"a":' * 300 + "1" + "}" * 300,
    "many digits": "1" * 6000,
    "too large": '{"a": 1e400}',
    "many decimals": "0." + "1" * 6000,
    "no time": "99:99 am 32/13/99999 0000-00-00 March 99th half past " + "9" * 40,
    "no price": "$" + "9" * 400 + ".99",
    "other digits": "²³¹ ١٢٣ Ⅳ ½ ௧",
    "only a mark": "\ufeff",
    "signs": "-" * 2000 + "+" + "1-" * 1000,
}


@pytest.mark.parametrize("name", CHECKS)
def test_no_text_breaks_a_check(name: str) -> None:
    for text in TEXTS.values():
        (verdict,) = judge_all([CHECKS[name]], spoken([text]), ITEM)
        assert not verdict.error, verdict
        check_prefix_all([CHECKS[name]], spoken([text]), ITEM)


@pytest.mark.parametrize(
    "slow",
    [
        Regex(pattern="(a|aa)+!$"),
        Contains(patterns=("(a|aa)+!$",)),
        Excludes(patterns=("(a|aa)+!$",)),
        JsonSchema(schema={"pattern": "(a|aa)+!$"}),
    ],
    ids=lambda one: one.kind,
)
def test_a_text_on_which_a_pattern_takes_too_long_has_not_passed(
    slow: BaseCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searched, "JUDGE_SECONDS", 0.05)
    monkeypatch.setattr(matched, "JUDGE_SECONDS", 0.05)
    monkeypatch.setattr("ostinato.checks.json_schema.check.JUDGE_SECONDS", 0.05)
    (verdict,) = judge_all([slow], f'"{"a" * 60}"', {})
    assert not verdict.passed and not verdict.error
    assert verdict.message.startswith("Write ")


@dataclass(frozen=True, kw_only=True)
class Raising(BaseCheck):
    kind = "raising"
    error: Any = None

    def judge(self, output: object, item: object) -> Verdict:
        raise self.error


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (RecursionError("too deep"), False),
        (OverflowError("too large"), False),
        (MemoryError(), False),
        (UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "half"), False),
        (TimeoutError(), False),
        (InputError("the column is missing"), True),
        (TypeError("a bug"), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_a_broken_check_is_an_error(error: Exception, broken: bool) -> None:
    (verdict,) = judge_all([Raising(error=error)], "text", {})
    assert not verdict.passed
    assert bool(verdict.error) == broken
    assert bool(verdict.message) != broken


def test_an_exception_of_a_users_function_is_an_error_that_names_retry() -> None:
    def number(text: str) -> bool:
        return float(text) > 3

    def mended(text: str) -> bool:
        try:
            return float(text) > 3
        except ValueError:
            raise Retry("Write a number.") from None

    broken, failed = judge_all([check(number), check(mended)], "four", {})
    assert broken.error.startswith("The check raised ValueError: could not convert")
    assert "catch it and raise `ostinato.checks.Retry`" in broken.error
    assert (failed.error, failed.message) == ("", "Write a number.")


# Thousands of texts -------------------------------------------------------------------------------

MANY = [f"choice {number * 7919 % 1_000_003} of {number}" for number in range(20_000)]


def test_a_choice_of_thousands_is_searched_not_scanned() -> None:
    choice = Choice(texts=tuple(MANY))
    assert choice.judge(f" {MANY[-1].upper()} ", {}).passed
    assert choice.judge("choice 1", {}).message.endswith("19995 more, nothing else.")
    began = time.process_time()
    for _ in range(100):
        assert choice.check_prefix("  CHOICE 5", {}).status == "possible"
        assert choice.check_prefix(f"{MANY[7]} \n", {}).status == "possible"
        assert choice.check_prefix(f"{MANY[7]} x", {}).span == (0, len(MANY[7]) + 2)
    assert time.process_time() - began < 1  # scanned, it took 2.5 ms each


def test_the_mask_of_a_choice_follows_thousands() -> None:
    tokenizer, texts = tiny_model().tokenizer, MANY[:2100]
    for constraint in (
        Constraint.choice(texts),
        constraint_of([Choice(texts=tuple(texts))], {}, tokenizer).constraint,
        Constraint.json_schema({"enum": texts}),
    ):
        assert constraint is not None
        assert ConstrainedState(constraint, tokenizer, 80).completion is not None
