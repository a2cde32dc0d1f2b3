"""The configuration of a music training, and its recipe. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ostinato.arguments import require, require_at_least
from ostinato.train import TrainingConfig, TrainingRun

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
    free: ClassVar[frozenset[str]] = TrainingRun.free | {"source"}

    source: Path
    training: TrainingConfig = RECIPE
    hold_out: float = 0.1
    layers: int = 4
    width: int = 128
    heads: int = 4

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
