"""A score as a picture: time to the right, pitch upwards, a colour for each voice."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from ostinato.errors import InputError
from ostinato.music.midi import held
from ostinato.music.score import REST, Score

COLOURS = ((204, 51, 68), (230, 145, 30), (60, 150, 90), (50, 95, 175))
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
    for voice, colour in reversed(list(enumerate(COLOURS))):
        for note in held(score, voice):
            if note.pitch != REST:
                x, y = note.start * WIDE, (high - note.pitch) * HIGH
                box = (x + 1, y, x + note.steps * WIDE - 1, y + HIGH - 1)
                draw.rounded_rectangle(box, 2, fill=colour)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path
