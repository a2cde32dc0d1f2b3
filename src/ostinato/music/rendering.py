"""A score as sound: four voices like a small choir in a church, by additive synthesis."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ostinato.errors import InputError
from ostinato.music.midi import held
from ostinato.music.score import REST, Score

RATE = 32_000  # samples a second
TABLE = 4096  # samples of a period
SINGERS = (-4.0, 0.0, 5.0)  # cents that the singers of a voice are off
PANS = (0.35, 0.62, 0.42, 0.55)  # soprano, alto, tenor, bass, from left (0) to right (1)
LOUDNESS = (1.0, 0.75, 0.8, 0.95)
FORMANTS = ((650.0, 1.0, 130.0), (1080.0, 0.5, 160.0), (2650.0, 0.12, 250.0))  # Hz, height, width
ATTACK, RELEASE, HALL = 0.06, 0.18, 1.1  # seconds
Samples = NDArray[np.float64]


def render(score: Score, *, tempo: float = 72.0) -> Samples:
    """Return stereo samples (N, 2) in [-1, 1]; the last chord is held and slows down.

    Each voice is three singers, a little out of tune, of a sound with the formants of an "ah".
    """
    if not score.chords:
        raise InputError("There must be a chord to play, got none. Give a longer piece.")
    if not 10 <= tempo <= 400:
        raise InputError(f"tempo must be 10 to 400 quarter notes a minute, got {tempo}. Take 72.")
    quarter = 60 / tempo
    length = round((len(score.chords) + 1) * quarter * RATE) + RATE // 2
    sides = np.zeros((length, 2))
    for voice in range(4):
        line = _voice(score, voice, quarter, length) * LOUDNESS[voice]
        angle = PANS[voice] * np.pi / 2
        sides += line[:, None] * np.array([np.cos(angle), np.sin(angle)])
    sides = _in_hall(sides)
    return np.asarray(0.9 * sides / max(1e-9, np.abs(sides).max()), dtype=np.float64)


def write_wav(score: Score, path: str | Path, *, tempo: float = 72.0) -> Path:
    """Write the sound as a WAV file of 16 bits, stereo."""
    samples = np.round(render(score, tempo=tempo) * 32767).astype("<i2")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return path


def _voice(score: Score, voice: int, quarter: float, length: int) -> Samples:
    line = np.zeros(length)
    for note in held(score, voice):
        if note.pitch == REST:
            continue
        last = note.start + note.steps == len(score.chords)
        seconds = (note.steps + last) * quarter
        sound = _note(note.pitch, seconds)
        at = round(note.start * quarter * RATE)
        end = min(length, at + len(sound))
        line[at:end] += sound[: end - at]
    return line


def _note(pitch: int, seconds: float) -> Samples:
    """Return a note, which fades for a little longer than its time."""
    count = round((seconds + RELEASE) * RATE)
    time = np.arange(count) / RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    swell = np.minimum(1, time / 0.5)  # the vibrato comes when a note is held
    table = _period(frequency)
    sound = np.zeros(count)
    for number, cents in enumerate(SINGERS):
        rate = 5.0 + 0.3 * number
        bend = 0.0035 * swell * np.sin(2 * np.pi * rate * time + number)
        phase = np.cumsum(frequency * 2 ** (cents / 1200) * (1 + bend)) / RATE + number / 3
        sound += table[(phase % 1 * TABLE).astype(np.int64)]
    rise = np.minimum(1, time / ATTACK)
    fall = np.clip((seconds + RELEASE - time) / RELEASE, 0, 1)
    return np.asarray(sound * np.sin(rise * np.pi / 2) * fall**2, dtype=np.float64)


def _period(frequency: float) -> Samples:
    """Return one period of the voice's sound, its overtones below half the rate."""
    phase = 2 * np.pi * np.arange(TABLE) / TABLE
    period = np.zeros(TABLE)
    for overtone in range(1, int(min(24, 0.45 * RATE / frequency)) + 1):
        at = overtone * frequency
        ring = sum(h * np.exp(-(((at - f) / (2 * w)) ** 2)) for f, h, w in FORMANTS)
        period += (0.25 + ring) / overtone * np.sin(overtone * phase)
    return period


def _in_hall(sides: Samples) -> Samples:
    """Add the room: a tail of noise that dies away, another one for each side."""
    count = round(HALL * RATE)
    noise = np.random.default_rng(0).standard_normal((count, 2))
    tail = noise * np.exp(-np.arange(count) * 5 / count)[:, None]
    tail *= 0.35 / np.sqrt((tail**2).sum(0))
    size = len(sides) + count - 1
    spectrum: Any = np.fft.rfft(sides, size, axis=0) * np.fft.rfft(tail, size, axis=0)
    wet = np.fft.irfft(spectrum, size, axis=0)
    wet[: len(sides)] += sides
    return np.asarray(wet, dtype=np.float64)


COLORS = ((204, 51, 68), (230, 145, 30), (60, 150, 90), (50, 95, 175))
WIDE, HIGH = 14, 7  # pixels of a quarter note and of a semitone


def piano_roll(score: Score, path: str | Path) -> Path:
    """Write a PNG; octaves are lines at each C."""
    pitches = [pitch for chord in score.chords for pitch in chord if pitch != REST]
    if not pitches:
        raise InputError("There must be a note to show, got none. Give another piece.")
    low, high = min(pitches) - 2, max(pitches) + 2
    size = len(score.chords) * WIDE + 1, (high - low + 1) * HIGH
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for pitch in range(low, high + 1):
        if pitch % 12 == 0:
            y = (high - pitch + 1) * HIGH
            draw.line((0, y, size[0], y), fill=(205, 205, 205))
    for voice, color in reversed(list(enumerate(COLORS))):
        for note in held(score, voice):
            if note.pitch != REST:
                x, y = note.start * WIDE, (high - note.pitch) * HIGH
                box = (x + 1, y, x + note.steps * WIDE - 1, y + HIGH - 1)
                draw.rounded_rectangle(box, 2, fill=color)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path
