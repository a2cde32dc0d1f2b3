"""MIDI files (Standard MIDI 1.0): four voices written, and read on a grid of quarter notes.

Knows scores; neither sound nor model.
"""

from __future__ import annotations

import struct
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from ostinato.arguments import reason, require
from ostinato.errors import InputError
from ostinato.music.score import REST, VOICES, Score, voiced

DIVISION = 480  # ticks per quarter note
CHOIR = 52  # "Choir Aahs" of General MIDI
MOST_STEPS = 20_000  # quarter notes: some hours of music, against damaged files
PERCUSSION = 9  # the channel whose note numbers are drums, not pitches
LENGTH = b"end"  # the marker at which a piece ends: it may end with rests
NAME, MARKER = 0x03, 0x06  # kinds of meta messages
DATA_BYTES = {0xC0: 1, 0xD0: 1}  # of program change and channel pressure; all others have two
SYSTEM_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # of system messages without a length; others: none


class Note(NamedTuple):
    """A note of a track, in ticks."""

    start: int
    end: int
    pitch: int


@dataclass(slots=True)
class Track:
    """A track: its name, the notes of each channel by their start, and the tick of its marker."""

    name: str = ""
    notes: dict[int, list[Note]] = field(default_factory=lambda: defaultdict(list))
    end: int = 0  # of the piece, where a marker tells it


class LoadedMidi(NamedTuple):
    """A file's score, its number of notes, and how many of them fall between quarter notes."""

    score: Score
    notes: int
    missed: int


class HeldNote(NamedTuple):
    """A pitch that a voice holds, in quarter notes; `REST` where it is silent."""

    start: int
    steps: int
    pitch: int


def held_notes(score: Score, voice: int) -> Iterator[HeldNote]:
    """Yield a voice's notes. A chord repeated in all voices is held, not struck again."""
    start = 0
    for chord, group in groupby(score.chords):
        steps = len(list(group))
        yield HeldNote(start, steps, chord[voice])
        start += steps


# Writing ----------------------------------------------------------------------------------------


def write_midi(score: Score, path: str | Path, *, tempo: float = 72.0) -> Path:
    """Write a track for each voice; `tempo` is in quarter notes a minute, 10 to 400."""
    check_tempo(tempo)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    microseconds = round(60_000_000 / tempo)  # of a quarter note
    end = len(score.chords) * DIVISION
    conductor = _track(
        [
            (0, b"\xff\x51\x03" + microseconds.to_bytes(3, "big")),
            (end, bytes([0xFF, MARKER, len(LENGTH)]) + LENGTH),
        ],
        end=end,
    )
    tracks = [conductor, *(_voice_track(score, voice) for voice in range(4))]
    header = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), DIVISION)
    path.write_bytes(header + b"".join(tracks))
    return path


def check_tempo(tempo: float) -> None:
    """Raise `InputError` where a tempo cannot be written or played."""
    require(10 <= tempo <= 400, "tempo", "10 to 400 quarter notes a minute", tempo, "Use 72.")


def _voice_track(score: Score, voice: int) -> bytes:
    """Return a voice's track. The channel is the voice's, so that a player can balance them."""
    name = VOICES[voice].encode()
    events = [
        (0, b"\xff\x03" + bytes([len(name)]) + name),
        (0, bytes([0xC0 | voice, CHOIR])),
    ]
    for note in held_notes(score, voice):
        if note.pitch != REST:
            start, end = note.start * DIVISION, (note.start + note.steps) * DIVISION
            events.append((start, bytes([0x90 | voice, note.pitch, 80])))  # velocity, up to 127
            events.append((end, bytes([0x80 | voice, note.pitch, 0])))
    return _track(events, end=len(score.chords) * DIVISION)


def _track(events: Sequence[tuple[int, bytes]], end: int = 0) -> bytes:
    """Return a track chunk of messages at ticks, in order; `end` is the tick of its end."""
    body, now = b"", 0
    for tick, message in [*events, (end, b"\xff\x2f\x00")]:
        body += _variable(tick - now) + message
        now = tick
    return b"MTrk" + struct.pack(">I", len(body)) + body


def _variable(value: int) -> bytes:
    """Return a variable-length quantity: groups of seven bits, the highest first."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | value & 0x7F)
    return bytes(reversed(groups))


# Reading ----------------------------------------------------------------------------------------


def read_midi(path: str | Path, *, melody: bool = False) -> Score:
    """Read what sounds at each quarter note.

    A note sounds at a quarter where it is on an eighth of a quarter later: it may begin and end
    that much late, and may be as short. Four tracks or channels of one note at a time are the four
    voices, by their names (soprano, alto, tenor, bass) or else by their mean pitch. In other files,
    the pitches that sound together are assigned to voices; fewer than four are doubled. With
    `melody` more than four may sound: the highest is the soprano, and the other voices are silent.
    Warns of notes that fall between quarter notes and are left out. Raises `InputError` for a file
    that is no MIDI file or holds no notes.
    """
    loaded = load_midi(path, melody=melody)
    if loaded.missed:
        warnings.warn(
            f"{path}: {loaded.missed} of {loaded.notes} notes sound between two quarter notes and "
            "are left out. Give a file whose chords change with the quarters.",
            stacklevel=2,
        )
    return loaded.score


def load_midi(path: str | Path, *, melody: bool = False) -> LoadedMidi:
    """Read a file as `read_midi` does, but count the notes that are left out instead of warning."""
    path = Path(path)
    try:
        division, tracks = _parsed(path.read_bytes())
    except (OSError, ValueError, IndexError, struct.error) as error:
        cut = isinstance(error, IndexError | struct.error)
        why = "a file that is cut off" if cut else reason(error)
        raise InputError(f"{path} must be a MIDI file, got: {why}. Give a .mid file.") from None
    parts = [notes for track in tracks for notes in track.notes.values() if notes]
    notes = [note for part in parts for note in part]
    ends = [_steps(note, division).stop for note in notes if _steps(note, division)]
    if not ends:
        raise InputError(f"{path} must hold notes, got none. Give another file.")
    marked = max(track.end for track in tracks)
    steps = max(*ends, (2 * marked + division) // (2 * division))  # the nearest; half goes up
    if steps > MOST_STEPS:
        raise InputError(
            f"{path} must last at most {MOST_STEPS} quarter notes, got {steps}. Cut it."
        )
    missed = sum(not _steps(note, division) for note in notes)
    score = _of_named(tracks, steps, division) or _of_four(parts, steps, division)
    if score is None:
        grid = [_grid(part, steps, division) for part in parts]
        score = _of_chords(path, grid, melody=melody)
    return LoadedMidi(score, len(notes), missed)


def _of_named(tracks: Sequence[Track], steps: int, division: int) -> Score | None:
    """Return the score of tracks that are named as the voices are; None where they are not."""
    named: dict[str, list[list[Note]]] = {voice: [] for voice in VOICES}
    for track in tracks:
        name = track.name.strip().lower()
        parts = [notes for notes in track.notes.values() if notes]
        if name not in named and parts:
            return None  # something else sounds, too
        named.get(name, []).append([note for part in parts for note in part])
    if any(len(found) != 1 for found in named.values()):
        return None
    return _of_lines([_line(named[voice][0], steps, division) for voice in VOICES])


def _of_four(parts: Sequence[Sequence[Note]], steps: int, division: int) -> Score | None:
    """Return the score of four parts of one note at a time; None of any others.

    The mean pitch says which voice a part is.
    """
    if len(parts) != 4:
        return None

    def height(line: Sequence[int] | None) -> float:
        pitches = [pitch for pitch in line or () if pitch != REST]
        return sum(pitches) / max(1, len(pitches))

    return _of_lines(
        sorted((_line(part, steps, division) for part in parts), key=height, reverse=True)
    )


def _of_lines(lines: Sequence[list[int] | None]) -> Score | None:
    """Return the score of four lines, highest voice first; None where one is None."""
    if any(line is None for line in lines):
        return None
    S, A, T, B = (line or [] for line in lines)
    return Score(tuple(zip(S, A, T, B, strict=True)))


def _line(notes: Sequence[Note], steps: int, division: int) -> list[int] | None:
    """Return the pitch at each step, `REST` where none sounds; None where two sound at once.

    A note that ends less than half a quarter after the next one began is played legato: it has
    ended.
    """
    line: list[Note | None] = [None] * steps
    for note in sorted(notes):
        for step in _steps(note, division):
            before = line[step]
            if before is not None and _together(before, note, division):
                return None
            line[step] = note
    return [REST if note is None else note.pitch for note in line]


def _together(before: Note, note: Note, division: int) -> bool:
    """Return whether two notes are meant to sound together; `note` does not begin first."""
    if before.pitch == note.pitch:
        return False
    return before.start == note.start or 2 * (before.end - note.start) >= division


def _of_chords(path: Path, grid: Sequence[Sequence[Sequence[int]]], *, melody: bool) -> Score:
    """Assign what sounds in each part and step to voices."""
    chords = [sorted({p for pitches in step for p in pitches}) for step in zip(*grid, strict=True)]
    if melody and any(len(chord) > 4 for chord in chords):
        return Score(tuple((max(chord, default=REST), REST, REST, REST) for chord in chords))
    try:
        return voiced(chords)
    except InputError as error:
        raise InputError(f"{path} cannot be read as four voices: {error}") from None


def _grid(notes: Sequence[Note], steps: int, division: int) -> list[list[int]]:
    """Return the pitches that sound at each step."""
    grid: list[list[int]] = [[] for _ in range(steps)]
    for note in notes:
        for step in _steps(note, division):
            if step < steps:
                grid[step].append(note.pitch)
    return grid


def _steps(note: Note, division: int) -> range:
    """Return the quarters at which a note is on, an eighth of a quarter after each.

    Where that is no whole tick, the tick before it decides.
    """
    late = division // 8  # files played by hand rarely start exactly on the beat
    first, end = ((tick - late + division - 1) // division for tick in (note.start, note.end))
    return range(max(0, first), max(0, end))


def _parsed(content: bytes) -> tuple[int, list[Track]]:
    """Return the ticks per quarter note, and the tracks.

    Raises `ValueError` for what is not MIDI, with the reason.
    """
    if content[:4] != b"MThd":
        raise ValueError("no header 'MThd'")
    length, form, count, division = struct.unpack(">IHHH", content[4:14])
    if form == 2:  # its tracks do not sound together
        raise ValueError("format 2, which holds several pieces")
    if not 0 < division < 0x8000:  # the high bit marks SMPTE time
        raise ValueError("a grid of seconds instead of quarter notes")
    tracks, at = list[Track](), 8 + length
    while len(tracks) < count:  # chunks of other kinds are skipped, and not counted
        kind, size = struct.unpack(">4sI", content[at : at + 8])
        if at + 8 + size > len(content):
            raise ValueError("a track that is cut off")
        if kind == b"MTrk":
            tracks.append(_track_of(content[at + 8 : at + 8 + size]))
        at += 8 + size
    return division, tracks or [Track()]


def _track_of(body: bytes) -> Track:
    """Read a track. A status byte may be left out where it repeats (running status).

    System and meta messages should end that, but many files go on with it.
    """
    track, sounding = Track(), _Sounding()
    tick = at = running = 0
    while at < len(body):
        delta, at = _number(body, at)
        tick += delta
        status = running
        if body[at] & 0x80:
            status, at = body[at], at + 1
        if status in (0xF0, 0xF7, 0xFF):
            size, start = _number(body, at + (status == 0xFF))
            if status == 0xFF:
                _read_meta(track, body[at], body[start : start + size], tick)
            at = start + size
            continue
        if status > 0xF0:
            at += SYSTEM_BYTES.get(status, 0)
            continue
        running = status
        if status < 0x80:
            raise ValueError("a message without its kind")
        kind, size = status & 0xF0, DATA_BYTES.get(status & 0xF0, 2)
        pitch, velocity = body[at], body[at + size - 1]
        at += size
        if status & 0x0F == PERCUSSION:
            continue
        if kind == 0x90 and velocity:
            sounding.begin(status & 0x0F, pitch, tick)
        elif kind in (0x80, 0x90):  # a note-on of velocity 0 is a note-off
            sounding.end(status & 0x0F, pitch, tick)
    track.notes.update(sounding.notes(tick))
    return track


def _read_meta(track: Track, kind: int, content: bytes, tick: int) -> None:
    if kind == NAME:
        track.name = content.decode("latin-1")
    elif kind == MARKER and content == LENGTH:
        track.end = tick


class _Sounding:
    """The notes of a track while it is read: of one pitch, the first that began ends first."""

    def __init__(self) -> None:
        self._begun: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._ended: dict[tuple[int, int], list[Note]] = defaultdict(list)

    def begin(self, channel: int, pitch: int, tick: int) -> None:
        """Begin a note; another one of its pitch may still sound."""
        self._begun[channel, pitch].append(tick)

    def end(self, channel: int, pitch: int, tick: int) -> None:
        """End the note of the pitch that began first; nothing where none sounds."""
        begun = self._begun[channel, pitch]
        if begun:
            self._ended[channel, pitch].append(Note(begun.pop(0), tick, pitch))

    def notes(self, last: int) -> Mapping[int, list[Note]]:
        """Return the notes of each channel by their start; `last` is the tick of the track's end.

        A note without an end of its own ends with the one that its pitch had before it, if that
        ended later than it began, and else with the track.
        """
        notes: dict[int, list[Note]] = defaultdict(list)
        for (channel, _), ended in self._ended.items():
            notes[channel] += ended
        for (channel, pitch), begun in self._begun.items():
            end = max((note.end for note in self._ended[channel, pitch]), default=0)
            notes[channel] += [Note(at, end if end > at else last, pitch) for at in begun]
        return {channel: sorted(each) for channel, each in notes.items()}


def _number(body: bytes, at: int) -> tuple[int, int]:
    """Read a variable-length quantity; return it and where it ends."""
    value = 0
    for end in range(at + 1, at + 5):
        value = value << 7 | body[end - 1] & 0x7F
        if not body[end - 1] & 0x80:
            return value, end
    raise ValueError("a number of more than four bytes")
