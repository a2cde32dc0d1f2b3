"""A score as sound and as an image: a small choir in a church, and a piano roll.

The sound is additive synthesis: each note is a sum of sine waves. Knows no MIDI file and no model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ostinato.errors import InputError
from ostinato.media import save_wav
from ostinato.music.midi import check_tempo, held_notes
from ostinato.music.score import REST, Score

RATE = 32_000  # samples a second
TABLE = 4096  # samples in the wave table of one period
SINGERS = (-4.0, 0.0, 5.0)  # how far each singer of a voice is out of tune, in cents
PANS = (0.35, 0.62, 0.42, 0.55)  # soprano, alto, tenor, bass, from left (0) to right (1)
LOUDNESS = (1.0, 0.75, 0.8, 0.95)
FORMANTS = ((650.0, 1.0, 130.0), (1080.0, 0.5, 160.0), (2650.0, 0.12, 250.0))  # Hz, height, width
ATTACK, RELEASE, HALL = 0.06, 0.18, 1.1  # seconds
Samples = NDArray[np.float64]


def render(score: Score, *, tempo: float = 72.0) -> Samples:
    """Return stereo samples (N, 2) in [-1, 1], `RATE` a second; the last chord is held longer.

    Each voice is three singers, slightly out of tune, with the formants of an "ah".
    """
    if not score.chords:
        raise InputError("There must be a chord to play, got none. Give a longer piece.")
    check_tempo(tempo)
    quarter = 60 / tempo
    # One quarter more for the last chord, which is held; half a second more for its release.
    length = round((len(score.chords) + 1) * quarter * RATE) + RATE // 2
    stereo = np.zeros((length, 2))
    for voice in range(4):
        line = _voice(score, voice, quarter, length) * LOUDNESS[voice]
        angle = PANS[voice] * np.pi / 2
        # Constant-power panning: cos^2 + sin^2 = 1, so no voice is louder in the middle.
        stereo += line[:, None] * np.array([np.cos(angle), np.sin(angle)])
    stereo = _in_hall(stereo)
    return np.asarray(0.9 * stereo / max(1e-9, np.abs(stereo).max()), dtype=np.float64)


def write_wav(score: Score, path: str | Path, *, tempo: float = 72.0) -> Path:
    """Write the sound as a 16-bit stereo WAV file; `tempo` is in quarter notes a minute."""
    return save_wav(render(score, tempo=tempo), path, rate=RATE)


def _voice(score: Score, voice: int, quarter: float, length: int) -> Samples:
    line = np.zeros(length)
    for note in held_notes(score, voice):
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
    """Return the samples of a note; its release rings on after `seconds`."""
    count = round((seconds + RELEASE) * RATE)
    time = np.arange(count) / RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    swell = np.minimum(1, time / 0.5)  # singers begin straight; vibrato comes on a held note
    table = _period(frequency)
    sound = np.zeros(count)
    for number, cents in enumerate(SINGERS):
        # Each singer has a vibrato rate and a phase of its own: in step they would sound like one.
        rate = 5.0 + 0.3 * number
        bend = 0.0035 * swell * np.sin(2 * np.pi * rate * time + number)
        phase = np.cumsum(frequency * 2 ** (cents / 1200) * (1 + bend)) / RATE + number / 3
        sound += table[(phase % 1 * TABLE).astype(np.int64)]
    rise = np.minimum(1, time / ATTACK)
    fall = np.clip((seconds + RELEASE - time) / RELEASE, 0, 1)
    return np.asarray(sound * np.sin(rise * np.pi / 2) * fall**2, dtype=np.float64)


def _period(frequency: float) -> Samples:
    """Return one period of the voice's sound, as `TABLE` samples.

    Overtones stay below 0.45 of the sample rate: higher ones would alias.
    """
    phase = 2 * np.pi * np.arange(TABLE) / TABLE
    period = np.zeros(TABLE)
    for overtone in range(1, int(min(24, 0.45 * RATE / frequency)) + 1):
        at = overtone * frequency
        ring = sum(h * np.exp(-(((at - f) / (2 * w)) ** 2)) for f, h, w in FORMANTS)
        period += (0.25 + ring) / overtone * np.sin(overtone * phase)
    return period


def _in_hall(stereo: Samples) -> Samples:
    """Add reverberation: a tail of noise that decays, independent for left and right."""
    count = round(HALL * RATE)
    noise = np.random.default_rng(0).standard_normal((count, 2))
    tail = noise * np.exp(-np.arange(count) * 5 / count)[:, None]  # to e^-5, below 1%, at its end
    tail *= 0.35 / np.sqrt((tail**2).sum(0))  # an L2 norm of 0.35, beside 1 of the dry sound
    size = len(stereo) + count - 1
    # Convolution by FFT: directly it would take length x count products.
    spectrum: Any = np.fft.rfft(stereo, size, axis=0) * np.fft.rfft(tail, size, axis=0)
    wet = np.fft.irfft(spectrum, size, axis=0)
    wet[: len(stereo)] += stereo
    return np.asarray(wet, dtype=np.float64)


COLORS = ((204, 51, 68), (230, 145, 30), (60, 150, 90), (50, 95, 175))
QUARTER_WIDTH, SEMITONE_HEIGHT = 14, 7  # pixels


def piano_roll(score: Score, path: str | Path) -> Path:
    """Write a piano roll as a PNG: a color for each voice, a gray line at each C."""
    pitches = [pitch for chord in score.chords for pitch in chord if pitch != REST]
    if not pitches:
        raise InputError("There must be a note to show, got none. Give a longer piece.")
    low, high = min(pitches) - 2, max(pitches) + 2
    size = len(score.chords) * QUARTER_WIDTH + 1, (high - low + 1) * SEMITONE_HEIGHT
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for pitch in range(low, high + 1):
        if pitch % 12 == 0:
            y = (high - pitch + 1) * SEMITONE_HEIGHT
            draw.line((0, y, size[0], y), fill=(205, 205, 205))
    # The soprano last: where voices share a note, the melody stays visible.
    for voice, color in reversed(list(enumerate(COLORS))):
        for note in held_notes(score, voice):
            if note.pitch != REST:
                x, y = note.start * QUARTER_WIDTH, (high - note.pitch) * SEMITONE_HEIGHT
                box = (x + 1, y, x + note.steps * QUARTER_WIDTH - 1, y + SEMITONE_HEIGHT - 1)
                draw.rounded_rectangle(box, 2, fill=color)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path
