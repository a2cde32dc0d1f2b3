"""Checks of affixes, blocked words, tone, repetition, confidence and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ostinato.checks import (
    Blocked,
    Confidence,
    EndsWith,
    JsonSchema,
    Repetition,
    Sentiment,
    StartsWith,
    from_spec,
    to_spec,
)
from ostinato.errors import InputError
from ostinato.loop import PrefixStatus, RequiredText, Span, Text


def test_a_start_is_impossible_where_it_deviates() -> None:
    check = StartsWith(texts=("Dear customer", "Hello"))
    assert check.check_prefix(" dea", {}).status is PrefixStatus.POSSIBLE
    assert check.check_prefix("hello, ", {}).status is PrefixStatus.CERTAIN
    ahead = check.check_prefix("Dear friend", {})
    assert ahead.status is PrefixStatus.IMPOSSIBLE
    assert ahead.span == Span(5, 11)
    verdict = check.judge("Hi", {})
    assert verdict.message == 'Begin with "Dear customer" or "Hello".'
    assert check.required_text(" ", {}) == RequiredText(("Dear customer", "Hello"))
    assert check.required_text("Hel", {}) is None


def test_an_end_is_required_until_it_is_there() -> None:
    check = EndsWith(texts=("?",))
    assert check.judge("Anything else? \n", {}).passed
    assert check.judge("No.", {}).message == 'End with "?".'
    assert check.required_text("No.", {}) == RequiredText(("?",))
    assert check.required_text("No?", {}) is None


def test_blocked_words_have_wildcards() -> None:
    check = Blocked(words=("refund*", "credit card", "*bank"))
    for text in ("Refunds?", "a credit  card", "my Sparbank", "I refunded it"):
        verdict = check.judge(text, {})
        assert not verdict.passed
        assert verdict.message.endswith("it is blocked.")
    assert check.judge("nonrefundable credit cards, banks", {}).passed
    assert check.check_prefix("A refund", {}).span == Span(2, 8)
    assert check.check_prefix("A bank", {}).status is PrefixStatus.POSSIBLE
    assert check.check_prefix("A bank.", {}).status is PrefixStatus.IMPOSSIBLE


def test_a_word_list_is_read_from_the_jobs_folder_only(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "blocked.txt").write_text("# money\nrefund*\n\nlawsuit # courts\n")
    (tmp_path / "secret.txt").write_text("x\n")
    check = from_spec("blocked", {"file": "blocked.txt", "words": ["bank"]}, tmp_path / "job")
    assert check == Blocked(words=("bank", "refund*", "lawsuit"))
    assert to_spec(check) == {"kind": "blocked", "words": ["bank", "refund*", "lawsuit"]}
    with pytest.raises(InputError, match=r"inside the job's folder, got '\.\./secret\.txt'"):
        from_spec("blocked", {"file": "../secret.txt"}, tmp_path / "job")
    with pytest.raises(InputError, match=r"file of the check 'blocked' must exist, got 'no.txt'"):
        from_spec("blocked", {"file": "no.txt"}, tmp_path)
    with pytest.raises(InputError, match="must have 'words' or 'file', got none"):
        from_spec("blocked", {})
    with pytest.raises(InputError, match="more than wildcards"):
        Blocked(words=("*",))


def test_the_tone_is_bounded() -> None:
    check = Sentiment(min=0.0, max=0.9)
    assert check.judge("Thank you, I am happy to help.", {}).passed
    verdict = check.judge("This is terrible, you stupid idiot.", {})
    assert not verdict.passed
    assert 0 < verdict.score < 1
    assert verdict.message.startswith("Write it friendlier: the tone is -0.")
    assert "soberer" in Sentiment(max=0.0).judge("Great, wonderful!", {}).message
    with pytest.raises(InputError, match=r"'min' of the check 'sentiment' must be in \[-1, 1\]"):
        Sentiment(min=2)


def test_a_phrase_is_impossible_at_its_surplus_occurrence() -> None:
    check = Repetition(n=2, times=2)
    text = "at 8 am, at 8 pm, at 8"
    assert check.check_prefix(text, {}).status is PrefixStatus.POSSIBLE  # 8 may become 80
    assert check.check_prefix(text + "!", {}).span == Span(18, 22)
    verdict = check.judge(text, {})
    assert verdict.span == Span(18, 22)
    assert verdict.message == 'Do not say "at 8" again: more than 2 times is not allowed.'


def test_a_share_of_repeated_phrases_is_bounded() -> None:
    check = Repetition(n=1, times=None, share=0.25)
    assert check.judge("a b c a", {}).passed
    verdict = check.judge("a b a b", {})
    assert verdict.score == 0.5
    assert verdict.message.startswith("Repeat less: 50% of the phrases of 1 word were said")
    with pytest.raises(InputError, match="given, or 'share'"):
        Repetition(times=None)


def test_confidence_names_the_token_the_model_was_least_sure_of() -> None:
    text = Text("It is five", [1, 2, 3], [0, 3, 6], [-0.1, -0.2, -3.0])
    verdict = Confidence(least=-2).judge(text, {})
    assert verdict.span == Span(6, 10)
    assert verdict.message.startswith('Say something else than "five": its log-probability is -3')
    assert Confidence(least=-2).check_prefix(text, {}).status is PrefixStatus.IMPOSSIBLE
    mean = Confidence(mean=-1).judge(text, {})
    assert not mean.passed
    assert mean.span == Span(6, 10)
    assert Confidence(mean=-1).check_prefix(text, {}).status is PrefixStatus.POSSIBLE
    assert Confidence(mean=-2, least=-4).judge(text, {}).passed
    assert "log-probabilities" in Confidence(mean=-1).judge("It is five", {}).error
    with pytest.raises(InputError, match=r"must be 0 or less, got 0\.5"):
        Confidence(mean=0.5)


SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "n": {"type": "integer", "maximum": 20}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", None),
        (' {"ci', None),
        ('{"city": "Os', None),
        ('{"city": "Oslo", "n": 1', None),
        ('{"city": "Oslo", "n": 30', None),  # 30e-1
        ("Sure", 0),
        ("[", 0),
        ('{"city": "Paris"', 9),
        ('{"town": ', 1),
        ('{"n": 30,', 6),
        ('{"n": 01', 7),
        ('{"city": "Oslo"} Done', 17),
        ('{"city": "Oslo", "city"', 17),
        ('{"city": Oslo', 9),
        ('{"city": nul ', 12),
        ('{"city": "\\x', 11),
        ('{"n": -x', 7),
        ("{,", 1),
    ],
)
def test_json_is_impossible_where_it_departs_from_json_or_the_schema(
    text: str, start: int | None
) -> None:
    verdict = JsonSchema(schema=SCHEMA).check_prefix(text, {})
    if start is None:
        assert verdict.status is PrefixStatus.POSSIBLE, verdict
    else:
        assert verdict.status is PrefixStatus.IMPOSSIBLE
        assert verdict.span is not None
        assert verdict.span.start == start


def test_json_verdicts_say_what_to_fix(tmp_path: Path) -> None:
    (tmp_path / "city.json").write_text(json.dumps(SCHEMA))
    check = from_spec("json_schema", {"file": "city.json"}, tmp_path)
    assert check == JsonSchema(schema=SCHEMA)
    assert from_spec("", to_spec(check)) == check
    assert check.judge('{"city": "Oslo", "n": 3}\n', {}).passed
    verdict = check.judge('{"city": "Oslo", "n": 21}', {})
    assert verdict.message == "Fix n: 21 is greater than the maximum of 20."
    assert verdict.span == Span(22, 24)
    assert "'city' is a required property" in check.judge("{}", {}).message
    assert check.judge("{} x", {}).span == Span(3, 4)
    for text in ("NaN", '{"a": 1, "a": 1}', "[" * 100_000, "1" * 5000):
        assert not JsonSchema(schema={}).judge(text, {}).passed


def test_a_wrong_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'json_schema': It must be a JSON schema, got 'objekt'"):
        JsonSchema(schema={"type": "objekt"})
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match=r"broken\.json must be JSON"):
        from_spec("json_schema", {"file": "broken.json"}, tmp_path)
