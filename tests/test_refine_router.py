"""Rules come first, then past cases, then the model."""

from __future__ import annotations

from datetime import date, datetime, time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato.checks.templates import Template, shown
from ostinato.errors import InputError, ItemError
from ostinato.refine.prompts import PromptTemplate
from ostinato.refine.routing.cases import Case, CaseSettings, PastCases, read_cases, words
from ostinato.refine.routing.router import Router, RouteSource
from ostinato.refine.routing.rules import Rule, first_rule

PROMPT = PromptTemplate(messages=(("user", Template("{message}")),))
CASES = PastCases(
    [
        Case("When do you open on Sunday?", "At ten."),
        Case("How can I return my shoes?", "Within 30 days."),
        Case("Where is my parcel?", "On its way."),
        Case("Can I pay by card?", "Yes."),
    ]
)


def rule(name: str, pattern: str, **how: object) -> Rule:
    if not how:
        how = {"reply": Template("ok")}
    return Rule(name=name, column="message", pattern=pattern, **how)  # type: ignore[arg-type]


def settings(**values: object) -> CaseSettings:
    return CaseSettings(file=Path("x.jsonl"), column="message", **values)  # type: ignore[arg-type]


def test_the_first_rule_that_fits_wins_and_case_is_ignored() -> None:
    rules = [rule("one", "^bye"), rule("two", "thanks"), rule("three", "thanks")]
    found = first_rule(rules, {"message": "THANKS, bye"})
    assert found is not None and found.name == "two"
    assert first_rule(rules, {"message": "Hello"}) is None


def test_a_rules_reply_is_ready_and_its_prompt_replaces_the_jobs() -> None:
    other = PromptTemplate(messages=(("user", Template("Refund: {message}")),))
    router = Router(
        prompt=PROMPT,
        rules=[
            rule("thanks", "thanks", reply=Template("Bye, {name}.")),
            rule("refund", "refund", prompt=other),
        ],
    )
    plan = router.route({"message": "Thanks!", "name": "Ann"})
    assert (plan.reply, plan.source, plan.rule) == ("Bye, Ann.", RouteSource.RULE, "thanks")
    plan = router.route({"message": "A refund, please", "name": "Ann"})
    assert plan.reply is None and plan.rule == "refund"
    assert plan.messages[0]["content"] == "Refund: A refund, please"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (date(2026, 11, 24), "2026-11-24"),
        (datetime(2026, 11, 24, 11, 30), "2026-11-24 11:30:00"),
        (time(11, 30), "11:30:00"),
        ({"day": date(2026, 11, 24), date(2026, 1, 1): [1, None]}, None),
        (["a", date(2026, 11, 24)], '["a", "2026-11-24"]'),
        (True, "true"),
        (None, ""),
        (3.5, "3.5"),
    ],
)
def test_any_value_of_a_column_is_shown(value: object, text: str | None) -> None:
    told = '{"day": "2026-11-24", "2026-01-01": [1, null]}'
    assert shown(value) == (told if text is None else text)


def test_a_rule_has_a_reply_or_a_prompt_and_a_pattern_that_compiles() -> None:
    with pytest.raises(InputError, match="must have a reply or a prompt"):
        rule("x", "a", reply=Template("a"), prompt=PROMPT)
    with pytest.raises(InputError, match="must be a regular expression"):
        rule("x", "(")


def test_a_pattern_that_takes_too_long_sets_the_item_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostinato.refine.routing.rules.SECONDS", 0.05)
    router = Router(prompt=PROMPT, rules=[rule("slow", "(a|a|aa)+$")])
    item = {"message": "a" * 40 + "b"}
    with pytest.raises(ItemError, match=r"within 0\.05 s"):
        router.route(item)
    assert router.ready(item) is None


def test_a_case_is_the_answer_above_one_similarity_and_an_example_above_another() -> None:
    router = Router(
        prompt=PROMPT,
        cases=CASES,
        case_settings=settings(answer_above=0.9, example_above=0.2, examples=2),
    )
    plan = router.route({"message": "how can i return my shoes"})
    assert (plan.reply, plan.source) == ("Within 30 days.", RouteSource.CASE)
    plan = router.route({"message": "Can I return my shoes by post?"})
    assert plan.reply is None and plan.source is RouteSource.MODEL
    assert 0.2 <= plan.near[0].similarity < 0.9
    assert plan.messages[-3]["content"] == "How can I return my shoes?"
    assert plan.messages[-1]["content"] == "Can I return my shoes by post?"
    assert router.route({"message": "Xyzzy"}).near == ()


def test_without_answer_above_no_case_is_the_answer() -> None:
    router = Router(prompt=PROMPT, cases=CASES, case_settings=settings())
    assert router.route({"message": "Where is my parcel?"}).reply is None


@given(st.text("ab cd", max_size=12), st.text("ab cd", max_size=12))
def test_similarity_is_symmetric_a_share_and_one_for_the_same_words(one: str, other: str) -> None:
    cases = PastCases([Case(one or "a", "x"), Case(other or "b", "y"), Case("cc", "z")])
    similarity = cases.similarity(words(one), words(other))
    assert 0 <= similarity <= 1
    assert similarity == pytest.approx(cases.similarity(words(other), words(one)))
    if words(one):
        assert cases.similarity(words(one), words(one)) == pytest.approx(1)


def test_another_figure_is_another_question() -> None:
    cases = PastCases([Case("A room for 2 nights", "x"), Case("A room for 3 nights", "y")])
    near = cases.nearest("A room for 3 nights", 2)
    assert near[0].case.answer == "y" and near[0].similarity == pytest.approx(1)
    assert near[1].similarity < 0.9


def test_a_bad_file_of_cases_is_an_error_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"question": "a", "answer": "b"}\n{"question": "a", "anwser": "b"}\n', "utf-8")
    with pytest.raises(InputError, match=r"cases.jsonl, line 2: the column 'answer'.*'anwser'"):
        read_cases(CaseSettings(file=path, column="message"))
