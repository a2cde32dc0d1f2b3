"""Checks of music, whole and ahead, and what they do while a piece is written."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato.decode import Decode, SamplingParams
from ostinato.errors import InputError
from ostinato.loop import PrefixStatus
from ostinato.models import LanguageModel
from ostinato.music import (
    Cadence,
    Crossing,
    Parallels,
    Repeats,
    Score,
    VoiceRange,
    all_checks,
    load_music,
    music_model,
    prompt,
    score_of,
    score_text,
)
from ostinato.music.tokens import VOCABULARY
from ostinato.refine import Backtrack, Refine, Resample, Strategy
from ostinato.testing import check_lane_process

GOOD = Score(((71, 67, 62, 43), (69, 66, 62, 50), (67, 62, 59, 43)))
FIFTHS = Score(((67, 64, 60, 48), (69, 65, 60, 53), (71, 67, 62, 55)))


def sure(output: str) -> bool:
    return True


def test_a_good_ending_passes_all() -> None:
    for check in all_checks():
        assert check.judge(score_text(GOOD), {"key": "G major"}).passed, check.name


def test_parallel_fifths_are_impossible_at_the_note_that_makes_them() -> None:
    text = "S:G4 B:C3 A:E4 T:C4\nS:A4 B:D3"
    found = Parallels().check_prefix(text, {})
    assert found.status is PrefixStatus.IMPOSSIBLE
    assert found.message == "Avoid parallel fifths of soprano and bass, from chord 1 to 2."
    assert found.span is not None and text[found.span.start :] == "S:A4 B:D3"
    assert Parallels().check_prefix("S:G4 B:C3 A:E4 T:C4\nS:A4", {}).status is PrefixStatus.POSSIBLE
    kept = "S:G4 B:C3 A:E4 T:C4\nS:G4 B:C3 A:E4 T:C4"
    contrary = "S:G4 B:C3 A:E4 T:C4\nS:A4 B:D2 A:F4 T:C4"
    assert Parallels().judge(kept, {}).passed
    assert Parallels().judge(contrary, {}).passed
    assert Parallels(most=1).judge(score_text(Score(FIFTHS.chords[:2])), {}).passed
    assert not Parallels(most=1).judge(score_text(FIFTHS), {}).passed
    octaves = "S:C5 B:C3 A:E4 T:G3\nS:D5 B:D3 A:D4 T:A3"
    assert "octaves of soprano and bass" in Parallels().judge(octaves, {}).message


def test_messages_name_the_voice_out_of_range_or_turn() -> None:
    low = VoiceRange().judge("S:Bb3 B:C3 A:E4 T:C4", {})
    assert "Keep the soprano within B3 to A5: in chord 1 it sings Bb3." in low.message
    turn = VoiceRange().check_prefix("S:G4 A:E4", {})
    assert turn.status is PrefixStatus.IMPOSSIBLE and "the bass of chord 1" in turn.message
    wide = VoiceRange(ranges=((40, 90),) * 4)
    assert wide.judge("S:Bb3 B:C3 A:E4 T:C4", {}).passed
    with pytest.raises(InputError, match="four pairs"):
        VoiceRange(ranges=((1, 2),))


def test_crossing_voices_are_found() -> None:
    verdict = Crossing().judge("S:G4 B:C3 A:A4 T:C4", {})
    assert verdict.message == "Keep the soprano above the alto: in chord 1 it sings G4 below A4."
    assert Crossing().judge("S:- B:C3 A:A4 T:C4", {}).passed


def test_repeats_of_chords_and_of_passages_are_found() -> None:
    one, two = GOOD.chords[:2]
    stuck = Score((one,) * 5)
    assert "sung 5 times in a row" in Repeats().judge(score_text(stuck), {}).message
    assert Repeats().judge(score_text(Score((one,) * 4)), {}).passed
    thrice = Score((one, two) * 3)
    assert "are sung 3 times" in Repeats(passage=2).judge(score_text(thrice), {}).message
    assert Repeats(passage=2).judge(score_text(Score((one, two) * 2)), {}).passed
    with pytest.raises(InputError, match="most"):
        Repeats(most=0)


@pytest.mark.parametrize(
    ("chords", "message"),
    [
        (GOOD.chords[:2], "End on the chord of G."),
        ((GOOD.chords[2],), "Come to the last chord from the dominant."),
        ((), "Write chords: there is none."),
        (
            (*GOOD.chords, *GOOD.chords[2:] * 6),
            "End sooner: the last bass note is held for 7 chords.",
        ),
        (
            ((69, 64, 60, 57), GOOD.chords[2]),
            "Come to the last chord from the dominant, in chord 1.",
        ),
    ],
)
def test_a_cadence_is_missed(chords: Any, message: str) -> None:
    assert Cadence().judge(score_text(Score(chords)), {"key": "G major"}).message == message


chords = st.tuples(
    st.integers(58, 82), st.integers(50, 77), st.integers(45, 71), st.integers(34, 65)
)


@given(st.lists(chords, min_size=1, max_size=8))
def test_prefix_and_whole_verdicts_never_contradict(some: list[Any]) -> None:
    text = score_text(Score(tuple(some)))
    words = text.replace("\n", " \n").split(" ")
    for check in all_checks():
        beginnings = ("\n".join([" ".join(words[:n])]) for n in range(len(words)))
        seen = [check.check_prefix(b, {}).status is PrefixStatus.IMPOSSIBLE for b in beginnings]
        assert seen == sorted(seen)  # once impossible, always
        if any(seen):
            assert not check.judge(text, {}).passed


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """An untrained model: it does not know voices, and breaks all rules."""
    return music_model(layers=1, width=16, heads=1)


def test_known_notes_are_sung_as_they_are() -> None:
    model = load_music()  # one that has learned nothing writes keys among the notes
    items = [
        {"key": "G major", "melody": "G4 A4 B4"},
        {"key": "G major", "start": score_text(GOOD)},
    ]
    rows: list[Any] = Refine(
        model,
        items,
        prompt=prompt,
        checks=[sure],
        strategy=Resample(rounds=1),
        max_new_tokens=16,
    ).run()
    words = rows[0]["reply"].split()
    assert [words[0], words[4], words[8]] == ["S:G4", "S:A4", "S:B4"] and len(words) == 12
    assert rows[0]["tokens"]["reply"] == 13  # and the end
    assert score_of(rows[1]["reply"]).chords[:3] == GOOD.chords


@pytest.mark.parametrize("column", [{"melody": "G9"}, {"start": "S:G4 A:E4"}, {"key": "H"}])
def test_what_cannot_be_read_is_an_error_of_its_item(
    column: dict[str, object], model: LanguageModel
) -> None:
    (row,) = Refine(
        model,
        [column],
        prompt=prompt,
        checks=[sure],
        strategy=Resample(rounds=1),
        max_new_tokens=8,
    ).run()
    assert row["stopped"]["kind"] == "error"  # type: ignore[index]


def test_backtracking_exchanges_the_note_that_failed() -> None:
    """An untrained network is held to voices and ranges, note by note."""
    result = {}
    model = music_model(layers=1, width=16, heads=1)
    strategies: tuple[Strategy, ...] = (Backtrack(rounds=1, token_retries=200), Resample(rounds=1))
    for strategy in strategies:
        (row,) = Refine(
            model,
            [{"key": "C major"}],
            prompt=prompt,
            checks=[VoiceRange()],
            strategy=strategy,
            sampling=SamplingParams(temperature=1.0),
            max_new_tokens=8,
        ).run()
        result[strategy.kind] = score_of(str(row["reply"]))
    assert len(result["backtrack"].chords) == 2
    assert len(result["resample"].chords) == 0


def test_pieces_in_lanes_conform(model: LanguageModel) -> None:
    items = {
        "a": {"key": "C major"},
        "b": {"key": "G minor", "melody": "G4 A4 Bb4 A4 G4"},
        "c": {"key": "D major", "start": score_text(GOOD)},
    }
    check_lane_process(
        lambda slots: Decode(
            model,
            lambda item, edits: prompt(cast(Any, item), edits),
            sampling=SamplingParams(temperature=1.0),
            slots=slots,
        ),
        items,
        steps=14,
        edits={"forbid": [list(VOCABULARY).index("\nS:G4")], "temperature": 0.5},
    )
