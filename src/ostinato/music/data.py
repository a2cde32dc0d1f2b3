"""What a music model is trained on: chorales in every key in which they can be sung."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostinato.errors import InputError
from ostinato.loop import derive
from ostinato.music.midi import read_midi
from ostinato.music.score import HIGHEST, LOWEST, Score, read_chorales
from ostinato.music.tokens import END_ID, IDS, LONGEST, encode, key_spelling
from ostinato.train.data import Example

TOLD = 3  # files that are left out, by name
MIDDLES = tuple((low + high) / 2 for low, high in zip(LOWEST, HIGHEST, strict=True))


@dataclass(frozen=True)
class Pieces:
    """Pieces to train on, to validate with, and to test with at the very end."""

    train: tuple[Score, ...]
    valid: tuple[Score, ...]
    test: tuple[Score, ...] = ()

    def fingerprint(self) -> str:
        """Return a hash of all chords."""
        return hashlib.blake2b(repr(self).encode(), digest_size=16).hexdigest()


def read_pieces(source: str | Path, *, hold_out: float = 0.1, seed: int = 0) -> Pieces:
    """Read a JSON file with its own parts, or a folder of MIDI files, of which a share is held out.

    Files in the folder that are no pieces for four voices are left out, with a warning.
    Raises `InputError` where nothing can be trained on.
    """
    source = Path(source)
    if not source.is_dir():
        parts = read_chorales(source)
        pieces = Pieces(*(tuple(parts.get(name, ())) for name in ("train", "valid", "test")))
    else:
        files = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".mid", ".midi"))
        scores = _readable(files)
        random.Random(derive(seed, "hold out")).shuffle(scores)
        held = round(len(scores) * hold_out)
        pieces = Pieces(tuple(scores[held:]), tuple(scores[:held]))
    if not pieces.train:
        raise InputError(
            f"{source} must hold pieces to train on, got none. Give a JSON file of chorales or a "
            "folder of .mid files."
        )
    return pieces


def _readable(files: Sequence[Path]) -> list[Score]:
    """Read files; those that are no pieces for four voices are left out with a warning."""
    scores, left_out = [], []
    for path in files:
        try:
            scores.append(read_midi(path))
        except InputError as error:
            left_out.append(str(error))
    if left_out and not scores:
        raise InputError(left_out[0])
    if left_out:
        more = f" And {len(left_out) - TOLD} more." if len(left_out) > TOLD else ""
        warnings.warn(
            f"{len(left_out)} of {len(files)} files are left out. "
            + " ".join(left_out[:TOLD])
            + more,
            stacklevel=2,
        )
    return scores


def in_range(score: Score) -> Score | None:
    """Return the piece transposed by as little as puts each voice in its range; None: nowhere.

    Of two that are as near, the one whose voices lie nearer the middle of what they can sing.
    """
    found = singable(score)
    return min(found, key=_off_middle) if found else None


def singable(score: Score) -> list[Score]:
    """Return the piece in every transposition in which each voice is in its range."""
    moved = (score.moved(shift) for shift in range(-24, 25))
    return [piece for piece in moved if piece.fits]


def _off_middle(score: Score) -> float:
    total, count = 0.0, 0
    for chord in score.chords:
        for voice, pitch in enumerate(chord):
            total += (pitch - MIDDLES[voice]) if pitch else 0
            count += pitch > 0
    return abs(total / max(1, count))


def example(score: Score) -> Example:
    """Return a piece as tokens: its key, its notes and the end; all but the key count."""
    notes = encode(Score(score.chords[:LONGEST]))
    tokens = [IDS[key_spelling(score.key())], *notes]
    if len(score.chords) <= LONGEST:
        tokens.append(END_ID)
    return Example(tuple(tokens), (False, *(True for _ in tokens[1:])))


def examples(scores: Sequence[Score], *, every_key: bool = True) -> list[Example]:
    """Return examples of all transpositions that can be sung, or of the middle one alone.

    Pieces without a bass are left out: they have no key.
    """
    found = []
    for score in scores:
        if not any(chord[3] for chord in score.chords):
            continue
        some = singable(score)
        chosen = some if every_key else [min(some, key=_off_middle)] if some else []
        found += [example(piece) for piece in chosen]
    return found
