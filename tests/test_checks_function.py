"""Python functions as checks, and many checks run on one output."""

from __future__ import annotations

import re
import time

import pytest
import torch

from ostinato.checks import Function, Length, Retry, check, check_prefix_all, judge_all
from ostinato.errors import InputError
from ostinato.loop import Item, PrefixStatus, PrefixVerdict, Span, Verdict


@pytest.mark.parametrize(
    ("result", "passed", "score"),
    [
        (True, True, 1.0),
        (False, False, 0.0),
        (0.5, True, 0.5),
        (0.25, False, 0.25),
        ((0.25, "why"), False, 0.25),
        ((True, None), True, 1.0),
        (torch.tensor(0.75), True, 0.75),
        (torch.tensor(False), False, 0.0),
        (Verdict("mine", True, 0.9), True, 0.9),
    ],
)
def test_what_a_function_returns_becomes_a_verdict(
    result: object, passed: bool, score: float
) -> None:
    verdict = Function(function=lambda text: result, name="f").judge("x", {})
    assert (verdict.passed, verdict.score, verdict.error) == (passed, score, "")


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (1.5, r"A score must be in \[0, 1\], got 1.5"),
        (float("nan"), r"A score must be in \[0, 1\], got nan"),
        (None, "got NoneType"),
        ("yes", "got str"),
        (torch.zeros(2, 3), r"got Tensor of shape \(2, 3\)"),
        (Verdict("mine", True, 2.0), r"A score must be in \[0, 1\], got 2.0"),
    ],
)
def test_another_result_is_an_error_of_the_check(result: object, sentence: str) -> None:
    verdict = Function(function=lambda text: result, name="f").judge("x", {})
    assert not verdict.passed
    assert re.search(sentence, verdict.error)


def test_retry_says_why() -> None:
    @check(name="polite")
    def polite(text: str, item: Item) -> bool:
        if str(item["name"]) not in text:
            raise Retry(f"Say {item['name']}.")
        return True

    assert polite.judge("Hello", {"name": "Ann"}) == Verdict("polite", False, 0.0, "Say Ann.")
    assert polite.judge("Hello Ann", {"name": "Ann"}).passed


def test_a_prefix_function_gives_a_prefix_verdict() -> None:
    def judged(results: object) -> PrefixVerdict:
        function = Function(function=bool, prefix=lambda text: results, name="f")
        return function.check_prefix("abc", {})

    impossible = PrefixVerdict(PrefixStatus.IMPOSSIBLE, "why", Span(0, 3))
    assert judged((False, "why")) == judged("why") == impossible
    assert judged((PrefixStatus.IMPOSSIBLE, "why")) == impossible
    assert judged(False).status is PrefixStatus.IMPOSSIBLE
    assert judged(True).status is judged(None).status is PrefixStatus.POSSIBLE
    assert judged(PrefixStatus.CERTAIN).status is PrefixStatus.CERTAIN


def test_a_function_with_other_arguments_is_refused() -> None:
    with pytest.raises(InputError, match=r"callable with \(text\) or \(text, item\)"):
        Function(function=lambda: True)


def test_a_check_that_raises_or_hangs_is_an_error_and_the_others_judge() -> None:
    def hang(text: str) -> bool:
        time.sleep(5)
        return True

    checks = [
        Function(function=lambda text: 1 / 0, name="raises"),
        Function(function=hang),
        Length(max=3),
        Length(max=3, unit="tokens"),
    ]
    began = time.monotonic()
    raised, hung, passed, unknown = judge_all(checks, "one two", {}, time_limit=0.05)
    assert time.monotonic() - began < 2
    assert raised.error.startswith("The check raised ZeroDivisionError: division by zero. If the ")
    assert hung.error == "The check must judge within 0.05 seconds, and did not."
    assert passed.passed
    assert unknown.error
    assert not (raised.passed or hung.passed or unknown.passed)


def test_an_output_that_is_no_text_is_an_error_of_a_check_of_texts() -> None:
    [verdict] = judge_all([Length(max=3)], torch.zeros(2), {})
    assert "must be a text, got Tensor" in verdict.error


def test_the_first_impossible_check_is_found_on_a_prefix() -> None:
    raising = Function(function=bool, prefix=lambda text: 1 / 0, name="raises")
    checks = [raising, Length(max=9), Length(max=1), Length(max=0)]
    found = check_prefix_all(checks, "one two", {})
    assert found is not None
    assert found[0] is checks[2]
    assert found[1].span == Span(4, 7)
    assert check_prefix_all(checks[:2], "one two", {}) is None


def test_a_check_that_hangs_on_a_prefix_costs_its_time_limit_once() -> None:
    calls = []

    def hang(text: str) -> bool:
        calls.append(text)
        time.sleep(2)
        return True

    checks = [Function(function=bool, prefix=hang, name="slow"), Length(max=2)]
    late: set[str] = set()
    with pytest.warns(
        UserWarning, match="'slow' must judge a prefix within 0.05 seconds"
    ) as warned:
        for text in ("one", "one two", "one two three"):
            found = check_prefix_all(checks, text, {}, 0.05, late)
    assert calls == ["one"] and late == {"slow"} and len(warned) == 1
    assert found is not None and found[0] is checks[1]
