"""A check's language contains exactly the texts that pass."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checks_prefix import CHECKS, ITEM, JSON_PIECES, PIECES
from tiny import tiny_model

from ostinato.checks import BaseCheck, Blocked, Contains, Excludes, JsonSchema, Length, Regex
from ostinato.decode import Constraint
from ostinato.decode.constrained_state import ConstrainedState
from ostinato.decode.constraint import matcher
from ostinato.errors import InputError
from ostinato.loop import Verdict
from ostinato.models import Tokenizer
from ostinato.refine.strategies.constrain import constraint_of

SAID = {name: check for name, check in CHECKS.items() if constraint_of([check], ITEM).checks}


def is_in(constraint: Constraint, text: str) -> bool:
    tokenizer = tiny_model().tokenizer
    at, tokens = matcher(constraint, tokenizer), tokenizer.encode(text)
    return at.try_consume_tokens(tokens) == len(tokens) and bool(at.is_accepting())


def test_most_kinds_have_a_language() -> None:
    kinds = {check.kind for check in SAID.values()}
    assert kinds == {
        *("blocked", "choice", "contains", "ends_with", "excludes", "json_schema", "length"),
        *("regex", "starts_with"),
    }
    assert "regex ahead" not in SAID and "sentences" not in SAID and "tokens" not in SAID


# Characters that become several when they are folded, and edges beyond ASCII, are the checks'.
PLAIN = [piece for piece in PIECES if piece not in ("ß", "İ", "Σ", "\u0301", "’", "。")]
WIDER = {"excludes column"}  # one of its patterns looks ahead


@pytest.mark.parametrize("name", [n for n in SAID if not isinstance(SAID[n], JsonSchema)])
def test_a_text_is_in_the_language_where_it_passes(name: str) -> None:
    check = SAID[name]
    constraint = constraint_of([check], ITEM).constraint
    assert constraint is not None

    @settings(max_examples=25, deadline=None, database=None)
    @given(st.lists(st.sampled_from(PLAIN), max_size=7).map("".join))
    def holds(text: str) -> None:
        passed, found = check.judge(text, ITEM).passed, is_in(constraint, text)
        assert found == passed or (found and name in WIDER)

    holds()


@pytest.mark.parametrize("name", [n for n in SAID if isinstance(SAID[n], JsonSchema)])
def test_a_text_in_the_language_of_a_schema_passes(name: str) -> None:
    check = SAID[name]
    constraint = constraint_of([check], ITEM).constraint
    assert constraint is not None

    @settings(max_examples=25, deadline=None, database=None)
    @given(st.lists(st.sampled_from(JSON_PIECES), max_size=7).map("".join))
    def holds(text: str) -> None:
        assert not is_in(constraint, text) or check.judge(text, ITEM).passed

    holds()


def test_checks_together_are_one_language() -> None:
    checks = [CHECKS[name] for name in ("words", "contains", "excludes", "grounded")]
    found = constraint_of(checks, ITEM)
    assert found.checks == ("length", "contains", "excludes")
    assert found.constraint is not None
    for text, right in [
        ("It's so", True),
        ("it's", False),  # two words
        ("It's an ass", False),
        ("see you at", False),
        ("at 8 am then", True),
        ("at 8 am then and", False),
    ]:
        assert is_in(found.constraint, text) == right, text


def test_a_forbidden_text_is_not_started_where_it_cannot_be_undone() -> None:
    tokenizer = tiny_model().tokenizer
    constraint = constraint_of([Excludes(texts=("not",))], {}, tokenizer).constraint
    assert constraint is not None
    guided = ConstrainedState(constraint, tokenizer, 40)
    for token in tokenizer.encode("is not"):
        guided.advance(token)
    allowed = guided.allowed(tokenizer.vocab_size)
    (edge,), (letter,) = tokenizer.encode("."), tokenizer.encode("e")
    assert allowed[letter] and not allowed[edge]


def test_room_to_end_is_found_for_checks_of_many_kinds_together() -> None:
    tokenizer = tiny_model().tokenizer
    checks = [
        Contains(texts=("408-247-8880",)),
        Contains(name="time", texts=("11:30 am",)),
        Excludes(texts=("not", "has been made", "failed")),
        Blocked(words=("guarantee*", "my opinion")),
        Length(min=9, max=40),
        Regex(pattern="""["'$+]?[A-Z0-9].*[.!?]["')]?"""),
    ]
    constraint = constraint_of(checks, {}, tokenizer).constraint
    assert constraint is not None and len(constraint.parts) == len(checks) + 1  # two for the length
    way = ConstrainedState(constraint, tokenizer, 80).completion
    assert way is not None
    text = tokenizer.decode(list(way))
    assert all(check.judge(text, {}).passed for check in checks), text


def test_a_schema_goes_before_patterns() -> None:
    found = constraint_of([Length(max=9), JsonSchema(schema={})], ITEM)
    assert found.checks == ("json_schema",)
    assert found.constraint is not None and found.constraint.kind == "json_schema"


def test_a_pattern_beyond_llguidance_is_left_to_the_check() -> None:
    found = constraint_of([JsonSchema(schema={"not": {"type": "string"}}), Length(max=3)], ITEM)
    assert found.checks == ("length",)
    with pytest.raises(InputError):
        Constraint.json_schema({"not": {"type": "string"}}).check()


def test_a_check_without_a_language_has_no_constraint() -> None:
    class Own(BaseCheck):
        kind = "own"

        def judge(self, output: object, item: Mapping[str, object]) -> Verdict:
            raise NotImplementedError

    assert Own().constraint_specs({}) == ()
    assert constraint_of([Own()], {}).constraint is None


def test_an_automaton_that_grows_too_large_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def small_only(constraint: Constraint, tokenizer: Tokenizer) -> None:
        if "blue" in constraint.text:
            raise InputError("fuel exhausted")

    monkeypatch.setattr("ostinato.refine.strategies.constrain.matcher", small_only)
    checks = [Excludes(name=word, texts=(word,)) for word in ("red", "blue", "green")]
    assert constraint_of(checks, {}).checks == ("red", "blue", "green")
    assert constraint_of(checks, {}, tiny_model().tokenizer).checks == ("red", "green")
