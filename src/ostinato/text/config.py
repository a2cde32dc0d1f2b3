"""The configurations of a text training.

Imports no torch: the command line makes options from them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal

from ostinato.arguments import require_at_least, require_types
from ostinato.errors import InputError
from ostinato.journal import Place
from ostinato.train import TrainingRun, option

TRANSFORMER_ONLY = ("layout", "untied", "zero_init")


@dataclass(frozen=True, kw_only=True)
class TextTrainingConfig:
    """What to train, and on which files. Without `start` a network is made from scratch."""

    free: ClassVar[frozenset[str]] = frozenset({"files", "valid"})

    files: tuple[Path, ...]
    valid: tuple[Path, ...] = ()
    start: Place | None = None
    kind: Literal["causal", "gru", "masked"] = option(
        "causal",
        "From scratch: causal transformer, recurrent network (GRU), or masked language model.",
    )
    layout: Literal["llama", "qwen3"] = option(
        "llama",
        "Transformer from scratch: Llama's layout, or Qwen 3's. Its norms of queries and keys "
        "save training steps.",
    )
    untied: bool = option(
        False, "Transformer from scratch: an output head of its own, not tied to the embedding."
    )
    zero_init: bool = option(
        False, "Transformer from scratch: start the last matrix of each block at zero."
    )
    lora_rank: int = option(0, "Rank of a LoRA adapter to train; 0: train all weights.")
    context: int = option(256, "Tokens per example.")
    layers: int = option(4, "Layers of a network from scratch.")
    width: int = option(128, "Hidden size of a network from scratch.")
    heads: int = option(4, "Attention heads of a network from scratch.")
    tokenizer: Literal["bpe", "char"] = option(
        "bpe", "Tokenizer of a network from scratch: byte-pair encoding, or characters."
    )
    vocab_size: int = option(4096, "Maximum vocabulary of a byte-pair tokenizer.")
    device: str = option("cpu", "Where to compute: cpu, cuda or cuda:N.")
    seed: int = 0

    def __post_init__(self) -> None:
        require_types(self)
        if self.lora_rank and self.start is None:
            raise InputError("--lora-rank needs a model to adapt. Name one with --from.")
        if self.kind != "causal" and self.start is not None:
            raise InputError(f"--kind {self.kind} makes a network from scratch. Leave out --from.")
        if self.start is not None or self.kind != "causal":
            self._refuse_shapes()
        require_at_least(2, context=self.context)
        require_at_least(1, layers=self.layers, width=self.width, heads=self.heads)
        # The head size must be even: rotary embeddings turn pairs of its elements.
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise InputError(
                f"width must be heads times an even number, got {self.width} and {self.heads}. "
                "Change one of them."
            )

    def _refuse_shapes(self) -> None:
        """Refuse options that only apply to a transformer from scratch."""
        defaults = {spec.name: spec.default for spec in fields(self)}
        for name in TRANSFORMER_ONLY:
            value = getattr(self, name)
            if value != defaults[name]:
                option_text = name.replace("_", "-") + ("" if value is True else f" {value}")
                raise InputError(
                    f"--{option_text} makes a transformer from scratch. Leave out --from or --kind."
                )


@dataclass(frozen=True, kw_only=True)
class TextTrainingRun(TrainingRun):
    """A language model trained on texts; `merge` saves it with its LoRA adapter merged.

    The seed is that of `training`. `weights` is a hash of the model that it starts from.
    """

    kind: ClassVar[str] = "train text"
    free: ClassVar[frozenset[str]] = TrainingRun.free | {"merge"}
    hashes: ClassVar[frozenset[str]] = TrainingRun.hashes | {"weights"}

    text: TextTrainingConfig
    merge: bool = False
    weights: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge and not self.text.lora_rank:
            raise InputError("--merge needs an adapter. Give its rank with --lora-rank.")
