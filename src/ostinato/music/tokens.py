"""Scores as a language model's tokens: a line for each chord, a token for each voice.

The prompt is the key. A chord is written soprano, bass, alto, tenor: `S:G4 B:C3 A:E4 T:C4`. So the
inner voices are chosen between the outer ones, as harmony is taught. A model's folder has the
ordinary Hugging Face layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from ostinato.errors import InputError
from ostinato.models import LanguageModel, Llama, LlamaConfig, Tokenizer
from ostinato.music.score import HIGHEST, KEYS, LOWEST, REST, Chord, Key, Score, name_of

END = "<end>"
ORDER = (0, 3, 1, 2)
"""The voices, by index, in the order in which a chord is written."""

LETTERS = "SATB"
LONGEST = 160
"""The most chords that a piece may have."""


def spelling(voice: int, pitch: int) -> str:
    """Return the text of a voice's note, with the white space before it, such as ` A:E4`."""
    return f"{chr(10) if voice == 0 else ' '}{LETTERS[voice]}:{name_of(pitch)}"


def key_spelling(key: Key) -> str:
    """Return the text of a key as a prompt: `G-minor`, one token."""
    return str(key).replace(" ", "-")


def _vocabulary() -> dict[str, tuple[int, int] | None]:
    """Return the text of each token, in the order of ids; of notes with (voice, pitch)."""
    vocabulary: dict[str, tuple[int, int] | None] = {END: None}
    vocabulary |= {key_spelling(key): None for key in KEYS}
    for voice in range(4):
        for pitch in (REST, *range(LOWEST[voice], HIGHEST[voice] + 1)):
            vocabulary[spelling(voice, pitch)] = (voice, pitch)
    return vocabulary


VOCABULARY = _vocabulary()
IDS = {text: number for number, text in enumerate(VOCABULARY)}
NOTE_OF = {text.strip(): note for text, note in VOCABULARY.items() if note is not None}
END_ID = IDS[END]


def encode(score: Score) -> list[int]:
    """Return the tokens of a score, without key and end.

    Raises `InputError` for a pitch outside its voice's range.
    """
    return [token for chord in score.chords for token in encode_chord(chord)]


def encode_chord(chord: Chord) -> list[int]:
    """Return the four tokens of a chord. Raises `InputError` for a pitch out of range."""
    try:
        return [IDS[spelling(voice, chord[voice])] for voice in ORDER]
    except KeyError as error:
        raise InputError(
            f"The voices must lie within {', '.join(_ranges())}, got "
            f"{str(error.args[0]).strip()!r}. Transpose the piece."
        ) from None


def _ranges() -> list[str]:
    bounds = zip(LETTERS, LOWEST, HIGHEST, strict=True)
    return [f"{letter} {name_of(low)} to {name_of(high)}" for letter, low, high in bounds]


def notes_of(text: str) -> list[tuple[int, int]]:
    """Return (voice, pitch) of a text's notes, up to the first word that is no note in its turn."""
    notes: list[tuple[int, int]] = []
    for number, word in enumerate(text.split()):
        note = NOTE_OF.get(word)
        if note is None or note[0] != ORDER[number % 4]:
            break
        notes.append(note)
    return notes


def score_of(text: str) -> Score:
    """Return the score of a text; an unfinished chord is left out."""
    return Score(tuple(chords_of(notes_of(text))))


def chords_of(notes: Sequence[tuple[int, int]]) -> list[Chord]:
    """Return the complete chords of notes that are in the order of writing."""
    chords = []
    for at in range(0, len(notes) - 3, 4):
        pitch = dict(notes[at : at + 4])
        chords.append((pitch[0], pitch[1], pitch[2], pitch[3]))
    return chords


def make_tokenizer() -> Tokenizer:
    """Return the tokenizer of keys and notes."""
    # `WordLevel` raises for an unknown word unless it has a token for it.
    backend = Backend(models.WordLevel(dict(IDS), unk_token=END))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\n ]"), "merged_with_next")
    backend.add_special_tokens([END])
    return Tokenizer(backend, eos_ids=[END_ID], specials={"eos_token": END})


def music_model(*, layers: int, width: int, heads: int, seed: int = 0) -> LanguageModel:
    """Return an untrained model of chorales, initialized by `seed`."""
    config = LlamaConfig.from_scratch(
        vocab_size=len(IDS),
        width=width,
        layers=layers,
        heads=heads,
        context=4 * LONGEST + 2,  # a token for each voice, the key and the end
        eos_token_id=END_ID,
    )
    return LanguageModel(Llama(config, seed=seed), make_tokenizer(), config, Path(), "chorales")
