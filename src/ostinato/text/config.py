"""The configuration of a text training. Needs no torch: the command line makes its options of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from ostinato.errors import InputError
from ostinato.train import option, require, require_choices

OF_TRANSFORMER = ("layout", "untied", "zero_init")


@dataclass(frozen=True, kw_only=True)
class TextTrainingConfig:
    """What to train, and on what. Without `start` a network is made from scratch."""

    files: tuple[Path, ...]
    valid: tuple[Path, ...] = ()
    start: str | None = None
    kind: Literal["causal", "gru", "masked"] = option(
        "causal",
        "From scratch: a causal transformer, a recurrent network (GRU), or a masked language model.",
    )
    layout: Literal["llama", "qwen3"] = option(
        "llama",
        "Transformer from scratch: Llama's layout, or Qwen 3's, whose norms of queries and keys "
        "save training steps.",
    )
    untied: bool = option(
        False, "Transformer from scratch: an output head of its own, not the embedding's weights."
    )
    zero_init: bool = option(
        False, "Transformer from scratch: the last matrix of each block begins at zero."
    )
    lora_rank: int = option(0, "Rank of a LoRA adapter to tune; 0: all weights.")
    context: int = option(256, "Tokens of an example.")
    layers: int = option(4, "Layers of a network from scratch.")
    width: int = option(128, "Hidden size of a network from scratch.")
    heads: int = option(4, "Attention heads of a network from scratch.")
    tokenizer: Literal["bpe", "char"] = option(
        "bpe", "Tokenizer of a network from scratch: byte-pair encoding, or characters."
    )
    vocab_size: int = option(4096, "Largest vocabulary of a byte-pair tokenizer.")
    device: str = option("cpu", "Where to compute: cpu, cuda or cuda:N.")
    seed: int = 0

    def __post_init__(self) -> None:
        if self.lora_rank and self.start is None:
            raise InputError("--lora-rank needs a model to adapt. Name one with --from.")
        if self.kind != "causal" and self.start is not None:
            raise InputError(f"--kind {self.kind} makes a network from scratch. Leave out --from.")
        if self.start is not None or self.kind != "causal":
            self._refuse_shapes()
        require(self.context >= 2, "context", "at least 2", self.context)
        for name in ("layers", "width", "heads"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise InputError(
                f"width must be heads times an even number, got {self.width} and {self.heads}."
            )
        require_choices(self)

    def _refuse_shapes(self) -> None:
        """Refuse what only a transformer from scratch can be."""
        usual = {spec.name: spec.default for spec in fields(self)}
        for name in OF_TRANSFORMER:
            given = getattr(self, name)
            if given != usual[name]:
                told = name.replace("_", "-") + ("" if given is True else f" {given}")
                raise InputError(
                    f"--{told} makes a transformer from scratch. Leave out --from or --kind."
                )
