"""Texts under a constraint: always in its language, complete within the limit, the same bits."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

import llguidance
import pytest
from tiny import tiny_model

from ostinato.decode import Constraint, Decode, SamplingParams, TokenPrompt, plain_prompt
from ostinato.decode.completion_search import shortest_completion
from ostinato.decode.constrained_state import ConstrainedState
from ostinato.decode.constraint import FUEL, clear_compiled, matcher
from ostinato.errors import InputError, ItemError
from ostinato.loop import Lane, Lanes, Loop, Policy, Steps, Timeline
from ostinato.refine.strategies.constrain import fitting
from ostinato.testing import check_lane_process

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "n": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 1},
    },
    "required": ["name", "n", "tags"],
    "additionalProperties": False,
}
LARK = 'start: sum\nsum: NUM | sum "+" NUM | "(" sum ")"\nNUM: /[0-9]{1,3}/'
WARM = SamplingParams(temperature=1.5)


def decode(
    constraint: Constraint | None, limit: int | None = None, slots: int = 4, **more: Any
) -> Decode:
    model = tiny_model()
    return Decode(
        model,
        plain_prompt(model.tokenizer.encode),
        sampling=more.pop("sampling", WARM),
        slots=slots,
        constraint=constraint,
        limit=limit,
        **more,
    )


def written(constraint: Constraint, limit: int, count: int = 12, **more: Any) -> list[str]:
    """Return the texts of some lanes, all of which must have reached an end token."""
    items = [(f"item {n}", f"Text {n}") for n in range(count)]
    lanes = Lanes(decode(constraint, limit, **more), items, Policy(each=Steps(limit)), seed=1)
    rows = [one.to_json() for step in Loop(lanes, until=Steps(10_000)) for one in step.results]
    assert len(rows) == count
    for row in rows:
        assert row["stopped"]["kind"] == "ended", row  # type: ignore[index]
    return [str(row["output"]) for row in rows]


def test_a_text_matches_its_regular_expression_within_the_limit() -> None:
    pattern = r"Order \d{2,6} is (ready|late)( since [a-z]+)?\."
    for limit in (20, 24, 60):
        for text in written(Constraint.regex(pattern), limit):
            assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize("limit", [40, 48, 120])
def test_json_is_whole_and_valid_under_a_limit(limit: int) -> None:
    for text in written(Constraint.json_schema(SCHEMA), limit):
        value = json.loads(text)
        assert list(value) == ["name", "n", "tags"]
        assert isinstance(value["n"], int) and set(value["tags"]) <= {"red", "blue"}


def test_any_json_is_whole_under_a_limit() -> None:
    for text in written(Constraint.json_schema({}), 12, count=24):
        json.loads(text)


def test_a_choice_and_a_grammar_are_kept_to() -> None:
    colors = ["red", "dark blue", "é", 'so "quoted"']
    texts = written(Constraint.choice(colors), 12, count=16)
    assert set(texts) <= set(colors) and len(set(texts)) > 1
    for text in written(Constraint.grammar(LARK), 16):
        assert re.fullmatch(r"[()+\d]+", text) and isinstance(eval(_plain(text)), int)


def _plain(text: str) -> str:
    return re.sub(r"\d+", lambda number: str(int(number[0])), text)  # 007 is no Python


@pytest.mark.slow
def test_a_text_is_what_all_its_constraints_say() -> None:
    patterns = ["[A-Z](?s:.*)[.]", "([^ ]+ +){3,6}[^ ]+", "(?s:.*)at 9(?s:.*)"]
    constraint = Constraint.all_of([Constraint.regex(pattern) for pattern in patterns])
    for limit in (24, 40):
        for text in written(constraint, limit):
            for pattern in patterns:
                assert re.fullmatch(pattern, text), text


def test_constraints_that_leave_one_text_each_leave_the_one_they_share() -> None:
    one = Constraint.choice(["The phone", "Your table is booked"])
    constraint = Constraint.all_of([one, Constraint.regex("Your table.*")])
    assert set(written(constraint, 24, count=3)) == {"Your table is booked"}


def test_a_text_that_cannot_be_made_whole_is_ended() -> None:
    patterns = ["(ab)+c", "(ab)?[^abc]*"]
    constraint = Constraint.all_of([Constraint.regex(each, room=False) for each in patterns])
    lanes = Lanes(decode(constraint, 20), [("a", "Hello")], Policy(each=Steps(20)))
    (row,) = [one.to_json() for step in Loop(lanes, until=Steps(99)) for one in step.results]
    assert row["output"] == "ab"
    assert row["stopped"]["kind"] == "ended"  # type: ignore[index]


def test_a_constraint_that_grew_too_large_is_not_broken_for_the_next_draft(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = tiny_model().tokenizer
    constraint = Constraint.regex("(?s:.*)a(?s:.{60})", room=False)

    def followed(steps: int) -> None:
        state = ConstrainedState(constraint, tokenizer, 200)
        for n in range(steps):
            state.allowed(tokenizer.vocab_size)
            state.advance(tokenizer.encode("aba"[n % 3])[0])

    clear_compiled()
    monkeypatch.setattr("ostinato.decode.constraint.FUEL", 300)
    with pytest.raises(ItemError, match=r"is too large: .* Make it of smaller parts"):
        followed(60)
    monkeypatch.undo()
    followed(60)


COUNTED = r"(?s:.*)[A-M](?s:.{40})[0-9](?s:.*)"
"""Its automaton grows with every text: some 1,300 states for 80 letters and digits."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let automata have 3,000 states, instead of 250,000."""
    few = llguidance.LLParserLimits(
        initial_lexer_fuel=FUEL, step_lexer_fuel=FUEL, max_lexer_states=3000
    )
    clear_compiled()
    monkeypatch.setattr("ostinato.decode.constraint._limits", lambda: few)
    yield
    clear_compiled()


def follow(state: ConstrainedState, seed: int, steps: int) -> Any:
    """Append letters and digits; return what may come then, and the completion."""
    draws, size = random.Random(seed), tiny_model().tokenizer.vocab_size
    for n in range(steps):
        state.allowed(size)
        (token,) = tiny_model().tokenizer.encode(draws.choice("AKZaz059"))
        assert state.leaves_room(token, n)
        state.advance(token)
    return state.allowed(size).tolist(), state.completion


@pytest.mark.parametrize("room", [False, True])
@pytest.mark.usefixtures("small")
def test_what_a_draft_gets_does_not_depend_on_its_company(room: bool) -> None:
    tokenizer, constraint = tiny_model().tokenizer, Constraint.regex(COUNTED, room=room)
    in_flight = {seed: ConstrainedState(constraint, tokenizer, 300) for seed in (2, 5)}
    for seed, state in in_flight.items():
        follow(state, seed, 20)
    shared = [follow(ConstrainedState(constraint, tokenizer, 300), seed, 80) for seed in range(8)]
    for seed, state in in_flight.items():
        state.crop(0)
        assert follow(state, seed, 80) == shared[seed]
    for seed in (2, 5, 7):
        clear_compiled()
        assert follow(ConstrainedState(constraint, tokenizer, 300), seed, 80) == shared[seed]


@pytest.mark.usefixtures("small")
def test_room_is_found_in_an_automaton_that_others_broke() -> None:
    tokenizer, constraint = tiny_model().tokenizer, Constraint.regex(COUNTED)
    at: list[Any] = [matcher(constraint, tokenizer) for _ in range(9)]
    draws = random.Random(1)
    for each in at:
        for _ in range(100):
            each.compute_bitmask()
            each.consume_tokens(tokenizer.encode(draws.choice("AKZaz059")))
    assert any(each.is_error() for each in at)
    assert fitting(constraint, tokenizer, 299) == constraint


def test_the_most_likely_tokens_end_in_time_too() -> None:
    pattern = r'"[^"]*"'
    for text in written(Constraint.regex(pattern), 10, sampling=SamplingParams(temperature=0)):
        assert re.fullmatch(pattern, text), text


def test_without_room_a_text_may_be_cut() -> None:
    lanes = Lanes(
        decode(Constraint.regex(r"[a-z ]{200,}", room=False), 5),
        [("a", "Hello")],
        Policy(each=Steps(5)),
    )
    (row,) = [one.to_json() for step in Loop(lanes, until=Steps(99)) for one in step.results]
    assert row["stopped"]["kind"] == "budget"  # type: ignore[index]
    assert re.fullmatch(r"[a-z ]+", str(row["output"]))


def test_an_item_whose_text_cannot_fit_is_refused_with_the_fix() -> None:
    process = decode(Constraint.regex(r"\d{30}"), 8)
    with pytest.raises(ItemError, match=r"must fit in the limit of 8 tokens.* Raise the limit"):
        process.start(Lane("a"), "Hello")


@pytest.mark.parametrize(
    "constraint",
    [Constraint.json_schema(SCHEMA), Constraint.regex(r"(?s:.{3,40})"), Constraint.grammar(LARK)],
    ids=lambda constraint: constraint.kind,
)
def test_decoding_under_a_constraint_conforms(constraint: Constraint) -> None:
    items = {"a": "Hello", "b": "The reply", "c": "Can you help me with that?"}
    check_lane_process(
        lambda slots: decode(constraint, 40, slots),
        items,
        steps=40,
        edits={"forbid": [7, 20, 33], "temperature": 0.9},
    )


def test_a_constraint_goes_before_what_is_forbidden_and_forced() -> None:
    model = tiny_model()
    process = decode(Constraint.choice(["yes"]), 20)
    everything = list(range(model.tokenizer.vocab_size))
    wrong = model.tokenizer.encode("no")
    process.start(
        Lane("a", edits=Timeline(((0, {"forbid": everything}), (0, {"force": wrong})))), "Hello"
    )
    for _ in range(8):
        process.step()
    assert process.output("a") == "yes"


def test_a_prompt_may_name_its_own_constraint() -> None:
    model = tiny_model()

    def prompt(item: object, edits: Mapping[str, object]) -> TokenPrompt:
        assert isinstance(item, str)
        return TokenPrompt(model.tokenizer.encode(item), constraint=Constraint.choice([item]))

    process = Decode(model, prompt, slots=2, constraint=Constraint.choice(["other"]), limit=30)
    for key in ("one", "two"):
        process.start(Lane(key), key)
    for _ in range(8):
        process.step()
    assert [process.output(key) for key in ("one", "two")] == ["one", "two"]


def test_going_back_forgets_what_came_after() -> None:
    tokenizer = tiny_model().tokenizer
    constraint = Constraint.json_schema(SCHEMA)
    there, straight = (ConstrainedState(constraint, tokenizer, 80) for _ in range(2))
    first, other = tokenizer.encode('{"name": "Jo'), tokenizer.encode('n", "n": 12')
    for token in [*first, *other]:
        there.advance(token)
    there.crop(len(first))
    for token in first:
        straight.advance(token)
    assert there.completion == straight.completion
    assert bool((there.allowed(400) == straight.allowed(400)).all())


@pytest.mark.parametrize(
    ("constraint", "start"),
    [
        (Constraint.regex("(ab)*c"), "abab"),
        (Constraint.regex("[a-z]*m"), "abc"),
        (Constraint.regex(r"(?s:.){40,}"), "a"),
        (Constraint.regex(r"(\S+\s+){9,99}\S+"), "one two"),
        (Constraint.regex("ü+x"), "üü"),
        (Constraint.json_schema({}), '[[{"a": [1, "b'),
        (Constraint.json_schema(SCHEMA), '{"name": "'),
        (Constraint.grammar(LARK), "(((1+2"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.text[:12],
)
def test_a_completion_makes_the_text_whole(constraint: Constraint, start: str) -> None:
    tokenizer = tiny_model().tokenizer
    at = matcher(constraint, tokenizer)
    assert at.consume_tokens(tokenizer.encode(start))
    completion = shortest_completion(at, tokenizer, 400)
    assert completion is not None
    assert at.consume_tokens(completion) and at.is_accepting()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constraint.regex("(a").check(), "must be a regular expression, got .*unclosed"),
        (lambda: Constraint.regex(r"(?<!a)b").check(), "Leave out what looks around"),
        (lambda: Constraint.regex(" "), "Write what is allowed"),
        (lambda: Constraint.json_schema({"type": "foo"}).check(), "must be a JSON schema.*foo"),
        (lambda: Constraint.json_schema("{"), "A JSON schema must be JSON, got an error"),
        (lambda: Constraint.json_schema("[]"), "must be a JSON object, got list"),
        (lambda: Constraint.grammar("start: foo").check(), "must be a Lark grammar.*unknown name"),
        (lambda: Constraint.choice([]), "must have at least one text, got none"),
        (lambda: Constraint.choice([""]), "must be a text that is not empty"),
        (lambda: Constraint("rgx", "a"), "kind must be 'regex'"),  # type: ignore[arg-type]
        (lambda: SamplingParams(end_bias=-1), "end_bias must be a number from 0"),
    ],
)
def test_a_wrong_constraint_is_refused_with_a_sentence(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_constraint_goes_through_json() -> None:
    for constraint in (Constraint.json_schema(SCHEMA), Constraint.regex("a", room=False)):
        value = json.loads(json.dumps(constraint.to_json()))
        assert Constraint.from_json(value) == constraint


def test_ends_are_likelier_toward_the_limit() -> None:
    def lengths(bias: float) -> list[int]:
        items = [(f"item {n}", f"Text {n}") for n in range(12)]
        sampling = SamplingParams(temperature=1.0, end_bias=bias, end_within=10)
        lanes = Lanes(decode(None, 24, sampling=sampling), items, Policy(each=Steps(24)), seed=2)
        rows = [one.to_json() for step in Loop(lanes, until=Steps(10_000)) for one in step.results]
        return [row["length"] for row in rows if row["stopped"]["kind"] == "ended"]  # type: ignore

    assert len(lengths(0.0)) < 6
    ended = lengths(30.0)
    assert len(ended) == 12
    assert min(ended) > 5
