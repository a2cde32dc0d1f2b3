"""What a music model is trained on: chorales in every key in which they can be sung."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostinato.errors import InputError
from ostinato.loop import fold_in
from ostinato.music.midi import hear
from ostinato.music.score import HIGHEST, LOWEST, Score, read_chorales
from ostinato.music.tokens import END_ID, IDS, LONGEST, encode, key_spelling
from ostinato.train import Example

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
        found = (p for p in source.rglob("*") if p.suffix.lower() in (".mid", ".midi"))
        files = sorted(path for path in found if not path.is_dir())
        scores = _readable(files)
        random.Random(fold_in(seed, "hold out")).shuffle(scores)
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
    scores, left_out, thinned = [], [], []
    for path in files:
        try:
            score, notes, missed = hear(path)
        except InputError as error:
            left_out.append(str(error))
            continue
        scores.append(score)
        if missed:
            thinned.append(f"{path}: {missed} of {notes} notes.")
    if left_out and not scores:
        raise InputError(left_out[0])
    _warn(f"{len(left_out)} of {len(files)} files are left out.", left_out)
    _warn(
        f"{len(thinned)} of {len(files)} files have notes that sound between two quarter notes "
        "and are left out.",
        thinned,
    )
    return scores


def _warn(what: str, told: Sequence[str]) -> None:
    """Warn of files, the first of them by name."""
    if told:
        more = f" And {len(told) - TOLD} more." if len(told) > TOLD else ""
        warnings.warn(f"{what} {' '.join(told[:TOLD])}{more}", stacklevel=4)


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

    Pieces that cannot be sung, and those without a bass, which have no key, are left out with a
    warning.
    """
    found, left_out = [], 0
    for score in scores:
        some = singable(score) if any(chord[3] for chord in score.chords) else []
        left_out += not some
        chosen = some if every_key or not some else [min(some, key=_off_middle)]
        found += [example(piece) for piece in chosen]
    if left_out:
        warnings.warn(
            f"{left_out} of {len(scores)} pieces are left out: they have no bass, or four voices "
            "cannot sing them in any key.",
            stacklevel=2,
        )
    return found
