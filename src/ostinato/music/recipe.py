"""How a music model is trained: settings for half an hour of one thread."""

from __future__ import annotations

from ostinato.train import TrainingConfig

RECIPE = TrainingConfig(
    steps=1200,
    batch_tokens=4096,
    optimiser="muon",
    lr=0.02,
    warmup=30,
    ema=0.99,
    valid_every=100,
)
