"""Words, edges and sentences in every script: check, prefix verdict and mask agree."""

from __future__ import annotations

import time
import unicodedata
from itertools import chain, pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checks_constraint_spec import is_in
from test_checks_prefix import assert_consistent

from ostinato.checks import (
    BaseCheck,
    Blocked,
    Choice,
    Contains,
    EndsWith,
    Excludes,
    Length,
    Regex,
    Repetition,
    StartsWith,
)
from ostinato.checks import segments as seg
from ostinato.checks.constraint_spec import _edges
from ostinato.checks.normal_form import COMPOSING, accented, can_compose, normalized
from ostinato.loop import PrefixStatus, Span, Text
from ostinato.refine.routing.cases import Case, PastCases
from ostinato.refine.strategies.backtrack import _between_words, _restart_positions, _spaced
from ostinato.refine.strategies.constrain import constraint_of

NFD_CAFE = "cafe\u0301"
HINDI = "स्थिति अच्छी, स्थिति बुरी, स्थिति ठीक"


@pytest.mark.parametrize(
    ("check", "text", "passed"),
    [
        (Blocked(words=("退款",)), "我们不能退款给您。", False),
        (Blocked(words=("退*款",)), "退款给您。", False),
        (Blocked(words=("คืนเงิน",)), "เราคืนเงินให้คุณ", False),
        (Blocked(words=("กิน",)), "กินี", True),  # a vowel sign makes it another syllable
        (Blocked(words=("返金",)), "返金できません", False),
        (Blocked(words=("データ",)), "データベース", False),
        (Blocked(words=("ប្រាក់",)), "សងប្រាក់វិញ", False),
        (Blocked(words=("환불",)), "환불 불가", False),
        (Blocked(words=("환불",)), "환불은 안 됩니다", True),  # one word by the standard
        (Blocked(words=("환불*",)), "환불은 안 됩니다", False),
        (Contains(texts=("北京",)), "我在北京。", True),
        (Contains(texts=("408-247-8880",)), "电话408-247-8880号", True),
        (Contains(texts=("12345",)), "电话123456号", False),
        (Contains(texts=("iPhone",)), "iPhone手机", True),
        (Contains(texts=("iPhone",)), "iPhone을 샀다", True),
        (Contains(texts=("8",)), "8시에 만나요", True),
        (Contains(texts=("ass",)), "assé", False),
        (Excludes(texts=("avocat",)), "l’avocat", False),
        (Excludes(texts=("lawyer",)), "the lawyer's", False),
        (Excludes(texts=("480",)), "$1,480.50", True),
        (Excludes(texts=("480",)), "It costs 480.", False),
        (Excludes(texts=("स्थ",)), HINDI, True),
        (Excludes(texts=("हिन्द",), whole=False), "हिन्दी", False),
        (Blocked(words=("café",)), f"a {NFD_CAFE}!", False),
        (Blocked(words=(NFD_CAFE,)), "a CAFÉ!", False),
        (Blocked(words=("cafe",)), "a café", True),
        (Blocked(words=("cafe",)), f"a {NFD_CAFE}", True),
        (Blocked(words=("straße",)), "STRASSE", False),
        (Blocked(words=("refund",)), "a re\u200bf\u00adund", False),
        (Blocked(words=("re\u2060fund",)), "a refund", False),
        (Blocked(words=("ᄒ",)), "\u1112\u1161", True),  # a jamo of another syllable
        (StartsWith(texts=("Café",)), NFD_CAFE, True),
        (EndsWith(texts=("É",)), NFD_CAFE, True),
        (Choice(texts=("café",)), NFD_CAFE, True),
        (Repetition(n=2, times=2), HINDI, True),
        (Repetition(n=1, times=2), HINDI, False),
        (Repetition(n=1, times=1), f"café {NFD_CAFE}", False),
        (Repetition(n=1, times=1), "can't can’t", False),
        (Length(max=4), "我在北京。", True),
        (Length(max=3), "我在北京。", False),
        (Length(min=3, max=3), "iPhone手机!", True),
        (Length(min=3, max=3), "Call 408-247-8880 – now!", True),
        (Length(min=3, max=3), HINDI[:18], True),
        (Length(min=2, max=2), "ไทย ลาว", True),
    ],
)
def test_words_are_found_and_counted_in_every_script(
    check: BaseCheck, text: str, passed: bool
) -> None:
    assert check.judge(text, {}).passed == passed


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("هل تريد؟ نعم. شكرا", 3),
        ("یہ ہے۔ وہ ہے۔", 2),
        ("यह है। वह है॥", 2),
        ("ሰላም። ደህና።", 2),
        ("こんにちは。元気？はい！", 3),
        ("ｱ｡ｲ", 2),
        ("“好。”他走了。", 2),
        ("你好！iPhone好。", 2),
        ("“Really?” he asked. “Yes.”", 2),
        ("Wait… Then go…now", 2),
        ("1. Sipan\n2. The other one", 1),
        ("Hi Ann,\n\nwe are open.\n\nBob", 3),
        ("One line\nand the next", 1),
        ("See a.b and x.Y! Now", 2),
        ("Thanks! 😀", 1),
        ("No. We don't. See No. 5.", 3),
        ("We open at 9 a.m. (if at all).", 1),
    ],
)
def test_sentences_are_counted_in_every_script(text: str, count: int) -> None:
    assert len(seg.sentence_starts(text)) == count


def test_a_span_is_a_part_of_the_text_as_it_is_written() -> None:
    text = f"ﬁx e\u0301 {NFD_CAFE}s, {NFD_CAFE}!"
    for verdict in (
        Blocked(words=("café",)).judge(text, {}),
        Blocked(words=("café",)).check_prefix(text, {}),
        Repetition(n=1, times=1).judge(f"{text} CAFÉ", {}),
    ):
        assert verdict.span is not None
        assert text[slice(*verdict.span)] == NFD_CAFE or "CAFÉ" in verdict.message
    hidden = Blocked(words=("refund*",)).judge("no ре re\u200bfunds", {})
    assert hidden.span == Span(6, 14)


# The same in checks, prefix verdicts and masks ----------------------------------------------------

SCRIPTS: dict[str, list[str]] = {
    "Latin": ["café", NFD_CAFE, "cafe", "caf", "é", "\u0301", "\u0323", "s", "ass", "CAFÉ", "ß"],
    "Cyrillic": ["возврат", "ВОЗВРАТ", "возв", "рат", "й", "и\u0306", "а"],
    "Arabic": ["استرداد", "استر", "داد", "ال", "\u0651", "؟", "٣", "،"],
    "Devanagari": ["स्थिति", "स्थ", "िति", "रिफंड", "ड\u093c", "।", "\u200d"],
    "Thai": ["คืนเงิน", "คืน", "เงิน", "กิน", "ี", "ๆ"],
    "Chinese": ["退款", "退", "款", "北京", "，", "。", "我", "\ufe00"],
    "Japanese": ["返金", "返", "金", "が", "か", "\u3099", "データ", "ー", "。", "」"],
    "Korean": ["환불", "환", "불", "은", "\u1112", "\u1161", "\u11ab"],
    "Amharic": ["ገንዘብ", "ገን", "ዘብ", "።", "፣"],
    "emoji": ["😀", "👩\u200d👧", "❤\ufe0f", "👍🏽"],
}
COMMON = [
    " ",
    " ",
    ".",
    ", ",
    "!",
    "'",
    "’",
    "8",
    "80",
    "1,480",
    "\u200b",
    "\n",
    "x",
    "-",
    "_",
    "\xa0",
]
WORDS = ("café", "возврат", "استرداد", "स्थिति", "คืนเงิน", "退款", "返金", "환불", "ገንዘብ", "8", "😀")
CHECKS: dict[str, BaseCheck] = {
    "blocked": Blocked(words=(*WORDS, "ass*", "воз*ат", "か")),
    "contains": Contains(texts=WORDS),
    "contains part": Contains(texts=(*WORDS, "caf", "が"), whole=False),
    "contains case": Contains(texts=("CAFÉ", "ВОЗВРАТ", "8 退款"), case=True),
    "excludes": Excludes(texts=WORDS),
    "excludes part": Excludes(texts=("cafe", "स्थ", "환", "か", "и"), whole=False),
    "starts": StartsWith(texts=("cafe", "退", "환", "и", "か", "स्थ", "\u0623")),
    "starts accent": StartsWith(texts=("café", "й", "a\u0323\u0301", "が")),
    "ends": EndsWith(texts=("é", "款", "환", "й", "!")),
    "choice": Choice(texts=WORDS),
    "words": Length(min=2, max=4),
    "many words": Length(min=3),
    "sentences": Length(max=1, unit="sentences"),
    "min sentences": Length(min=2, unit="sentences"),
    "repetition": Repetition(n=1, times=1),
    "behind": Regex(pattern=r"(\w+ )*(?<=8 )x"),
}


def written(script: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(SCRIPTS[script] + COMMON), max_size=8)


MIXED = st.lists(st.sampled_from([*chain(*SCRIPTS.values()), *COMMON]), max_size=6)


@pytest.mark.parametrize("name", CHECKS)
def test_prefix_verdicts_never_contradict_the_verdict_in_any_script(name: str) -> None:
    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.one_of(MIXED, *map(written, SCRIPTS)))
    def hold(pieces: list[str]) -> None:
        assert_consistent(CHECKS[name], pieces, {})

    hold()


@pytest.mark.parametrize(
    "name", [name for name, check in CHECKS.items() if constraint_of([check], {}).checks]
)
def test_what_passes_is_in_the_mask_in_any_script(name: str) -> None:
    check = CHECKS[name]
    constraint = constraint_of([check], {}).constraint
    assert constraint is not None

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.one_of(MIXED, *map(written, SCRIPTS)).map("".join))
    def hold(text: str) -> None:
        passed, found = check.judge(text, {}).passed, is_in(constraint, text)
        assert found or not passed, text
        if text.isascii():
            assert found == passed, text

    hold()


@pytest.mark.parametrize("name", CHECKS)
def test_the_form_of_a_text_changes_no_verdict(name: str) -> None:

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.one_of(MIXED, *map(written, SCRIPTS)).map("".join))
    def hold(text: str) -> None:
        forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
        verdicts = [CHECKS[name].judge(form, {}).passed for form in forms]
        assert len(set(verdicts)) == 1, forms

    hold()


# One definition -----------------------------------------------------------------------------------

MODERN = st.one_of(MIXED, *map(written, SCRIPTS)).map("".join)
UNCHANGED = regex.compile(r"(?V1)[\p{LB=SA}]")


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(MODERN)
def test_words_are_those_of_the_standard(text: str) -> None:
    if UNCHANGED.search(text):  # Thai: letters in a row are one word here, and many there
        return
    edges = [match.start() for match in regex.finditer(r"(?w)\b", text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    expected = [piece for piece in pieces if seg.is_word(piece[0])]
    assert [text[slice(*span)] for span in seg.word_spans(text)] == expected
    assert seg.split_words(text) == [word.replace("’", "'") for word in expected]


ASCII = st.text(st.sampled_from("aB9_.,;:'\"!?-( )\n\t\x1c"), max_size=9)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(ASCII)
def test_ascii_is_read_as_any_other_text(text: str) -> None:
    def read() -> list[object]:
        return [
            seg.split_words(text),
            seg.word_spans(text),
            seg.counted_words(text),
            seg.count_words(text),
            seg.sentence_starts(text),
            seg.sentence_ends(text),
        ]

    quick = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seg, "as_ascii", lambda text: None)
        assert quick == read()


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.text(st.sampled_from("aB9.,:'’“”–…! \n\xa0€"), max_size=9))
def test_typographic_signs_are_read_as_what_they_are(text: str) -> None:
    def read() -> list[object]:
        return [seg.split_words(text), seg.counted_words(text), seg.sentence_starts(text)]

    quick = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seg, "as_ascii", lambda text: None)
        assert quick == read()


ASSIGNED = regex.sub(r"\p{Cn}", "", "".join(map(chr, [*range(0xD800), *range(0xF900, 0x1FFFF)])))


@pytest.mark.parametrize("char", "aйαاאहገ환8_")
def test_a_mask_has_no_edge_that_the_check_lacks(char: str) -> None:
    def members(pattern: str) -> set[str]:
        return set(regex.findall(pattern, ASSIGNED))

    inside = members(f"(?V1){seg.neighbors(char)}")
    signs = members(_edges(char, False)[1] or "[]]")
    assert not members(_edges(char, True)[0]) & inside
    assert members(_edges(char, False)[0]) | inside | signs == set(ASSIGNED)


def test_what_can_compose_is_known() -> None:
    composing = regex.compile(f"[{COMPOSING}]")
    for char in map(chr, [*range(0xC0, 0x3400), *range(0xAC00, 0xAD00), *range(0x11000, 0x12000)]):
        apart = unicodedata.normalize("NFD", char)
        if len(apart) > 1 and unicodedata.normalize("NFC", apart) == char:
            assert composing.match(apart[-1]) and can_compose(apart[0]), hex(ord(char))
            assert not apart[0].isascii() or char in accented()[apart[0]]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(MODERN, st.booleans(), st.booleans())
def test_each_part_of_a_form_comes_from_its_place(text: str, case: bool, visible: bool) -> None:
    form = normalized(text, case=case, visible=visible)
    for at in range(len(form.text)):
        span = form.span(at, at + 1)
        part = normalized(text[slice(*span)], case=case, visible=visible).text
        assert form.text[at] in part
    if not visible:
        assert form.text == normalized(unicodedata.normalize("NFD", text), case=case).text
        assert form.text == normalized(form.text, case=case).text


# Looking behind -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "prefix", "text"),
    [
        (r"(\w+ )*(?<=please )go", "now ", "now please go"),
        (r"a(?<!b)c*", "a", "acc"),
        (r"(?:x\K)?y", "x", "xy"),
        (r"\w+(?:\b ?)+", "ab", "ab cd"),
        (r"\p{Lu}\p{Ll}+", "É", "Été"),
    ],
)
def test_a_prefix_is_not_refused_for_what_stands_around_its_end(
    pattern: str, prefix: str, text: str
) -> None:
    check = Regex(pattern=pattern)
    assert check.check_prefix(prefix, {}).status is PrefixStatus.POSSIBLE
    assert not constraint_of([check], {}).checks or is_in(
        constraint_of([check], {}).constraint,  # type: ignore[arg-type]
        text,
    )


@pytest.mark.parametrize("piece", ["-", ".", "\n", "\n ", "。", '!"', "\u0301", "а\u200b", "ß "])
def test_many_marks_in_a_row_take_no_long_time(piece: str) -> None:
    text = piece * 4000
    checks = [
        Length(max=9999),
        Length(max=9999, unit="sentences"),
        Repetition(times=9999),
        Blocked(words=("refund*", "é")),
    ]
    start = time.thread_time()
    for check in checks:
        check.check_prefix(text, {})
    assert time.thread_time() - start < 0.5  # 0.02 here; a search from each mark takes seconds


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (Blocked(words=("*x*",)), "_" * 30_000),
        (Blocked(words=("*x*",)), "é" * 30_000),
        (Blocked(words=("a*b*c*d",)), "ab" * 2000 + "c" * 2000),
        (Blocked(words=("a*b*c*é",)), "ab" * 2000 + "c" * 2000),
        (Contains(texts=(" x",)), " " * 30_000),
        (StartsWith(texts=("é",)), "[" * 100_000),
        (Contains(texts=("e" + "\u0301\u0302" * 50,)), "e"),
    ],
)
def test_a_search_takes_linear_time(check: BaseCheck, text: str) -> None:
    start = time.thread_time()
    check.judge(text, {})
    check.check_prefix(text, {})
    check.constraint_specs({})
    assert time.thread_time() - start < 1  # 0.1 here; all ways to part a word take seconds


@pytest.mark.parametrize(
    ("word", "text", "found"),
    [
        ("a*b*c", "xabbbc abbcbc.", "abbcbc"),
        ("*b*c*", "aabbcca", "aabbcca"),
        ("a**b", "xaqb aqb", "aqb"),
        ("*fund", "退refund", "refund"),
        ("a*b c", "abxb  c", "abxb  c"),
        ("a* *b", "axx  yyb", "axx  yyb"),
    ],
)
def test_wildcards_match_as_much_as_they_can(word: str, text: str, found: str) -> None:
    verdict = Blocked(words=(word,)).judge(text, {})
    assert verdict.span is not None and text[slice(*verdict.span)] == found


@pytest.mark.parametrize(
    ("check", "text", "passed"),
    [
        (Contains(texts=("ಕೋ",)), "ಕೋ", True),  # its vowel sign is three characters in NFD
        (StartsWith(texts=("வோ",)), "வோ", True),
        (Blocked(words=("ass",)), "as\xadassin", True),
        (Blocked(words=("fi\u200b",)), "fi\u200bfi", True),
        (Contains(texts=("४५",)), "४५cafe", True),
        (Contains(texts=("cafe",)), "ι\u0308cafe", True),
        (Choice(texts=("New York",)), "New\nYork", False),
        (StartsWith(texts=("It's",)), "It’s", False),
        (StartsWith(texts=(" Hi",)), "Hi", True),
        (EndsWith(texts=("Bye ",)), "Bye", True),
    ],
)
def test_check_and_mask_agree(check: BaseCheck, text: str, passed: bool) -> None:
    constraint = constraint_of([check], {}).constraint
    assert constraint is not None
    assert check.judge(text, {}).passed == is_in(constraint, text) == passed


def test_an_accent_alone_is_no_word() -> None:
    assert [seg.count_words(text) for text in ("a ≠", "a =\u0338", "退\u0301")] == [1, 1, 1]


# Past cases and backtracking ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("请问怎么退款", "refund"),
        ("रिफंड की स्थिति", "status"),
        (unicodedata.normalize("NFD", "un café s'il vous plaît"), "coffee"),
    ],
)
def test_past_cases_are_found_by_words_of_every_script(message: str, answer: str) -> None:
    cases = [
        Case("怎么退款？", "refund"),
        Case("我在北京。", "city"),
        Case("स्थिति क्या है", "status"),
        Case("Un CAFÉ, s’il vous plaît!", "coffee"),
    ]
    near = PastCases(cases).nearest(message, 1)[0]
    assert near.case.answer == answer
    if answer == "coffee":
        assert near.similarity == pytest.approx(1)


def test_a_draft_is_taken_back_to_the_sentence_of_its_script() -> None:
    pieces = ["你好。", "我们", "不能", "退款。"]
    starts = [sum(map(len, pieces[:at])) for at in range(len(pieces))]
    text = Text("".join(pieces), range(4), starts, [-1.0] * 4)
    assert list(_restart_positions(text, starts[3], 3)) == [3, 1, 0]
    # A required text goes between any two characters there, and without a space.
    assert _between_words(text, 2) and _spaced(text, 2, "北京") == "北京"
