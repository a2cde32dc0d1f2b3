"""How the parts of a drawing are trained: settings for a few minutes of one thread."""

from __future__ import annotations

from ostinato.train import TrainingConfig

CODES_RECIPE = TrainingConfig(
    steps=400,
    batch_tokens=64,
    optimiser="muon",
    lr=0.01,
    warmup=20,
    final=0.01,
    valid_every=100,
)
"""The autoencoder; `batch_tokens` are images of a batch."""

RECIPE = TrainingConfig(
    steps=400,
    batch_tokens=64,
    optimiser="muon",
    lr=0.02,
    warmup=50,
    final=0.01,
    ema=0.99,
    valid_every=100,
)
"""The network that draws codes; `batch_tokens` are images of a batch."""
