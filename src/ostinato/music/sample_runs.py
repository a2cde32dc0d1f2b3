"""The configuration of a run that writes music. Imports no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from ostinato.arguments import require, require_at_least, require_types
from ostinato.journal import Place, RunConfig
from ostinato.loop import check_seed

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
        suffixes = Counter(out.suffix for out in self.outs)
        return replace(
            self,
            outs=tuple(
                # Of two files of one format, each keeps its own name too.
                out.with_name(name + (f"-{out.name}" if suffixes[out.suffix] > 1 else out.suffix))
                for out in self.outs
            ),
        )
