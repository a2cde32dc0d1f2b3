"""Scores of four voices on a grid of quarter notes, and chorales as JSON. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import NamedTuple

from ostinato.errors import InputError
from ostinato.text_files import read_object

VOICES = ("soprano", "alto", "tenor", "bass")
SPELLED = {"DB": "C#", "D#": "Eb", "GB": "F#", "G#": "Ab", "A#": "Bb", "CB": "B", "B#": "C"}
SPELLED |= {"E#": "F", "FB": "E"}
"""Enharmonic spellings, in capitals, to those of `PITCHES`."""
PITCHES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
REST = 0
"""The pitch of a voice that is silent."""

LOWEST = (58, 50, 45, 34)
HIGHEST = (82, 77, 71, 65)
"""The pitches that each voice has tokens for: what it sings, and a few semitones more."""

Chord = tuple[int, int, int, int]
"""The MIDI pitches of soprano, alto, tenor and bass in one step; `REST` where one is silent."""


class Key(NamedTuple):
    """A key: its tonic as a pitch class, and its mode."""

    tonic: int
    minor: bool = False

    def __str__(self) -> str:
        return f"{PITCHES[self.tonic]} {'minor' if self.minor else 'major'}"

    @classmethod
    def of(cls, name: str) -> Key:
        """Read a name such as `G minor` or `Db major`. Raises `InputError` for any other."""
        first, *mode = name.replace("-", " ").split() or [""]
        words = [SPELLED.get(first.upper(), first), *mode]
        for key in KEYS:
            if str(key).lower().split() == [word.lower() for word in words]:
                return key
        raise InputError(
            f"A key must be one of {', '.join(PITCHES)}, then major or minor, got {name!r}. "
            "Write for example 'G minor'."
        )


KEYS = tuple(Key(tonic, minor) for minor in (False, True) for tonic in range(12))


@dataclass(frozen=True)
class Score:
    """A piece for four voices, one chord for each quarter note."""

    chords: tuple[Chord, ...]

    def moved(self, semitones: int) -> Score:
        """Return the piece transposed by `semitones`; rests stay rests."""
        return Score(
            tuple(
                _chord([pitch + semitones if pitch else REST for pitch in chord])
                for chord in self.chords
            )
        )

    @property
    def fits(self) -> bool:
        """Whether each voice stays within `LOWEST` and `HIGHEST`."""
        return all(
            pitch == REST or LOWEST[voice] <= pitch <= HIGHEST[voice]
            for chord in self.chords
            for voice, pitch in enumerate(chord)
        )

    def key(self) -> Key:
        """Return the key: the tonic is the last bass note; the more frequent third is the mode's.

        Raises `InputError` for a score without a bass.
        """
        # By the end, not the start: a tonal piece may start anywhere, but closes on its tonic.
        last = next((c[3] for c in reversed(self.chords) if c[3]), None)
        if last is None:
            raise InputError(
                "A score must hold a bass note to find its key, got none. Give the key."
            )
        classes = [pitch % 12 for chord in self.chords for pitch in chord if pitch]
        tonic = last % 12
        minor = classes.count((tonic + 3) % 12) > classes.count((tonic + 4) % 12)
        return Key(tonic, minor)


def name_of(pitch: int) -> str:
    """Return a pitch's name, such as `F#4`; C4 is MIDI pitch 60, and `-` a rest."""
    return "-" if pitch == REST else f"{PITCHES[pitch % 12]}{pitch // 12 - 1}"


def read_chorales(path: str | Path) -> dict[str, list[Score]]:
    """Read chorales in the JSON layout of the JSB-Chorales-dataset, by split.

    `train`, `valid` and `test` each hold chorales. A chorale is a list of quarter notes, each a
    list of the MIDI pitches that sound. Raises `InputError` for anything else.
    """
    fix = "Give quarter.json of the JSB-Chorales-dataset, or a folder of MIDI files."
    splits = read_object(path, fix=fix)
    try:
        return {
            name: [voiced(chorale) for chorale in chorales]
            for name, chorales in splits.items()
            if chorales
        }
    except (ValueError, TypeError, OverflowError) as error:
        reason = str(error).rstrip(".")
        raise InputError(
            f"{path} must hold chorales as {{'train': [[[pitch, ...], ...], ...]}}, got: {reason}. "
            f"{fix}"
        ) from None


def voiced(steps: Sequence[Sequence[int]]) -> Score:
    """Assign the pitches of each step to voices, by least total movement from the step before.

    A step of fewer than four pitches doubles some; one without pitches is a rest of all voices.
    Raises `InputError` where a step has more than four.
    """
    # The first full chord says where the voices lie; a step before it may have fewer pitches.
    reference = next(
        (sorted(step, reverse=True) for step in steps if len(step) == 4), [72, 67, 60, 48]
    )
    before, chords = _chord(reference), []
    for step in steps:
        if not step:
            chords.append((REST,) * 4)
            continue
        before = min(
            _voicings([int(pitch) for pitch in step]),
            key=lambda chord: sum(abs(a - b) for a, b in zip(chord, before, strict=True)),
        )
        chords.append(before)
    return Score(tuple(chords))


def _voicings(pitches: Sequence[int]) -> list[Chord]:
    """Return every chord, highest voice first, that sounds exactly these pitches."""
    distinct = sorted(set(pitches), reverse=True)
    if len(distinct) > 4 or not all(0 < pitch < 128 for pitch in distinct):
        raise InputError(
            f"A step must hold up to four MIDI pitches from 1 to 127, got {list(pitches)}. "
            "A chorale has four voices."
        )
    chords = combinations_with_replacement(distinct, 4)
    return [_chord(chord) for chord in chords if set(chord) == set(distinct)]


def _chord(pitches: Sequence[int]) -> Chord:
    soprano, alto, tenor, bass = pitches
    return soprano, alto, tenor, bass
