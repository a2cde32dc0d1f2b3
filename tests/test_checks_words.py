"""Checks of length and of words: verdicts and prefix verdicts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostinato.checks import Contains, Excludes, Length, Regex
from ostinato.checks.patterns import finder
from ostinato.errors import InputError
from ostinato.loop import PrefixStatus, RequiredText, Span, Text


def test_the_message_says_how_much_to_cut_and_where() -> None:
    verdict = Length(max=2).judge("one two three four", {})
    assert not verdict.passed
    assert verdict.score == 0.5
    assert verdict.message == "Cut 2 words: the text has 4, at most 2 are allowed."
    assert verdict.span == Span(8, 18)


def test_the_message_says_how_much_to_add() -> None:
    verdict = Length(min=3).judge("one two", {})
    assert verdict.message == "Add 1 word: the text has 2, at least 3 are wanted."


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("Hello", 1),
        ("Hello. ", 1),
        ("It is 4.00. Fine! Really?", 3),
        ("We open at 9 a.m. on Friday. Come.", 2),
        ("Ask for Dr. Smith.", 1),
        ('He said "Yes." Then he left.', 2),
        ("你好。再见！", 2),
    ],
)
def test_sentences_are_counted_as_a_reader_would(text: str, count: int) -> None:
    assert Length(min=count, max=count, unit="sentences").judge(text, {}).passed


def test_tokens_are_counted_without_the_end_of_text_and_need_a_generated_text() -> None:
    check = Length(max=1, unit="tokens")
    assert check.judge(Text("hello", [5, 2], [0, 5], [-1, -1], ended=True), {}).passed
    assert "ostinato.loop.Text" in check.judge("hello", {}).error


def test_length_is_impossible_at_the_surplus_word_and_certain_without_a_maximum() -> None:
    verdict = Length(max=2).check_prefix("one two thr", {})
    assert verdict.status is PrefixStatus.IMPOSSIBLE
    assert verdict.span == Span(8, 11)
    assert Length(max=2).check_prefix("one tw", {}).status is PrefixStatus.POSSIBLE
    assert Length(min=2).check_prefix("one tw", {}).status is PrefixStatus.CERTAIN


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min": 3, "max": 2}, r"'min' of the check 'length' must be at most max \(2\), got 3"),
        ({}, "must be given, or 'max', got None"),
        ({"max": -1}, "must be 0 or more, got -1"),
        (
            {"max": 1, "unit": "lines"},
            "'words' or 'characters' or 'sentences' or 'tokens', got 'lines'",
        ),
    ],
)
def test_lengths_that_make_no_sense_are_refused(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Length(**parameters)  # type: ignore[arg-type]


def test_a_missing_text_is_named_and_required() -> None:
    check = Contains(column="asked")
    item = {"asked": ["8 am", "8:00 am"]}
    verdict = check.judge("We open at 8 amber.", item)
    assert verdict.message == 'Say "8 am" or "8:00 am": it is missing.'
    assert check.required_text("We open", item) == RequiredText(("8 am", "8:00 am"))
    assert check.judge("We open at 8  AM.", item).passed
    assert check.required_text("We open at 8 AM.", item) is None


def test_all_the_texts_are_needed_in_mode_all() -> None:
    check = Contains(texts=("name", "city"), patterns=(r"\d+",), mode="all")
    verdict = check.judge("Your name?", {})
    assert verdict.score == pytest.approx(1 / 3)
    assert verdict.message == (
        'Say "city": it is missing. Say something that matches \\d+: it is missing.'
    )
    assert check.judge("Name 1, city 2", {}).passed
    assert check.required_text("Your name", {}) == RequiredText(("city",))
    assert check.required_text("name, city", {}) is None


def test_a_required_word_is_certain_only_when_nothing_can_extend_it() -> None:
    check = Contains(texts=("8 am",))
    assert check.check_prefix("at 8 am", {}).status is PrefixStatus.POSSIBLE
    assert check.check_prefix("at 8 am.", {}).status is PrefixStatus.CERTAIN
    assert Contains(patterns=(r"8 am\b",)).check_prefix("8 am.", {}).status is PrefixStatus.CERTAIN
    assert Contains(patterns=(r"8 am$",)).check_prefix("8 am", {}).status is PrefixStatus.POSSIBLE


def test_an_item_with_an_empty_column_passes() -> None:
    check = Contains(column="asked")
    nothing: object
    for nothing in (None, "", []):
        assert check.judge("Hello", {"asked": nothing}).passed
        assert check.check_prefix("Hel", {"asked": nothing}).status is PrefixStatus.CERTAIN


def test_a_column_is_needed_by_name_and_must_hold_texts() -> None:
    check = Contains(column="asked")
    assert check.columns == ("asked",)
    with pytest.raises(InputError, match="column 'asked' of the check 'contains' must be in every"):
        check.judge("Hello", {"message": "x"})
    with pytest.raises(InputError, match="must hold a text or a list of texts"):
        check.judge("Hello", {"asked": {"a": 1}})


def test_a_forbidden_word_is_impossible_once_the_word_has_ended() -> None:
    check = Excludes(texts=("ass",))
    assert check.check_prefix("You ass", {}).status is PrefixStatus.POSSIBLE
    verdict = check.check_prefix("You ass!", {})
    assert verdict.status is PrefixStatus.IMPOSSIBLE
    assert verdict.span == Span(4, 7)
    assert check.judge("We assist.", {}).passed
    ahead = check.judge("You Ass", {})
    assert ahead.message == 'Leave out "Ass": it is not allowed.'
    assert ahead.span == Span(4, 7)


def test_a_forbidden_part_of_a_word_is_impossible_at_once() -> None:
    check = Excludes(texts=("ass",), whole=False)
    assert check.check_prefix("You ass", {}).span == Span(4, 7)
    assert (
        Excludes(patterns=(r"\d{3}",)).check_prefix("at 123", {}).status is PrefixStatus.IMPOSSIBLE
    )


def test_patterns_that_do_not_compile_are_refused() -> None:
    with pytest.raises(InputError, match=r"pattern of the check 'contains' must be a regular"):
        Contains(patterns=("(",))
    with pytest.raises(InputError, match=r"must be a regular expression, got '\['"):
        Regex(pattern="[")
    with pytest.raises(InputError, match=r"'pattern' .* must be a pattern that is not empty"):
        Regex(pattern="")
    with pytest.raises(InputError, match="must be texts that are not empty"):
        Excludes(texts=("",))


def test_a_whole_pattern_is_impossible_where_the_text_leaves_it() -> None:
    check = Regex(pattern=r"Order \d{4} is (ready|late)\.")
    assert check.check_prefix("Order 12", {}).status is PrefixStatus.POSSIBLE
    verdict = check.check_prefix("Order 12x", {})
    assert verdict.status is PrefixStatus.IMPOSSIBLE
    assert verdict.span == Span(8, 9)
    assert check.judge("Order 1234 is late.", {}).passed
    assert check.judge("Order 1234 is", {}).span is None


def test_a_text_that_takes_a_pattern_too_long_has_not_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ostinato.checks.regex_check.JUDGE_SECONDS", 0.05)
    check = Regex(pattern=r"(?:a|a|aa)+\d\b")
    verdict = check.judge("a" * 60 + "!", {})
    assert not verdict.passed and not verdict.error
    assert "the pattern had no answer within 0.05 s" in verdict.message


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.lists(
        st.sampled_from(
            ["ass", "ASS", "ist", "'", "it'S", "hel", "", "Lo", ".", "8", "8,", "80", "\n"]
        ),
        max_size=8,
    )
)
def test_a_match_in_ascii_is_found_alike_by_both_libraries(pieces: list[str]) -> None:
    text = "".join(pieces)
    found = finder(("ass", "it's", "hel*lo", "k", "8", "hel*"), wild=True)
    assert found.texts is not None and found.texts.ascii is not None
    for quick, slow in zip(found.texts.ascii, found.texts.any_text, strict=True):
        matches = [pattern.search(text.lower()) for pattern in (quick, slow)]
        assert len({match and match.span() for match in matches}) == 1
