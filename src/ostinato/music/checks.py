"""Checks of music: voice ranges, parallels, crossing, repeats, cadence.

An output is a text of chords (`ostinato.music.tokens`). All checks but the cadence have prefix
verdicts, so `backtrack` replaces the one note at fault. Knows no model.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice, pairwise
from typing import ClassVar, NamedTuple

from ostinato.arguments import counted
from ostinato.checks import POSSIBLE, BaseCheck, impossible
from ostinato.loop import Item, PrefixVerdict, Span, Verdict
from ostinato.music.score import PITCHES, REST, VOICES, Key, name_of
from ostinato.music.tokens import NOTE_OF, ORDER, chords_of, notes_of

_WORD = re.compile(r"\S+")
SUNG = ((59, 81), (52, 76), (47, 70), (36, 64))
"""What each voice sings: soprano B3 to A5, alto E3 to E5, tenor B2 to Bb4, bass C2 to E4.

Narrower than `LOWEST` to `HIGHEST`, the pitches that have tokens.
"""

BASS = 3
PERFECT = {0: "octaves", 7: "fifths"}


class RuleViolation(NamedTuple):
    """A broken rule: the message, and the characters of the text that break it."""

    message: str
    span: Span


class Beat(NamedTuple):
    """A chord, perhaps unfinished: its MIDI pitches by voice, and its characters in the text."""

    number: int  # from 1
    pitches: dict[int, int]
    start: int
    end: int

    @property
    def span(self) -> Span:
        """The characters of the chord."""
        return Span(self.start, self.end)


def beats(text: str) -> list[Beat]:
    """Return the chords of a text; the last one may be unfinished."""
    notes = notes_of(text)
    spans = [match.span() for match in _WORD.finditer(text)]
    found = []
    for at in range(0, len(notes), 4):
        some = notes[at : at + 4]
        end = spans[at + len(some) - 1][1]
        found.append(Beat(at // 4 + 1, dict(some), spans[at][0], end))
    return found


@dataclass(frozen=True, kw_only=True)
class MusicCheck(BaseCheck):
    """A check that finds violations which no continuation can undo."""

    @abstractmethod
    def violations(self, text: str) -> Iterator[RuleViolation]:
        """Yield the violations in a text, in order."""

    def judge(self, output: object, item: Item) -> Verdict:
        """Judge a piece: its score is 1 minus the violations per chord."""
        text = self.text(output)
        found = list(self.violations(text))
        chords = max(1, len(notes_of(text)) // 4)
        if not found:
            return self.verdict(True)
        score = max(0.0, 1 - len(found) / chords)
        return self.verdict(False, found[0].message, score, found[0].span)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Judge a prefix: impossible from the first violation on."""
        first = next(iter(self.violations(self.text(output))), None)
        return POSSIBLE if first is None else impossible(first.message, *first.span)


@dataclass(frozen=True, kw_only=True)
class VoiceRange(MusicCheck):
    """Each voice is written in its turn, and within `ranges`, MIDI pitches (lowest, highest)."""

    kind: ClassVar[str] = "voice_range"

    ranges: tuple[tuple[int, int], ...] = SUNG

    def __post_init__(self) -> None:
        super().__post_init__()
        pairs = tuple((int(low), int(high)) for low, high in self.ranges)
        object.__setattr__(self, "ranges", pairs)
        if len(pairs) != 4 or any(low > high for low, high in pairs):
            raise self.refuse("ranges", "four pairs of MIDI pitches", self.ranges, "Fix them.")

    def violations(self, text: str) -> Iterator[RuleViolation]:
        """Yield the notes out of range, and the first word that is no note in its turn."""
        for number, match in enumerate(_WORD.finditer(text)):
            note = NOTE_OF.get(match.group())
            span = Span(*match.span())
            beat, due = number // 4 + 1, ORDER[number % 4]
            if note is None or note[0] != due:
                expected = f"the {VOICES[due]} of chord {beat}"
                yield RuleViolation(f"Write {expected} in its turn, got {match.group()!r}.", span)
                return  # from here on, no note is in its turn
            low, high = self.ranges[due]
            if note[1] != REST and not low <= note[1] <= high:
                yield RuleViolation(
                    f"Keep the {VOICES[due]} within {name_of(low)} to {name_of(high)}: in chord "
                    f"{beat} it sings {name_of(note[1])}.",
                    span,
                )


@dataclass(frozen=True, kw_only=True)
class Parallels(MusicCheck):
    """Two voices move in parallel fifths or octaves at most `most` times; unisons are octaves."""

    kind: ClassVar[str] = "parallels"

    most: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.most < 0:
            raise self.refuse("most", "0 or more", self.most, "Give a count.")

    def violations(self, text: str) -> Iterator[RuleViolation]:
        """Yield the parallels beyond the first `most`."""
        return islice(self._parallels(text), self.most, None)

    def _parallels(self, text: str) -> Iterator[RuleViolation]:
        chords = beats(text)
        for before, beat in pairwise(chords):
            for first, second in combinations(sorted(beat.pitches), 2):
                interval = _parallel(before.pitches, beat.pitches, first, second)
                if interval is not None:
                    yield RuleViolation(
                        f"Avoid parallel {PERFECT[interval]} of {VOICES[first]} and "
                        f"{VOICES[second]}, from chord {before.number} to {beat.number}.",
                        beat.span,
                    )


def _parallel(before: dict[int, int], now: dict[int, int], first: int, second: int) -> int | None:
    """Return the perfect interval, in semitones, in which two voices move in parallel, or None."""
    pitches = before[first], before[second], now[first], now[second]
    if REST in pitches:
        return None
    high, low, new_high, new_low = pitches
    interval = (high - low) % 12
    same_direction = (new_high - high) * (new_low - low) > 0
    parallel = same_direction and interval == (new_high - new_low) % 12
    return interval if parallel and interval in PERFECT else None


@dataclass(frozen=True, kw_only=True)
class Crossing(MusicCheck):
    """No voice sings above the next higher one in a chord."""

    kind: ClassVar[str] = "crossing"

    def violations(self, text: str) -> Iterator[RuleViolation]:
        """Yield the chords in which voices cross."""
        for beat in beats(text):
            sung = sorted((voice, p) for voice, p in beat.pitches.items() if p != REST)
            for (first, high), (second, low) in combinations(sung, 2):
                if high < low:
                    yield RuleViolation(
                        f"Keep the {VOICES[first]} above the {VOICES[second]}: in chord "
                        f"{beat.number} it sings {name_of(high)} below {name_of(low)}.",
                        beat.span,
                    )


@dataclass(frozen=True, kw_only=True)
class Repeats(MusicCheck):
    """No chord is sung more than `most` times in a row, no passage more than `times` in all.

    A passage has `passage` chords. The default of 2 allows a form that repeats its first part, as
    many chorales do.
    """

    kind: ClassVar[str] = "repeats"

    most: int = 4
    passage: int = 8
    times: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("most", "passage", "times"):
            if getattr(self, name) < 1:
                raise self.refuse(name, "at least 1", getattr(self, name), "Give more.")

    def violations(self, text: str) -> Iterator[RuleViolation]:
        """Yield the chords that complete a repetition too many."""
        spans = [beat.span for beat in beats(text)]
        chords = chords_of(notes_of(text))
        row, seen = 0, dict[tuple[object, ...], list[int]]()
        for at, chord in enumerate(chords):
            row = row + 1 if at and chord == chords[at - 1] else 1
            if row > self.most:
                message = f"Move on: chord {at + 1} is sung {counted(row, 'times')} in a row."
                yield RuleViolation(message, spans[at])
                continue
            if at + 1 < self.passage:
                continue
            # Occurrences that overlap count once, or a held chord would fill its own passage.
            ends = seen.setdefault(tuple(chords[at + 1 - self.passage : at + 1]), [])
            if not ends or at - ends[-1] >= self.passage:
                ends.append(at)
                if len(ends) > self.times:
                    yield RuleViolation(
                        f"Bring something new: the {self.passage} chords up to chord {at + 1} are "
                        f"sung {counted(len(ends), 'times')}.",
                        spans[at],
                    )


@dataclass(frozen=True, kw_only=True)
class Cadence(BaseCheck):
    """The piece ends on the tonic chord, reached from the dominant or the subdominant.

    The last bass note is the tonic, held for at most `longest` chords. The last chord is a triad
    with its third; in a minor key the third may be major. The last chord on another bass is the
    dominant (on the fifth degree, or with the leading tone) or on the fourth: a plagal cadence. The
    key is the item's column `key`; without it, the last bass note is the tonic.
    """

    kind: ClassVar[str] = "cadence"

    longest: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.longest < 1:
            raise self.refuse("longest", "at least 1", self.longest, "Give more.")

    def judge(self, output: object, item: Item) -> Verdict:
        """Judge the last chord, and the one before it on another bass.

        The verdict on a missed cadence has a span: without one, `backtrack` only forbids the end,
        and the piece keeps holding its last chord (docs/log.md).
        """
        chords = [beat for beat in beats(self.text(output)) if _sounds(beat)]
        if not chords:
            return self.verdict(False, "Write chords: there is none.")
        last = chords[-1]
        tonic = Key.of(str(item["key"])).tonic if "key" in item else last.pitches[BASS] % 12
        degrees = _degrees(last, tonic)
        if last.pitches[BASS] % 12 != tonic or not degrees & {3, 4} or degrees - {0, 3, 4, 7}:
            return self.verdict(False, f"End on the chord of {PITCHES[tonic]}.", 0.0)
        before = next((b for b in reversed(chords) if b.pitches[BASS] % 12 != tonic), None)
        if before is None:
            return self.verdict(False, "Come to the last chord from the dominant.", 0.5)
        if (before.pitches[BASS] - tonic) % 12 not in (5, 7) and 11 not in _degrees(before, tonic):
            message = f"Come to the last chord from the dominant, in chord {before.number}."
            return self.verdict(False, message, 0.5, Span(before.start, last.end))
        held = [beat for beat in chords if beat.number > before.number]
        if len(held) > self.longest:
            message = f"End sooner: the last bass note is held for {counted(len(held), 'chords')}."
            return self.verdict(False, message, 0.5, Span(held[self.longest].start, last.end))
        return self.verdict(True)


def _sounds(beat: Beat) -> bool:
    """Return whether all four voices sing: an unfinished chord or a rest is no cadence."""
    return len(beat.pitches) == 4 and REST not in beat.pitches.values()


def _degrees(beat: Beat, tonic: int) -> set[int]:
    """Return the pitch classes of a chord, in semitones above the tonic."""
    return {(pitch - tonic) % 12 for pitch in beat.pitches.values()}


def all_checks() -> list[BaseCheck]:
    """Return every check of this module, at its defaults."""
    return [VoiceRange(), Crossing(), Parallels(), Repeats(), Cadence()]
