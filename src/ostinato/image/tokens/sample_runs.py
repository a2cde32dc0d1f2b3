"""The configuration of a run that samples images as codes. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from ostinato.arguments import require, require_at_least, require_types
from ostinato.journal import Place, RunConfig
from ostinato.loop import check_seed


@dataclass(frozen=True, kw_only=True)
class SampleImageTokensRun(RunConfig):
    """`count` images for each prompt, in rows of the .png `out`.

    `temperature`, `guidance` and `noise` are those of `CodeSettings`, `steps` is for the method
    unmask; None is the method's own. `weights` is a hash of the model's files.
    """

    kind: ClassVar[str] = "sample image-tokens"
    free: ClassVar[frozenset[str]] = frozenset({"out"})
    hashes: ClassVar[frozenset[str]] = frozenset({"weights"})

    model: Place
    out: Path
    prompts: tuple[str, ...] = ("",)
    count: int = 1
    temperature: float | None = None
    guidance: float | None = None
    noise: float | None = None
    steps: int | None = None
    seed: int = 0
    weights: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(1, count=self.count, steps=1 if self.steps is None else self.steps)
        check_seed(self.seed)
        require(bool(self.prompts), "prompts", "at least one prompt", self.prompts, 'Give ("",).')
        require(self.out.suffix.lower() == ".png", "out", "a .png file", str(self.out))

    def branched(self, name: str) -> Self:
        """Return the configuration of a branch: it writes beside this one."""
        return replace(self, out=self.out.with_name(name + self.out.suffix))
