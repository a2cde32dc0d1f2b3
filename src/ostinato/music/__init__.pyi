from .checks import Cadence, Crossing, Parallels, Repeats, VoiceRange, all_checks
from .data import RECIPE, Pieces, examples, in_range, read_pieces
from .midi import read_midi, write_midi
from .rendering import piano_roll, render, write_wav
from .score import Key, Score, read_chorales
from .tokens import LONGEST, encode, make_tokenizer, music_model, score_of
from .writing import SAMPLING, TOKENS, folder_of, load_music, melody_of, prompt, score_text

__all__ = [
    "LONGEST",
    "RECIPE",
    "SAMPLING",
    "TOKENS",
    "Cadence",
    "Crossing",
    "Key",
    "Parallels",
    "Pieces",
    "Repeats",
    "Score",
    "VoiceRange",
    "all_checks",
    "encode",
    "examples",
    "folder_of",
    "in_range",
    "load_music",
    "make_tokenizer",
    "melody_of",
    "music_model",
    "piano_roll",
    "prompt",
    "read_chorales",
    "read_midi",
    "read_pieces",
    "render",
    "score_of",
    "score_text",
    "write_midi",
    "write_wav",
]
