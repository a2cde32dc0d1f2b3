"""A prefix verdict never contradicts the verdict on the whole text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostinato.checks import (
    BaseCheck,
    Blocked,
    Choice,
    Confidence,
    Contains,
    EndsWith,
    Excludes,
    Function,
    Grounded,
    JsonSchema,
    Length,
    Regex,
    Repetition,
    Sentiment,
    StartsWith,
)
from ostinato.checks.grounding.claims import ClaimMark, first_ungrounded
from ostinato.checks.grounding.facts import Facts
from ostinato.loop import Item, PrefixStatus, Text

ITEM: Item = {
    "asked": ["8 am", "$480"],
    "banned": "ass",
    "message": "Can you find Peet's Coffee & Tea at half past 11, or at 6? For 25 people, May 3rd.",
    "record": {
        "phone_number": "408-247-8880",
        "address": "377 Santana Row #1000",
        "date": "2019-03-01",
        "time": "17:00",
        "price": "$1,480",
        "rating": "4.50",
        "city": "San Jose",
        "flight": "BA217",
        "found": 8,
    },
}

SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "maximum": 20},
        "b": {"enum": ["x", None, True]},
        "c": {"type": "array", "items": {"$ref": "#/properties/b"}},
    },
    "required": ["a"],
    "additionalProperties": False,
}

CHECKS: dict[str, BaseCheck] = {
    "words": Length(min=2, max=4),
    "min words": Length(min=3),
    "characters": Length(max=9, unit="characters"),
    "sentences": Length(max=2, unit="sentences"),
    "min sentences": Length(min=2, unit="sentences"),
    "tokens": Length(max=3, unit="tokens"),
    "choice": Choice(texts=("hel lo", "ass ", "ßa"), column="asked"),
    "contains": Contains(texts=("8 am", "it's")),
    "contains all": Contains(
        texts=("hel",), patterns=(r"\d+",), column="asked", mode="all", whole=False
    ),
    "contains edge": Contains(patterns=(r"\bass\b",)),
    "contains end": Contains(patterns=(r"ass$", r"am(?!b)")),
    "contains column": Contains(column="asked", case=True),
    "excludes": Excludes(texts=("ass", "hel lo")),
    "excludes part": Excludes(texts=("ass",), whole=False),
    "excludes column": Excludes(column="banned", patterns=(r"\bam\b", r"o\.$", r"x++a")),
    "regex": Regex(pattern=r"(hel(lo)? ?)+\d{1,3}( am| pm)?[.!]?"),
    "regex case": Regex(pattern=r"[a-z ]*ass|[^x]{2,5}", case=False),
    "regex ahead": Regex(pattern=r"(?!.*ass).*\bam\b.*"),
    "regex behind": Regex(pattern=r"(?:[a-z]+ ?)*(?<=hel)lo(?<!x)[. ]*"),
    "regex property": Regex(pattern=r"(?:\p{Lu}|\p{Ll}|\x20|(?P<e>!))+"),
    "contains behind": Contains(patterns=(r"(?<=hel)lo", r"(?<!a)ss")),
    "grounded": Grounded(),
    "grounded figures": Grounded(names=False),
    "grounded record": Grounded(sources=("record",), allow=("Call +1 800 555 0199.",)),
    "starts": StartsWith(texts=("Hel lo", "ass", "ßa", "İ")),
    "starts case": StartsWith(texts=("8 am", "Σ"), case=True),
    "ends": EndsWith(texts=("lo", "!")),
    "blocked": Blocked(words=("ass*", "*lo x", "it's", "h*l")),
    "sentiment": Sentiment(min=-0.5, max=0.5),
    "repetition": Repetition(n=1, times=1),
    "repetition of phrases": Repetition(n=2, times=1, share=0.2),
    "confidence": Confidence(least=-2.0, mean=-1.0),
    "json": JsonSchema(schema={}),
    "json object": JsonSchema(schema=SCHEMA),
    "json array": JsonSchema(schema={"type": ["array", "number"], "maxItems": 3}),
    "function": Function(
        function=lambda text: "x" not in text, prefix=lambda text: "x" not in text
    ),
}

PIECES = [
    *[
        "ass",
        "ist",
        "hel",
        "lo",
        " ",
        " 8",
        " am",
        "ber",
        "8",
        "4",
        "80",
        "$",
        ".",
        "!",
        ". ",
        "\n",
    ],
    *["it", "'", "’", "s", "x", "Xx", "a", "A", "ß", "İ", "Σ", "é", "\u0301", "。", ",", "-", ":"],
    *["Mr. ", "p.m. ", "One ", "two ", "  ", "-8", "1", "0", "{", '"', "}", "[", "]"],
]


FACTS = [
    *["San", "S", "an ", "Jose", "Jo", "se", "Peet", "'s", " Cof", "fee", " Tea", "Palo", " Alto"],
    *["408", "-", "247", "8880", "(", ") ", "+1 ", "377", " Row", "#1000", "10", "1", ",", "480"],
    *["17", ":00", ":", "5", " p", "m", " pm", " a.m", ".", " at ", "half past ", "11", "eleven"],
    *["quarter to ", "Mar", "ch ", "March ", "1", "st", " of", " March", "May ", "3", "rd", "Fri"],
    *["day", "Monday", "2019", "-03", "-01", "/", "twenty", "-", " fi", "ve", "two", "one", "six"],
    *[
        "BA",
        "21",
        "7",
        "x9",
        "4.5",
        "0",
        "\n",
        "1. ",
        "2)",
        " ",
        " ",
        " the ",
        "The ",
        "Con",
        "I",
        "'m",
    ],
    *[
        "24/7",
        "o'clock",
        "8",
        "th",
        ". ",
        "’",
        "ed",
        "ly",
        "!",
        "25",
        "–",
        "Con",
        "firm",
        "ing ",
        "Ph",
    ],
]


JSON_PIECES = [
    *[
        '{"a": ',
        '{"a":1',
        '{"',
        "a",
        '"',
        '":',
        ": ",
        ":",
        ",",
        ', "b": ',
        '"b":',
        "}",
        "{",
        "]",
        "[",
    ],
    *['"x"', "x", "nu", "ll", "tr", "ue", "false", "-", "0", "1", "12", ".5", ".", "e", "E+", "9"],
    *["\\", "u00", "4", "1f", "n", "\n", " ", ', "c": [', '"x"]', "[]", "{}", '"a"', "NaN", "\t"],
]


def spoken(pieces: list[str], logprobs: list[float] | None = None) -> Text:
    """Return a text of one token for each piece."""
    starts = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
    return Text("".join(pieces), range(len(pieces)), starts, logprobs or [-1.0] * len(pieces))


def assert_consistent(check: BaseCheck, pieces: list[str], item: Item) -> None:
    """Judge the whole, and hold the verdict of every beginning against it."""
    whole = check.judge(spoken(pieces), item)
    for end in range(len(pieces) + 1):
        verdict = check.check_prefix(spoken(pieces[:end]), item)
        if verdict.status is PrefixStatus.IMPOSSIBLE:
            assert not whole.passed, (pieces[:end], verdict)
            assert verdict.message
            assert verdict.span is not None
            assert 0 <= verdict.span.start <= verdict.span.end <= len("".join(pieces[:end]))
        elif verdict.status is PrefixStatus.CERTAIN:
            assert whole.passed, (pieces[:end], whole)


@pytest.mark.parametrize("name", CHECKS)
def test_prefix_verdicts_never_contradict_the_verdict_on_pieces(name: str) -> None:
    @settings(max_examples=50, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.sampled_from(PIECES), max_size=12))
    def hold(pieces: list[str]) -> None:
        assert_consistent(CHECKS[name], pieces, ITEM)

    hold()


@pytest.mark.parametrize("name", [name for name in CHECKS if "grounded" in name])
def test_prefix_verdicts_never_contradict_the_verdict_on_facts(name: str) -> None:
    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.sampled_from(FACTS), max_size=10))
    def hold(pieces: list[str]) -> None:
        assert_consistent(CHECKS[name], pieces, ITEM)

    hold()


@pytest.mark.parametrize("name", [name for name in CHECKS if "json" in name])
def test_prefix_verdicts_never_contradict_the_verdict_on_json(name: str) -> None:
    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.sampled_from(JSON_PIECES), max_size=10))
    def hold(pieces: list[str]) -> None:
        assert_consistent(CHECKS[name], pieces, ITEM)

    hold()


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.sampled_from(FACTS), st.integers(0, 9)), max_size=30))
def test_grounded_resumes_from_its_mark_as_from_the_start(
    steps: list[tuple[str, int]],
) -> None:
    facts, mark, text = (
        Facts((ITEM["message"], ITEM["record"])),
        ClaimMark(),
        "We are at San Jose. ",
    )
    for piece, cut in steps:
        text = text[: -cut * 4] if cut > 6 else text + piece
        claim, mark = first_ungrounded(text, facts, mark)
        assert claim == first_ungrounded(text, facts, ClaimMark())[0]
        if claim is not None:
            text = text[: claim.start]


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(JSON_VALUES, st.sampled_from([None, 1]), st.booleans())
def test_no_prefix_of_json_is_impossible(value: object, indent: int | None, ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    check = JsonSchema(schema={})
    assert check.judge(text, {}).passed
    for end in range(len(text) + 1):
        assert check.check_prefix(text[:end], {}).status is PrefixStatus.POSSIBLE, text[:end]


FORM = JsonSchema(
    schema={
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 5},
            "class": {"enum": ["first", "économie", "\U0001f600"]},
            "kind": {"const": "x\ny"},
        },
        "additionalProperties": False,
    }
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "city": st.text(max_size=5),
            "class": st.sampled_from(["first", "économie", "\U0001f600"]),
            "kind": st.just("x\ny"),
        },
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_no_prefix_of_a_valid_record_is_impossible(
    value: dict[str, str], indent: int | None, ascii: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    assert FORM.judge(text, {}).passed
    for end in range(len(text) + 1):
        assert FORM.check_prefix(text[:end], {}).status is PrefixStatus.POSSIBLE, text[:end]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ('{"cla', None),
        ('{"clu', 1),
        ('{"city": "Oslo", "ci', 17),
        ('{"city": "Paris', None),
        ('{"city": "London', 9),
        ('{"class": "fi', None),
        ('{"class": "fa', 10),
        ('{"kind": "x\\', None),
        ('{"kind": "x\\t', 9),
    ],
)
def test_a_member_is_refused_while_it_is_written(text: str, start: int | None) -> None:
    verdict = FORM.check_prefix(text, {})
    assert (verdict.status is PrefixStatus.IMPOSSIBLE) == (start is not None)
    assert start is None or (verdict.span is not None and verdict.span.start == start)


def test_confidence_never_contradicts_itself() -> None:
    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.floats(-4, 0), max_size=6))
    def hold(logprobs: list[float]) -> None:
        pieces = ["word "] * len(logprobs)
        whole = CHECKS["confidence"].judge(spoken(pieces, logprobs), {})
        for end in range(len(logprobs) + 1):
            verdict = CHECKS["confidence"].check_prefix(spoken(pieces[:end], logprobs[:end]), {})
            assert not (whole.passed and verdict.status is PrefixStatus.IMPOSSIBLE)

    hold()


@pytest.mark.parametrize("name", CHECKS)
def test_prefix_verdicts_never_contradict_the_verdict_on_any_text(name: str) -> None:
    @settings(max_examples=15, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.text(max_size=4), max_size=6))
    def hold(pieces: list[str]) -> None:
        assert_consistent(CHECKS[name], pieces, ITEM)

    hold()
