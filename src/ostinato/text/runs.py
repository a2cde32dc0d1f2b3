"""The configurations of runs that write texts and fill gaps. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ostinato.arguments import (
    require,
    require_at_least,
    require_sampling,
    require_types,
)
from ostinato.decode import Constraint
from ostinato.journal import Place, RunConfig
from ostinato.loop import Condition, Phrase, Steps, check_seed, parse


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
