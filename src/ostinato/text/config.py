"""The configurations of runs on texts: writing, filling gaps, training.

Imports no torch: the command line makes options from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal

from ostinato.arguments import (
    require,
    require_at_least,
    require_sampling,
    require_types,
)
from ostinato.decode import Constraint
from ostinato.errors import InputError
from ostinato.journal import Place, RunConfig
from ostinato.loop import Condition, Phrase, Steps, check_seed, parse
from ostinato.train import TrainingConfig, TrainingRun, argument, option

TRANSFORMER_ONLY = ("layout", "untied", "zero_init")


@dataclass(frozen=True, kw_only=True)
class TextTrainingConfig:
    """What to train, and on which files. Without `start` a network is made from scratch."""

    free: ClassVar[frozenset[str]] = frozenset({"files", "valid"})

    files: tuple[Path, ...] = argument("FILES...")
    start: Place | None = option(
        None, "Fine-tune this model, not a new one.", flag="--from", metavar="MODEL"
    )
    valid: tuple[Path, ...] = option((), "Validation file; repeatable.")
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
    prepare: ClassVar[str] = "ostinato.text:prepare_text_training"
    free: ClassVar[frozenset[str]] = TrainingRun.free | {"merge"}
    hashes: ClassVar[frozenset[str]] = TrainingRun.hashes | {"weights"}

    training: TrainingConfig = TrainingConfig()
    text: TextTrainingConfig
    merge: bool = option(False, "Save the model with the LoRA adapter merged.")
    weights: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge and not self.text.lora_rank:
            raise InputError("--merge needs an adapter. Give its rank with --lora-rank.")


@dataclass(frozen=True, kw_only=True)
class FillRun(RunConfig):
    """A text whose gaps a masked language model fills; `weights` is the hash of its files."""

    kind: ClassVar[str] = "fill"
    hashes: ClassVar[frozenset[str]] = frozenset({"weights"})

    text: str
    model: Place
    gap_tokens: int = 8
    steps: int = 8
    temperature: float = 0.7
    noise: float = 1.0
    seed: int = 0
    weights: str = ""

    def __post_init__(self) -> None:
        require_sampling({"temperature": self.temperature})
        require_types(self)
        require_at_least(1, gap_tokens=self.gap_tokens, steps=self.steps)
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class GenerateRun(RunConfig):
    """A text that a language model or a server writes, or beam search with `num_beams`.

    prompt: A text, or chat messages.
    model: A name, folder or file, or a server: `http://HOST:PORT/v1#MODEL`.
    weights: Hash of the files of the model and its adapter.
    key_env: Name of the environment variable that holds the server's key.
    plain: Continue the prompt, without a chat template.
    stop: Texts that end it.
    each: Another condition that ends it, in Python's spelling.
    alternatives: How many of the most likely tokens each report has.
    prompt_lookup, draft_model: Speculation, which changes the speed alone.
    """

    kind: ClassVar[str] = "generate"
    free: ClassVar[frozenset[str]] = frozenset({"prompt_lookup", "draft_model"})
    hashes: ClassVar[frozenset[str]] = frozenset({"weights"})

    prompt: str | tuple[Mapping[str, str], ...]
    model: Place = "smollm2"
    adapter: Place | None = None
    weights: str = ""
    key_env: str | None = None
    compile: bool | None = None
    bits: int | None = None
    device: str = "cpu"
    plain: bool = False
    max_new_tokens: int = 200
    stop: tuple[str, ...] = ()
    each: str | None = None
    temperature: float = 0.7
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    end_bias: float = 0.0
    end_within: int = 32
    constraint: Constraint | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    seed: int = 0
    alternatives: int = 0
    prompt_lookup: int | None = None
    draft_model: Place | None = None

    def __post_init__(self) -> None:
        require_sampling({name: getattr(self, name) for name in self.__dataclass_fields__})
        check_seed(self.seed)
        require_types(self)
        require_at_least(1, max_new_tokens=self.max_new_tokens, num_beams=self.num_beams)
        require_at_least(0, alternatives=self.alternatives)
        if self.bits is not None:
            require(self.bits in (8, 4), "bits", "8 or 4", self.bits)
        if not isinstance(self.prompt, str):
            require(not self.plain, "plain", "False with chat messages", self.plain)
        self.condition()

    def condition(self) -> Condition:
        """Return what ends the text besides its end token. Raises `InputError` where it is none."""
        condition: Condition = Steps(self.max_new_tokens)
        for text in self.stop:
            condition = condition | Phrase(text)
        return condition | parse(self.each) if self.each else condition
