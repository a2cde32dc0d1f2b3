"""A refine job: the values that a TOML job file sets. Knows no model and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ostinato.arguments import require, require_choice
from ostinato.checks import BaseCheck
from ostinato.errors import InputError
from ostinato.journal import Place
from ostinato.loop import check_seed, digest
from ostinato.models import adapter_place, model_place, weights_digest
from ostinato.refine.inputs import STRATEGIES, check_value, strategy_value
from ostinato.refine.prompts import PromptTemplate
from ostinato.refine.routing.cases import CaseSettings, read_cases
from ostinato.refine.routing.router import Router
from ostinato.refine.routing.rules import Rule
from ostinato.refine.strategies.backtrack import Backtrack
from ostinato.refine.strategies.base import Strategy
from ostinato.remote import Server, is_server

ITEM_BUDGET = "item budget"
"""The section of a job's limits for one item."""

WEIGHTS = "weights"
"""The section with the hash of the model's weights; empty for a model of the catalog."""


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How tokens are sampled: the fields of `SamplingParams` that a job can set."""

    temperature: float = 0.7
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    end_bias: float = 0.0
    end_within: int = 32


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What an item may cost over all its rounds, and what the whole job may cost; None: no limit.

    An item that exceeds its budget gets its best draft, not accepted. A job that exceeds its budget
    leaves its unfinished items for a later run.
    """

    item_tokens: int | None = None
    item_seconds: float | None = None
    job_tokens: int | None = None
    job_seconds: float | None = None
    job_cost: float | None = None


@dataclass(frozen=True, kw_only=True)
class JobChoices:
    """What was chosen in place of the job file's own values; empty and None: nothing."""

    input: Path | None = None
    strategy: str = ""
    model: Place = ""
    adapter: Place = ""
    seed: int | None = None
    details: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a refine job sets. Paths are relative to the folder of `file`.

    `slots` is the number of items written in parallel; replies do not depend on it. `server` is set
    if `model` is on a server. `details`: the output has drafts and all verdicts. `choices` replace
    values of the file; `elsewhere`: so does `output`.
    """

    file: Path
    input: Path
    output: Path
    report: Path
    model: str
    prompt: PromptTemplate
    checks: tuple[BaseCheck, ...]
    id: str = ""
    adapter: str = ""
    compile: bool | None = None
    bits: int | None = None
    device: str = "cpu"
    server: Server | None = None
    rules: tuple[Rule, ...] = ()
    cases: CaseSettings | None = None
    strategy: Strategy = field(default_factory=Backtrack)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    max_new_tokens: int = 128
    budgets: Budgets = field(default_factory=Budgets)
    seed: int = 0
    slots: int = 16
    details: bool = False
    keep: Literal["results", "steps"] = "results"
    choices: JobChoices = field(default_factory=JobChoices)
    elsewhere: bool = False

    def __post_init__(self) -> None:
        # A plain prompt is one text: chat turns cannot be added to it.
        if not self.prompt.plain:
            return
        examples = self.cases.examples if self.cases else 0
        for wrong, what in (
            (
                self.strategy.gives_feedback,
                f"the strategy {self.strategy.kind!r}, which writes chat turns",
            ),
            (self.server is not None, 'a model on a server: there, set api = "completions"'),
            (examples > 0, "past cases as examples: set [cases] examples = 0"),
        ):
            if wrong:
                raise InputError(f"{self.file.name}: [prompt] plain must be false with {what}.")

    @property
    def name(self) -> str:
        """The job's name: the stem of its file; for `job.toml` the name of its folder."""
        stem = self.file.stem
        return (self.file.parent.name or stem) if stem == "job" else stem

    @property
    def folder(self) -> Path:
        """The folder of the job file."""
        return self.file.parent

    def router(self) -> Router:
        """Read the past cases, and return the router of the job's items."""
        cases = read_cases(self.cases) if self.cases else None
        return Router(
            prompt=self.prompt,
            rules=self.rules,
            cases=cases,
            case_settings=self.cases,
            checks=self.checks,
        )

    def needed_columns(self) -> dict[str, str]:
        """Return the columns that every item must have, with what needs each."""
        needed: dict[str, str] = {}
        users: list[tuple[str, Sequence[str]]] = [("the prompt", self.prompt.columns)]
        users += [(f"the rule '{rule.name}'", rule.columns) for rule in self.rules]
        users += [("[cases]", [self.cases.column])] if self.cases else []
        users += [(f"the check '{check.name}'", check.columns) for check in self.checks]
        for needed_by, columns in users:
            for column in columns:
                needed.setdefault(column, needed_by)
        return needed

    def sections(self) -> dict[str, str]:
        """Return a hash of each part that every reply depends on.

        The prompt, rules and past cases are not among them: what they make of an item is hashed
        item by item (`item_facts`), so a new rule affects only the items that it fits.
        """
        return {
            "model": digest([self.model, self.adapter, *self._computed_by()]),
            WEIGHTS: weights_digest(self.model, self.adapter),
            "checks": digest([check_value(check) for check in self.checks]),
            "strategy": digest(strategy_value(self.strategy)),
            "sampling": digest([_values(self.sampling), self.max_new_tokens]),
            ITEM_BUDGET: digest([self.budgets.item_tokens, self.budgets.item_seconds]),
            "seed": digest(self.seed),
        }

    def with_changes(
        self,
        *,
        strategy: str | None = None,
        seed: int | None = None,
        model: str | None = None,
        adapter: str | None = None,
        details: bool = False,
    ) -> Job:
        """Return the job with another strategy (with its default options), seed, model or adapter,
        or with details in its output.

        Raises `InputError` for an adapter of a model on a server.
        """
        chosen = replace(
            self.choices,
            strategy=strategy or self.choices.strategy,
            model=self.choices.model if model is None else model_place(model),
            adapter=self.choices.adapter if adapter is None else adapter_place(adapter),
            seed=self.choices.seed if seed is None else seed,
            details=details or self.choices.details,
        )
        job = replace(self, choices=chosen, details=details or self.details)
        if strategy is not None and strategy != self.strategy.kind:
            require_choice("strategy", strategy, STRATEGIES)
            # `rounds` is the one option that all strategies share.
            job = replace(job, strategy=STRATEGIES[strategy](rounds=self.strategy.rounds))
        if seed is not None:
            job = replace(job, seed=check_seed(seed))
        if model is not None:
            server = job._server_of(model)
            local = server is None
            # The job's settings of its own model: an adapter fits no other one, and a server
            # takes no compute mode.
            job = replace(
                job,
                model=model,
                adapter="",
                server=server,
                compile=job.compile if local else None,
                bits=job.bits if local else None,
                device=job.device if local else "cpu",
            )
        if adapter is not None:
            where = "left out with a model on a server"
            require(job.server is None, "--adapter", where, adapter, "Leave out one of them.")
            job = replace(job, adapter=adapter_place(adapter))
        return job

    def _server_of(self, model: str) -> Server | None:
        if not is_server(model):
            return None
        return Server.of(model) if self.server is None else self.server.at(model)

    def _computed_by(self) -> list[object]:
        """Return what replies depend on besides the model: compute mode, or server settings."""
        if self.server is None:
            # Defaults are left out, so that runs from before an option keep their hash.
            modes = ["compile"] * bool(self.compile) + [f"{self.bits} bits"] * bool(self.bits)
            return [*modes, *([self.device] if self.device != "cpu" else [])]
        server = self.server
        return [server.api, server.prefill, server.template, server.stream, server.extensions]


def _values(settings: Any) -> dict[str, object]:
    return {f.name: getattr(settings, f.name) for f in fields(settings)}


def option_names(kind: type[Strategy]) -> dict[str, object]:
    """Return the options of a strategy with their defaults."""
    return {f.name: f.default for f in fields(kind) if f.init and f.default is not MISSING}
