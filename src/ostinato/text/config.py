"""The configuration of a text training. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ostinato.errors import InputError
from ostinato.train import option


@dataclass(frozen=True, kw_only=True)
class TextTrainingConfig:
    """What to train, and on what. Without `start` a network is made from scratch."""

    files: tuple[Path, ...]
    valid: tuple[Path, ...] = ()
    start: str | None = None
    kind: Literal["causal", "gru", "masked"] = option(
        "causal",
        "Of a network from scratch: a transformer that reads on, a recurrent network, or a "
        "transformer that fills what is masked.",
    )
    layout: Literal["llama", "qwen3"] = option(
        "llama",
        "Of a transformer from scratch: as Llama, or as Qwen 3, whose norms of queries and keys "
        "let it learn in fewer steps.",
    )
    head: Literal["tied", "own"] = option(
        "tied", "Of a transformer from scratch: the embedding's weights again, or its own."
    )
    begin: Literal["drawn", "zero"] = option(
        "drawn",
        "Of a transformer from scratch: what its layers add is drawn, or nothing at first, so that "
        "it learns in fewer steps.",
    )
    lora: int = option(0, "Tune an adapter of this rank; 0: all weights.")
    context: int = option(256, "Tokens of an example.")
    layers: int = option(4, "Layers of a network from scratch.")
    width: int = option(128, "Width of a network from scratch.")
    heads: int = option(4, "Attention heads of a network from scratch.")
    tokenizer: Literal["bpe", "char"] = option(
        "bpe", "Of a network from scratch: pieces of words, or characters."
    )
    vocabulary: int = option(4096, "Tokens that a tokenizer of pieces has at most.")
    device: str = option("cpu", "Where to compute: cpu, cuda or cuda:N.")
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
