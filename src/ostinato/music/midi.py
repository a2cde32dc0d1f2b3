"""MIDI files of four voices: written, and read on a grid of quarter notes (Standard MIDI 1.0)."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from ostinato.errors import InputError
from ostinato.music.score import REST, VOICES, Score, voiced

DIVISION = 480  # ticks of a quarter note
CHOIR = 52  # "Choir Aahs" of General MIDI
MOST_STEPS = 20_000  # quarter notes: some hours
PERCUSSION = 9  # the channel whose notes are no pitches
META_LENGTHS = {0xC0: 1, 0xD0: 1}  # bytes of a message; all others have two


class Note(NamedTuple):
    """A note of a track, in ticks."""

    start: int
    end: int
    pitch: int


class Heard(NamedTuple):
    """What a file was read as: its score, its notes, and how many of them no quarter note meets."""

    score: Score
    notes: int
    missed: int


class Held(NamedTuple):
    """A pitch that a voice holds for some steps; `REST` where it is silent."""

    start: int
    steps: int
    pitch: int


def held(score: Score, voice: int) -> Iterator[Held]:
    """Yield a voice's notes. A chord that is repeated whole is held; else each note is struck."""
    start = 0
    for chord, group in groupby(score.chords):
        steps = len(list(group))
        yield Held(start, steps, chord[voice])
        start += steps


# Writing ----------------------------------------------------------------------------------------


def write_midi(score: Score, path: str | Path, *, tempo: float = 72.0) -> Path:
    """Write a track for each voice; `tempo` is in quarter notes a minute."""
    if not 10 <= tempo <= 400:
        raise InputError(f"tempo must be 10 to 400 quarter notes a minute, got {tempo}. Take 72.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    micros = round(60_000_000 / tempo)
    head = _track([(0, b"\xff\x51\x03" + micros.to_bytes(3, "big"))])
    tracks = [head, *(_voice_track(score, voice) for voice in range(4))]
    header = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), DIVISION)
    path.write_bytes(header + b"".join(tracks))
    return path


def _voice_track(score: Score, voice: int) -> bytes:
    name = VOICES[voice].encode()
    events = [
        (0, b"\xff\x03" + bytes([len(name)]) + name),
        (0, bytes([0xC0 | voice, CHOIR])),
    ]
    for note in held(score, voice):
        if note.pitch != REST:
            start, end = note.start * DIVISION, (note.start + note.steps) * DIVISION
            events.append((start, bytes([0x90 | voice, note.pitch, 80])))
            events.append((end, bytes([0x80 | voice, note.pitch, 0])))
    return _track(events, end=len(score.chords) * DIVISION)


def _track(events: Sequence[tuple[int, bytes]], end: int = 0) -> bytes:
    body, now = b"", 0
    for tick, message in [*events, (end, b"\xff\x2f\x00")]:
        body += _variable(tick - now) + message
        now = tick
    return b"MTrk" + struct.pack(">I", len(body)) + body


def _variable(value: int) -> bytes:
    """Return a number in groups of seven bits, the highest first."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | value & 0x7F)
    return bytes(reversed(groups))


# Reading ----------------------------------------------------------------------------------------


def read_midi(path: str | Path, *, melody: bool = False) -> Score:
    """Read what sounds at each quarter note.

    Four tracks of one note at a time are the four voices, the highest first; of other files the
    pitches that sound together are given to voices, the same pitch to more than one where there
    are fewer. For a `melody` a file may hold more than four at a time: then it is the highest of
    each quarter note, as the soprano of a score whose other voices are silent. Warns of notes that
    sound between two quarter notes only and are left out. Raises `InputError` for a file that is
    none, or holds no notes.
    """
    heard = hear(path, melody=melody)
    if heard.missed:
        warnings.warn(
            f"{path}: {heard.missed} of {heard.notes} notes sound between two quarter notes and "
            "are left out. Give a file whose chords change with the quarters.",
            stacklevel=2,
        )
    return heard.score


def hear(path: str | Path, *, melody: bool = False) -> Heard:
    """Read a file as `read_midi` does, and count what is left out in place of a warning."""
    path = Path(path)
    try:
        division, tracks = _parsed(path.read_bytes())
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise InputError(f"{path} must be a MIDI file, got: {error}. Give a .mid file.") from None
    tracks = [notes for notes in tracks if notes]
    steps = max((round(note.end / division) for notes in tracks for note in notes), default=0)
    if steps == 0:
        raise InputError(f"{path} must hold notes, got none. Give another file.")
    if steps > MOST_STEPS:
        raise InputError(
            f"{path} must last at most {MOST_STEPS} quarter notes, got {steps}. Cut it."
        )
    notes = [note for notes in tracks for note in notes]
    missed = sum(not _steps(note, division) for note in notes)
    grid = [_grid(of, steps, division) for of in tracks]
    return Heard(_scored(path, grid, melody=melody), len(notes), missed)


def _scored(path: Path, grid: Sequence[Sequence[Sequence[int]]], *, melody: bool) -> Score:
    """Give what sounds in each track and step to voices."""
    if len(grid) == 4 and all(len(pitches) <= 1 for voice in grid for pitches in voice):
        return _in_voices(grid)
    chords = [sorted({p for pitches in step for p in pitches}) for step in zip(*grid, strict=True)]
    if melody and any(len(chord) > 4 for chord in chords):
        return Score(tuple((max(chord, default=REST), REST, REST, REST) for chord in chords))
    try:
        return voiced(chords)
    except InputError as error:
        raise InputError(f"{path} cannot be read as four voices: {error}") from None


def _in_voices(grid: Sequence[Sequence[Sequence[int]]]) -> Score:
    def height(voice: Sequence[Sequence[int]]) -> float:
        pitches = [pitch for step in voice for pitch in step]
        return sum(pitches) / max(1, len(pitches))

    S, A, T, B = sorted(grid, key=height, reverse=True)
    lines = [[step[0] if step else REST for step in voice] for voice in (S, A, T, B)]
    return Score(tuple(zip(*lines, strict=True)))


def _grid(notes: Sequence[Note], steps: int, division: int) -> list[list[int]]:
    """Return the pitches that sound at each step."""
    grid: list[list[int]] = [[] for _ in range(steps)]
    for note in notes:
        for step in _steps(note, division):
            if step < steps:
                grid[step].append(note.pitch)
    return grid


def _steps(note: Note, division: int) -> range:
    """Return the quarter notes at which a note sounds; what is played a little late counts too."""
    late = division // 8
    first, end = ((tick - late + division - 1) // division for tick in (note.start, note.end))
    return range(max(0, first), end)


def _parsed(content: bytes) -> tuple[int, list[list[Note]]]:
    """Return the ticks of a quarter note, and the notes of each track."""
    if content[:4] != b"MThd":
        raise ValueError("no header 'MThd'")
    length, _, count, division = struct.unpack(">IHHH", content[4:14])
    if not 0 < division < 0x8000:
        raise ValueError("a grid of seconds instead of quarter notes")
    tracks, at = [], 8 + length
    for _ in range(count):
        kind, size = struct.unpack(">4sI", content[at : at + 8])
        if at + 8 + size > len(content):
            raise ValueError("a track that is cut off")
        if kind == b"MTrk":
            tracks.append(_notes(content[at + 8 : at + 8 + size]))
        at += 8 + size
    return division, tracks


def _notes(body: bytes) -> list[Note]:
    """Return the notes of a track, by their beginnings."""
    notes: list[Note] = []
    open_: dict[tuple[int, int], int] = {}
    tick = at = status = 0
    while at < len(body):
        delta, at = _number(body, at)
        tick += delta
        if body[at] & 0x80:
            status, at = body[at], at + 1
        if status in (0xF0, 0xF7, 0xFF):
            size, at = _number(body, at + (status == 0xFF))
            at, status = at + size, 0  # the next message must name its kind
            continue
        if status < 0x80:
            raise ValueError("a message without its kind")
        kind, size = status & 0xF0, META_LENGTHS.get(status & 0xF0, 2)
        pitch, loud = body[at], body[at + size - 1]
        at += size
        if kind in (0x80, 0x90) and status & 0x0F != PERCUSSION:
            begun = open_.pop((status & 0x0F, pitch), None)
            if begun is not None and begun < tick:
                notes.append(Note(begun, tick, pitch))
            if kind == 0x90 and loud:
                open_[status & 0x0F, pitch] = tick
    for (_, pitch), begun in open_.items():  # never let go of: till the end of the track
        if begun < tick:
            notes.append(Note(begun, tick, pitch))
    return sorted(notes)


def _number(body: bytes, at: int) -> tuple[int, int]:
    """Read a number in groups of seven bits; return it and where it ends."""
    value = 0
    for end in range(at + 1, at + 5):
        value = value << 7 | body[end - 1] & 0x7F
        if not body[end - 1] & 0x80:
            return value, end
    raise ValueError("a number of more than four bytes")
