"""The configurations of runs that fill gaps. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ostinato.arguments import require_at_least, require_types
from ostinato.journal import Place, RunConfig
from ostinato.loop import check_seed


@dataclass(frozen=True, kw_only=True)
class FillRun(RunConfig):
    """A text whose gaps a masked language model fills; `weights` is the hash of its files."""

    kind: ClassVar[str] = "fill"
    hashes: ClassVar[frozenset[str]] = frozenset({"weights"})

    text: str
    model: Place
    gap_tokens: int = 8
    steps: int = 8
    temperature: float = 0.7
    noise: float = 1.0
    seed: int = 0
    weights: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(1, gap_tokens=self.gap_tokens, steps=self.steps)
        check_seed(self.seed)
