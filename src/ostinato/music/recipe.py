"""How a music model is trained: settings for half an hour of one thread."""

from __future__ import annotations

from ostinato.train import TrainingConfig

RECIPE = TrainingConfig(
    steps=1200,
    batch_tokens=4096,
    optimizer="muon",
    lr=0.02,
    warmup_steps=30,
    ema_decay=0.99,
    valid_every=100,
)
