"""How the parts of a drawing are trained: settings for a few minutes of one thread."""

from __future__ import annotations

from ostinato.train import TrainingConfig

CODES_RECIPE = TrainingConfig(
    steps=400,
    batch_tokens=64,
    optimizer="muon",
    lr=0.01,
    warmup_steps=20,
    min_lr_ratio=0.01,
    valid_every=100,
)
"""The autoencoder; `batch_tokens` are images of a batch."""

RECIPE = TrainingConfig(
    steps=400,
    batch_tokens=64,
    optimizer="muon",
    lr=0.02,
    warmup_steps=50,
    min_lr_ratio=0.01,
    ema_decay=0.99,
    valid_every=100,
)
"""The network that draws codes; `batch_tokens` are images of a batch."""
