from .checks import Cadence, Crossing, Parallels, Repeats, VoiceRange, all_checks
from .config import FORMATS, RECIPE, MusicTrainingRun, SampleMusicRun
from .data import Pieces, examples, in_range, read_pieces
from .midi import read_midi, write_midi
from .rendering import piano_roll, render, write_wav
from .sampling_run import MusicWork, build_sample_music, music_digest
from .score import Key, Score, read_chorales
from .tokens import LONGEST, encode, make_tokenizer, music_model, score_of
from .training_run import prepare_music_training
from .writing import SAMPLING, TOKENS, folder_of, load_music, melody_of, prompt, score_text

__all__ = [
    "FORMATS",
    "LONGEST",
    "RECIPE",
    "SAMPLING",
    "TOKENS",
    "Cadence",
    "Crossing",
    "Key",
    "MusicTrainingRun",
    "MusicWork",
    "Parallels",
    "Pieces",
    "Repeats",
    "SampleMusicRun",
    "Score",
    "VoiceRange",
    "all_checks",
    "build_sample_music",
    "encode",
    "examples",
    "folder_of",
    "in_range",
    "load_music",
    "make_tokenizer",
    "melody_of",
    "music_digest",
    "music_model",
    "piano_roll",
    "prepare_music_training",
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
