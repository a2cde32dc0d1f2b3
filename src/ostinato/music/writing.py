"""Music models for sampling: loading, and prompts of a key, a beginning and a melody.

Knows no check.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ostinato.decode import SamplingParams, TokenPrompt
from ostinato.errors import InputError, ItemError, ModelError
from ostinato.models import LanguageModel, load_model
from ostinato.music.score import REST, Key, Score, name_of
from ostinato.music.tokens import (
    END_ID,
    IDS,
    LETTERS,
    LONGEST,
    VOCABULARY,
    encode,
    key_spelling,
    notes_of,
    spelling,
)

SHIPPED = Path(__file__).parent / "shipped"
SAMPLING = SamplingParams(temperature=0.9, min_p=0.03)
"""Default sampling of notes."""

TOKENS = 4 * LONGEST + 1
"""The token budget of the longest piece, its end included."""


def load_music(model: str | Path = "chorales") -> LanguageModel:
    """Load a folder of `ostinato train music`, or the shipped `chorales`.

    Raises `ModelError` for a model with other tokens, or none.
    """
    folder = folder_of(model)
    if not (folder / "config.json").is_file():
        known = ", ".join(sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()))
        raise ModelError(
            f"A music model must be a folder of `ostinato train music` or one of {known}, got "
            f"{str(model)!r}. Give its path."
        )
    loaded = load_model(folder, dtype=torch.float32)
    if loaded.tokenizer.backend.get_vocab() != IDS:
        raise ModelError(
            f"{folder} must hold a model of chorales, got one of {loaded.tokenizer.vocab_size} "
            f"other tokens (these have {len(VOCABULARY)}). `ostinato train music` makes one."
        )
    return loaded


def folder_of(model: str | Path) -> Path:
    """Return the folder of a shipped model, or the path itself."""
    shipped = SHIPPED / str(model)
    # Only a plain name is looked up among the shipped ones: `..` and `a/b` are paths of the user.
    return shipped if str(model).isidentifier() and shipped.is_dir() else Path(model)


def prompt(item: Mapping[str, object], edits: Mapping[str, object]) -> TokenPrompt:
    """Return an item's prompt, for `Refine(prompt=...)`.

    Columns: `key` is a key's name; `start` the text of the first chords; `melody` the soprano's
    notes, such as "G4 A4 B4". The melody is sung unchanged, and the piece ends with it. Raises
    `ItemError` for a column that cannot be read.
    """
    try:
        key = Key.of(str(item.get("key", "C major")))
        forced = _start(str(item.get("start", ""))) | _melody(str(item.get("melody", "")))
    except InputError as error:
        raise ItemError(str(error)) from None
    return TokenPrompt([IDS[key_spelling(key)]], forced=forced)


def _start(text: str) -> dict[int, int]:
    """Return the tokens of a beginning, by position."""
    notes = notes_of(text)
    if len(notes) < len(text.split()) or len(notes) > 4 * LONGEST:
        raise InputError(
            f"A beginning must be chords such as 'S:G4 B:C3 A:E4 T:C4', at most {LONGEST}, got "
            f"{text.split()[min(len(notes), len(text.split()) - 1)]!r} as note {len(notes) + 1}. "
            "Fix it there."
        )
    return {at: IDS[spelling(*note)] for at, note in enumerate(notes)}


def _melody(text: str) -> dict[int, int]:
    """Return the tokens of a melody and of the end after it, by position."""
    names = text.split()
    if not names:
        return {}
    if len(names) > LONGEST:
        raise InputError(
            f"A melody must be up to {LONGEST} quarter notes long, got {len(names)}. Shorten it."
        )
    tokens: dict[int, int] = {}
    for at, name in enumerate(names):
        token = IDS.get(f"\n{LETTERS[0]}:{name}")
        if token is None:
            raise InputError(
                f"A melody must be notes of a soprano such as G4, or - for a rest, got {name!r}. "
                "Transpose it."
            )
        tokens[4 * at] = token  # the soprano is the first of a chord's four tokens
    return tokens | {4 * len(names): END_ID}


def melody_of(score: Score) -> str:
    """Return the soprano of a score in the form of the column `melody`."""
    return " ".join(name_of(chord[0] or REST) for chord in score.chords)


def score_text(score: Score) -> str:
    """Return a score as text, in the form of the column `start`; `score_of` reads it.

    Raises `InputError` for a pitch outside its voice's range.
    """
    texts = list(VOCABULARY)
    return "".join(texts[token] for token in encode(score)).strip()
