"""The configuration of a chat. Imports no torch: the command line makes options from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ostinato.arguments import require, require_at_least, require_sampling, require_types
from ostinato.errors import InputError
from ostinato.flow.dialogue.hand_over import HandOver
from ostinato.journal import JSON, Place, RunConfig, beside
from ostinato.loop import check_seed

OPENING = "Hello! What shall we talk about?"


@dataclass(frozen=True, kw_only=True)
class ChatRun(RunConfig):
    """A conversation with a model, or of two models: `partner` is the second.

    model, partner: Names, folders or files, or servers: `http://HOST:PORT/v1#MODEL`.
    turns: How many answers two models give together.
    opening: What the partner is taken to have said first.
    rules: A job file whose rules, past cases, checks, strategy and sampling hold.
    column, given: The column of these that has what is said, and the values of others.
    context: Tokens that the model reads, that of the model by default.
    max_tokens, max_cost, max_seconds, max_rounds: Where a person answers, see `HandOver`.
    out: File of the conversation.
    weights: Hash of the files of the model and its adapter.
    key_env: Name of the environment variable that holds a server's key.
    """

    kind: ClassVar[str] = "chat"
    writes: ClassVar[tuple[str, ...]] = ("out",)
    free: ClassVar[frozenset[str]] = frozenset(
        {"out", "turns", "slots", "max_tokens", "max_cost", "max_seconds", "max_rounds"}
    )
    hashes: ClassVar[frozenset[str]] = frozenset({"weights"})
    longer: ClassVar[str] = "For more turns, give --turns; or branch it."

    model: Place = "smollm2"
    adapter: Place | None = None
    weights: str = ""
    key_env: str | None = None
    compile: bool | None = None
    bits: int | None = None
    device: str = "cpu"
    partner: Place = ""
    partner_system: str = ""
    turns: int = 10
    opening: str = OPENING
    system: str = ""
    rules: Path | None = None
    column: str = "message"
    given: Mapping[str, JSON] = field(default_factory=dict)
    memory: Literal["summary", "cut"] = "summary"
    context: int | None = None
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int = 0
    slots: int = 4
    max_tokens: int | None = None
    max_cost: float | None = None
    max_seconds: float | None = None
    max_rounds: int | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        require_types(self)
        require_sampling(self.sampling)
        check_seed(self.seed)
        require_at_least(1, slots=self.slots, turns=self.turns)
        some = {"max_new_tokens": self.max_new_tokens, "context": self.context}
        require_at_least(1, **{name: each for name, each in some.items() if each is not None})
        if self.bits is not None:
            require(self.bits in (8, 4), "bits", "8 or 4", self.bits)
        require(bool(self.opening.strip()), "opening", "a text", self.opening)
        if self.partner_system and not self.partner:
            raise misplaced("partner_system", "with a partner, got none")
        self._refuse_limits()
        _ = self.hand_over

    def _refuse_limits(self) -> None:
        if self.partner and any(value is not None for value in self._limits.values()):
            name = next(name for name, value in self._limits.items() if value is not None)
            raise misplaced(f"max_{name}", "where a person talks, got it for two models")

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling settings that are given, by name."""
        names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def _limits(self) -> dict[str, float | None]:
        return {
            name: getattr(self, f"max_{name}") for name in ("tokens", "cost", "seconds", "rounds")
        }

    @property
    def hand_over(self) -> HandOver:
        """When a person answers in place of the model."""
        return HandOver(**self._limits)  # type: ignore[arg-type]

    def trusted(self) -> list[str]:
        """Name the functions of its checks, and the servers that get what is said."""
        from ostinato.refine import python_checks
        from ostinato.remote import is_server

        calls = [] if self.rules is None else python_checks(self.rules)
        doing = [f"calls the function {call}" for call in calls]
        servers = [name for name in (self.model, self.partner) if name and is_server(name)]
        return [*doing, *(f"sends what is said to {name}" for name in servers)]

    def outputs(self) -> list[tuple[str, Path]]:
        """Return the file of the conversation, where there is one."""
        return [] if self.out is None else [("out", self.out)]

    def branched(self, name: str) -> ChatRun:
        """Return the configuration of a branch, which writes a file of its own."""
        if self.out is None:
            return self
        return replace(self, out=beside(self.out, name, self.out.suffix))


def misplaced(name: str, expected: str) -> InputError:
    """Return the error of a setting that belongs to something else."""
    error = InputError(f"{name} must be given {expected}. Leave it out.")
    error.key = name
    return error
