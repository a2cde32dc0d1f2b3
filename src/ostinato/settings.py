"""The settings of trainings: values that need no torch, so that the command line's help is quick.

The options of `ostinato train` are made of the fields that have a help text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ostinato.errors import InputError
from ostinato.loop import check_seed


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train."""

    steps: int = _option(
        1000, "Steps that the rate is planned for; the limit where nothing else ends it."
    )
    batch_tokens: int = _option(4096, "Tokens of a batch, padding included.")
    accumulate: int = _option(1, "Batches whose gradients are added up for a step.")
    optimiser: Literal["adamw", "muon"] = _option(
        "adamw", "Muon: for matrices, AdamW for the rest."
    )
    adam_share: float = _option(
        0.15, "With Muon: the share of the rate that embeddings and vectors get from AdamW."
    )
    lr: float = _option(1e-3, "The learning rate at its height.")
    warmup: int = _option(20, "Steps in which the rate rises.")
    schedule: Literal["linear", "wsd", "constant"] = _option(
        "linear", "After the warm-up: falling at once, in the last fifth, or never."
    )
    final: float = _option(0.02, "The share of the rate that is left at the end.")
    weight_decay: float = _option(0.0, "Decay of matrices, decoupled.")
    clip: float = _option(1.0, "The greatest norm of the gradient; 0: not clipped.")
    ema: float = _option(0.0, "Decay of the averaged weights, such as 0.99; 0: none.")
    valid_every: int = _option(100, "Steps between validations.")
    sample_every: int = _option(0, "Steps between samples; 0: none.")
    precision: Literal["float32", "bfloat16"] = _option(
        "float32",
        "Of the products within a step; bfloat16 is faster where the processor multiplies it. The "
        "weights stay as they are.",
    )
    seed: int = _option(0, "Seed of the order, the network and dropout.")

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "accumulate", "valid_every"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("warmup", "weight_decay", "clip", "sample_every"):
            self._require(getattr(self, name) >= 0, name, "0 or more")
        check_seed(self.seed)
        self._require(self.lr > 0, "lr", "above 0")
        self._require(self.adam_share > 0, "adam_share", "above 0")
        self._require(0 <= self.final <= 1, "final", "in [0, 1]")
        self._require(0 <= self.ema < 1, "ema", "in [0, 1)")
        self._require(self.optimiser in ("adamw", "muon"), "optimiser", "'adamw' or 'muon'")
        halves = self.precision in ("float32", "bfloat16")
        self._require(halves, "precision", "'float32' or 'bfloat16'")
        known = self.schedule in ("linear", "wsd", "constant")
        self._require(known, "schedule", "'linear', 'wsd' or 'constant'")

    def _require(self, right: bool, name: str, expected: str) -> None:
        if not right:
            raise InputError(f"{name} must be {expected}, got {getattr(self, name)!r}.")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        if self.schedule == "constant":
            return self.lr
        fall = done if self.schedule == "linear" else max(0.0, done - 0.8) / 0.2
        return self.lr * (1 - (1 - self.final) * fall)


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """What to train, and on what. Without `start` a network is made from scratch."""

    files: tuple[Path, ...]
    valid: tuple[Path, ...] = ()
    start: str | None = None
    kind: Literal["causal", "gru", "masked"] = _option(
        "causal",
        "Of a network from scratch: a transformer that reads on, a recurrent network, or a "
        "transformer that fills what is masked.",
    )
    layout: Literal["llama", "qwen3"] = _option(
        "llama",
        "Of a transformer from scratch: as Llama, or as Qwen 3, whose norms of queries and keys "
        "let it learn in fewer steps.",
    )
    head: Literal["tied", "own"] = _option(
        "tied", "Of a transformer from scratch: the embedding's weights again, or its own."
    )
    begin: Literal["drawn", "zero"] = _option(
        "drawn",
        "Of a transformer from scratch: what its layers add is drawn, or nothing at first, so that "
        "it learns in fewer steps.",
    )
    lora: int = _option(0, "Tune an adapter of this rank; 0: all weights.")
    context: int = _option(256, "Tokens of an example.")
    layers: int = _option(4, "Layers of a network from scratch.")
    width: int = _option(128, "Width of a network from scratch.")
    heads: int = _option(4, "Attention heads of a network from scratch.")
    tokenizer: Literal["bpe", "char"] = _option(
        "bpe", "Of a network from scratch: pieces of words, or characters."
    )
    vocabulary: int = _option(4096, "Tokens that a tokenizer of pieces has at most.")
    device: str = _option("cpu", "Where to compute: cpu, cuda or cuda:N.")
    seed: int = 0

    def __post_init__(self) -> None:
        if self.lora and self.start is None:
            raise InputError("--lora needs a model to adapt. Name one with --from.")
        if self.kind != "causal" and self.start is not None:
            raise InputError(f"--kind {self.kind} makes a network from scratch. Leave out --from.")
        if self.start is not None or self.kind != "causal":
            self._refuse_shapes()
        if self.context < 2:
            raise InputError(f"context must be at least 2, got {self.context}.")
        for name in ("layers", "width", "heads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise InputError(
                f"width must be heads times an even number, got {self.width} and {self.heads}."
            )

    def _refuse_shapes(self) -> None:
        """Refuse what only a transformer from scratch can be."""
        for name, usual in (("layout", "llama"), ("head", "tied"), ("begin", "drawn")):
            given = getattr(self, name)
            if given != usual:
                raise InputError(
                    f"--{name} {given} makes a transformer from scratch. Leave out --from or "
                    "--kind."
                )
