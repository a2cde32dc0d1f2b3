"""Training data of a music model: chorales in every key that the voices can sing.

Knows no network and no loop.
"""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostinato.errors import InputError
from ostinato.loop import fold_in
from ostinato.music.midi import load_midi
from ostinato.music.score import HIGHEST, LOWEST, Score, read_chorales
from ostinato.music.tokens import END_ID, IDS, LONGEST, encode, key_spelling
from ostinato.train import Example

NAMED = 3  # files that a warning names
MIDDLES = tuple((low + high) / 2 for low, high in zip(LOWEST, HIGHEST, strict=True))


@dataclass(frozen=True)
class Pieces:
    """The splits of a data set, as in its file; a folder of MIDI files has no `test`."""

    train: tuple[Score, ...]
    valid: tuple[Score, ...]
    test: tuple[Score, ...] = ()

    def fingerprint(self) -> str:
        """Return a hash of all chords and their splits."""
        return hashlib.blake2b(repr(self).encode(), digest_size=16).hexdigest()


def read_pieces(source: str | Path, *, hold_out: float = 0.1, seed: int = 0) -> Pieces:
    """Read a JSON file with its own splits, or a folder of MIDI files with a share held out.

    `hold_out` and `seed` matter for a folder only. Files that are no pieces for four voices are
    left out, with a warning. Raises `InputError` where nothing is left to train on.
    """
    source = Path(source)
    if not source.is_dir():
        splits = read_chorales(source)
        pieces = Pieces(*(tuple(splits.get(name, ())) for name in ("train", "valid", "test")))
    else:
        found = (p for p in source.rglob("*") if p.suffix.lower() in (".mid", ".midi"))
        # Not `is_file`: a broken link is to be reported as a file that cannot be read.
        files = sorted(path for path in found if not path.is_dir())
        scores = _readable(files)
        random.Random(fold_in(seed, "hold out")).shuffle(scores)
        valid = round(len(scores) * hold_out)
        pieces = Pieces(tuple(scores[valid:]), tuple(scores[:valid]))
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
            score, notes, missed = load_midi(path)
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


def _warn(what: str, reasons: Sequence[str]) -> None:
    """Warn of files; the first `NAMED` of them with their reasons."""
    if reasons:
        more = f" And {len(reasons) - NAMED} more." if len(reasons) > NAMED else ""
        # The caller of `read_pieces`: two frames of ours lie between.
        warnings.warn(f"{what} {' '.join(reasons[:NAMED])}{more}", stacklevel=4)


def in_range(score: Score) -> Score | None:
    """Return the transposition whose voices lie nearest the middle of their ranges.

    None where the piece fits in no key.
    """
    found = singable(score)
    return min(found, key=_off_middle) if found else None


def singable(score: Score) -> list[Score]:
    """Return every transposition, within two octaves, in which each voice is in its range."""
    moved = (score.moved(shift) for shift in range(-24, 25))
    return [piece for piece in moved if piece.fits]


def _off_middle(score: Score) -> float:
    """Return how far the piece lies from the middle of its voices' ranges, in semitones a note."""
    total, count = 0.0, 0
    for chord in score.chords:
        for voice, pitch in enumerate(chord):
            total += (pitch - MIDDLES[voice]) if pitch else 0
            count += pitch > 0
    return abs(total / max(1, count))


def example(score: Score) -> Example:
    """Return a piece as tokens: key, notes, end. The loss counts all but the key.

    A piece longer than `LONGEST` chords is cut and has no end: the cut is not where it ends.
    """
    notes = encode(Score(score.chords[:LONGEST]))
    tokens = [IDS[key_spelling(score.key())], *notes]
    if len(score.chords) <= LONGEST:
        tokens.append(END_ID)
    return Example(tuple(tokens), (False, *(True for _ in tokens[1:])))


def examples(scores: Sequence[Score], *, every_key: bool = True) -> list[Example]:
    """Return examples of every transposition that can be sung, or of the middle one alone.

    Pieces that cannot be sung are left out with a warning, as are those without a bass, which have
    no key.
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
