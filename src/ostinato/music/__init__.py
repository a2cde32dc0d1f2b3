"""Chorales of four voices, token by token; the loop, its lanes and its stops come from below."""

from ostinato.music.checks import Cadence, Crossing, Parallels, Repeats, VoiceRange, all_checks
from ostinato.music.data import Pieces, examples, in_range, read_pieces
from ostinato.music.midi import read_midi, write_midi
from ostinato.music.roll import piano_roll
from ostinato.music.score import Key, Score, read_chorales
from ostinato.music.sound import render, write_wav
from ostinato.music.tokens import encode, make_tokenizer, music_model, score_of
from ostinato.music.writing import load_music, melody_of, prompt, written

__all__ = [
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
    "write_midi",
    "write_wav",
    "written",
]
