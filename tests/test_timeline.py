"""Edits by position: each question answers as a plain walk over the entries does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato.decode.edits import forbidden_at, forced_at
from ostinato.errors import EditError, InputError, ItemError
from ostinato.loop import Lane, Timeline

Entries = list[tuple[int, dict[str, Any]]]

POSITIONS = st.integers(0, 5)
TOKENS = st.lists(st.integers(0, 2), max_size=3)
EDITS = st.dictionaries(st.sampled_from(["a", "force", "forbid"]), TOKENS)
ENTRIES = st.lists(st.tuples(POSITIONS, EDITS), max_size=6)


def by_position(entries: Entries) -> Entries:
    return sorted((entry for entry in entries if entry[1]), key=lambda entry: entry[0])


@given(ENTRIES, POSITIONS, EDITS)
def test_entries_are_by_position_and_of_one_position_as_they_came(
    entries: Entries, position: int, edits: dict[str, Any]
) -> None:
    timeline = Timeline(tuple(entries))
    assert list(timeline.entries) == by_position(entries)
    added = timeline.added(position, edits)
    assert list(added.entries) == by_position([*entries, (position, edits)])
    assert list(timeline.entries) == by_position(entries)  # a value: it has not changed
    assert bool(timeline) == any(edits for _, edits in entries)


@given(ENTRIES, POSITIONS)
def test_questions_of_a_position_answer_as_a_walk_over_the_entries(
    entries: Entries, position: int
) -> None:
    timeline, walk = Timeline(tuple(entries)), by_position(entries)
    assert timeline.at(position) == [edits for at, edits in walk if at == position]
    newest: dict[str, Any] = {}
    here: object = None
    values = []
    for at, edits in walk:
        if at <= position:
            newest |= edits
            values += [(at, edits["a"])] if "a" in edits else []
        if at == position:
            here = edits.get("a", here)
    assert timeline.in_force(position) == newest
    assert timeline.in_force(position, {"a"}) == {n: v for n, v in newest.items() if n == "a"}
    assert timeline.values(position, "a") == values
    assert timeline.newest_at(position, "a") == here
    assert list(timeline.up_to(position)) == [entry for entry in walk if entry[0] <= position]
    assert timeline.next_after(position) == min(
        (at for at, _ in walk if at > position), default=None
    )


@given(ENTRIES, POSITIONS)
def test_sequences_that_reach_over_a_position_come_with_the_latest_start_first(
    entries: Entries, position: int
) -> None:
    expected, seen = [], set()
    for start, edits in reversed(by_position(entries)):
        if "force" in edits and start not in seen:
            seen.add(start)
            if start <= position < start + len(edits["force"]):
                expected.append((start, edits["force"]))
    assert list(Timeline(tuple(entries)).covering(position, "force")) == expected


def forced(entries: Entries, position: int, tokens: list[int]) -> int | None:
    """Return the token that is forced, found in one walk from the newest entry to the oldest."""
    forbidden: set[int] = set()
    replaced: set[int] = set()
    for at, edits in reversed(by_position(entries)):
        sequence = [] if at in replaced else edits.get("force", [])
        in_reach = at <= position < at + len(sequence)
        if in_reach and tokens[at:position] == sequence[: position - at]:
            token: int = sequence[position - at]
            return None if token in forbidden else token
        if "force" in edits:
            replaced.add(at)
        if at == position:
            forbidden |= set(edits.get("forbid", ()))
    return None


@given(ENTRIES, st.lists(st.integers(0, 2), max_size=5))
def test_tokens_are_forced_and_forbidden_as_a_walk_over_the_entries_says(
    entries: Entries, tokens: list[int]
) -> None:
    lane, position = Lane("a", edits=Timeline(tuple(entries))), len(tokens)
    assert forced_at(lane, position, tokens) == forced(entries, position, tokens)
    here = [edits for at, edits in by_position(entries) if at == position]
    assert forbidden_at(lane, position) == [t for edits in here for t in edits.get("forbid", ())]


@given(ENTRIES)
def test_a_timeline_goes_through_json_unchanged(entries: Entries) -> None:
    timeline = Timeline(tuple(entries))
    assert timeline.to_json() == [[at, edits] for at, edits in by_position(entries)]
    assert Timeline.from_json(json.loads(json.dumps(timeline.to_json()))) == timeline


def number(name: str, value: object) -> None:
    if value == "item":
        raise ItemError("This item is wrong.")
    if not isinstance(value, int):
        raise InputError(f"{name} must be a number, got {value!r}.")


@pytest.mark.parametrize(
    ("position", "edit", "message"),
    [
        (0, {"rat": 1}, r"Unknown edit 'rat' of a walk\. Known: rate, words\. Did you mean 'rate'"),
        (7, {"rate": "x"}, r"^The edit cannot be applied: rate must be a number, got 'x'\.$"),
        (7, {"rate": "item"}, r"^The edit cannot be applied: This item is wrong\.$"),
        (3, {"words": "x"}, r"The edit 'words' of a walk must be at position 0, got 3\. Start"),
    ],
)
def test_an_edit_that_is_not_known_or_wrong_is_refused_at_any_position(
    position: int, edit: dict[str, Any], message: str
) -> None:
    timeline = Timeline().added(0, {"rate": 1, "words": "any"})
    timeline.check("a walk", {"rate"}, number, at_start={"words"})
    with pytest.raises(EditError, match=message):
        timeline.added(position, edit).check("a walk", {"rate"}, number, at_start={"words"})
