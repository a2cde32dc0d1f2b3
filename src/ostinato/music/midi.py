"""MIDI files (Standard MIDI 1.0): four voices written, and read on a grid of quarter notes.

Knows scores; neither sound nor model.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
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
DATA_BYTES = {0xC0: 1, 0xD0: 1}  # of program change and channel pressure; all others have two


class Note(NamedTuple):
    """A note of a track, in ticks."""

    start: int
    end: int
    pitch: int


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
    conductor = _track([(0, b"\xff\x51\x03" + microseconds.to_bytes(3, "big"))])
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

    Four tracks of one note at a time are the four voices. In other files, the pitches that sound
    together are assigned to voices; fewer than four are doubled. With `melody` more than four may
    sound: the highest is the soprano, and the other voices are silent. Warns of notes that fall
    between quarter notes and are left out. Raises `InputError` for a file that is no MIDI file or
    holds no notes.
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
        raise InputError(
            f"{path} must be a MIDI file, got: {reason(error)}. Give a .mid file."
        ) from None
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
    grid = [_grid(track, steps, division) for track in tracks]
    return LoadedMidi(_scored(path, grid, melody=melody), len(notes), missed)


def _scored(path: Path, grid: Sequence[Sequence[Sequence[int]]], *, melody: bool) -> Score:
    """Assign what sounds in each track and step to voices."""
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
    """Return the score of four tracks; the mean pitch says which voice a track is."""

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
    """Return the quarter notes at which a note sounds, up to an eighth of a quarter late."""
    late = division // 8  # files played by hand rarely start exactly on the beat
    first, end = ((tick - late + division - 1) // division for tick in (note.start, note.end))
    return range(max(0, first), end)


def _parsed(content: bytes) -> tuple[int, list[list[Note]]]:
    """Return the ticks per quarter note, and the notes of each track.

    Raises `ValueError` for what is not MIDI, with the reason.
    """
    if content[:4] != b"MThd":
        raise ValueError("no header 'MThd'")
    length, _, count, division = struct.unpack(">IHHH", content[4:14])
    if not 0 < division < 0x8000:  # the high bit marks SMPTE time
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
    """Return the notes of a track, sorted by their start.

    A status byte may be left out where it repeats (running status).
    """
    notes: list[Note] = []
    pending: dict[tuple[int, int], int] = {}
    tick = at = status = 0
    while at < len(body):
        delta, at = _number(body, at)
        tick += delta
        if body[at] & 0x80:
            status, at = body[at], at + 1
        if status in (0xF0, 0xF7, 0xFF):
            size, at = _number(body, at + (status == 0xFF))
            at, status = at + size, 0  # system and meta messages end the running status
            continue
        if status < 0x80:
            raise ValueError("a message without its kind")
        kind, size = status & 0xF0, DATA_BYTES.get(status & 0xF0, 2)
        pitch, velocity = body[at], body[at + size - 1]
        at += size
        if kind in (0x80, 0x90) and status & 0x0F != PERCUSSION:
            start = pending.pop((status & 0x0F, pitch), None)
            if start is not None and start < tick:
                notes.append(Note(start, tick, pitch))
            if kind == 0x90 and velocity:  # a note-on of velocity 0 is a note-off
                pending[status & 0x0F, pitch] = tick
    for (_, pitch), start in pending.items():  # no note-off: held to the end of the track
        if start < tick:
            notes.append(Note(start, tick, pitch))
    return sorted(notes)


def _number(body: bytes, at: int) -> tuple[int, int]:
    """Read a variable-length quantity; return it and where it ends."""
    value = 0
    for end in range(at + 1, at + 5):
        value = value << 7 | body[end - 1] & 0x7F
        if not body[end - 1] & 0x80:
            return value, end
    raise ValueError("a number of more than four bytes")
