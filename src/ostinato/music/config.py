"""The configurations of music trainings, with their recipe, and of sampling. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from ostinato.arguments import require, require_at_least, require_types
from ostinato.journal import Place, RunConfig, each_beside
from ostinato.loop import check_seed
from ostinato.train import TrainingConfig, TrainingRun, argument, option

RECIPE = TrainingConfig(
    steps=1200,
    batch_tokens=4096,
    optimizer="muon",
    lr=0.02,
    warmup_steps=30,
    ema_decay=0.99,
    valid_every=100,
)
"""Training settings: 12 minutes to half an hour on one thread.

More steps overfit: the validation loss was 1.058 after 1,000 and 1.069 after 1,200 (docs/log.md).
"""


@dataclass(frozen=True, kw_only=True)
class MusicTrainingRun(TrainingRun):
    """A language model trained on chorales: `source` is a folder of MIDI files, or a JSON file.

    `hold_out` is the share of a folder to validate with.
    """

    kind: ClassVar[str] = "train music"
    prepare: ClassVar[str] = "ostinato.music:prepare_music_training"
    free: ClassVar[frozenset[str]] = TrainingRun.free | {"source"}

    source: Path = argument("SOURCE")
    training: TrainingConfig = RECIPE
    hold_out: float = option(0.1, "Share of a FOLDER to validate on.")
    layers: int = option(4, "Transformer layers.")
    width: int = option(128, "Hidden size.")
    heads: int = option(4, "Attention heads.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.hold_out < 1, "hold_out", "in [0, 1)", self.hold_out)
        require_at_least(1, layers=self.layers, width=self.width, heads=self.heads)
        require(
            self.width % self.heads == 0 and (self.width // self.heads) % 2 == 0,
            "width",  # rotary embeddings turn pairs
            f"heads ({self.heads}) times an even number",
            self.width,
            f"Give a width such as {32 * self.heads}.",
        )


FORMATS = (".wav", ".mid", ".midi", ".png")
"""What a piece can be written as: sound, MIDI, a piano roll."""


@dataclass(frozen=True, kw_only=True)
class SampleMusicRun(RunConfig):
    """`count` pieces in a key, perhaps with a beginning or a melody.

    `start` and `melody` are texts, as in `ostinato.music.prompt`. With `until_passes`, drafts are
    taken back until the checks of music pass, by `strategy` and in at most `rounds`. `outs` are the
    files of a piece; several pieces are numbered. `tempo` is in quarter notes per minute.
    """

    kind: ClassVar[str] = "sample music"
    writes: ClassVar[tuple[str, ...]] = ("outs",)
    free: ClassVar[frozenset[str]] = frozenset({"outs", "tempo"})
    hashes: ClassVar[frozenset[str]] = frozenset({"weights"})

    outs: tuple[Path, ...]
    model: Place = "chorales"
    key: str = "C major"
    start: str = ""
    melody: str = ""
    count: int = 1
    temperature: float = 0.9
    min_p: float = 0.03
    until_passes: bool = False
    strategy: Literal["backtrack", "resample", "smc"] = "backtrack"
    rounds: int = 8
    seed: int = 0
    tempo: float = 72.0
    weights: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(1, count=self.count, rounds=self.rounds)
        check_seed(self.seed)
        require(10 <= self.tempo <= 400, "tempo", "10 to 400", self.tempo, "Take 72.")
        for out in self.outs:
            formats = f"a file ending in {', '.join(FORMATS)}"
            require(out.suffix.lower() in FORMATS, "outs", formats, str(out))

    def branched(self, name: str) -> Self:
        """Return the configuration of a branch: it writes beside this one."""
        return replace(self, outs=each_beside(self.outs, name))
