"""The part of a job file that also holds in a conversation: rules, past cases, checks, settings.

Reads no items, and loads no model but the encoder of past cases.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ostinato.arguments import did_you_mean
from ostinato.checks import BaseCheck, Template
from ostinato.decode import SamplingParams
from ostinato.errors import InputError
from ostinato.refine.job.file import JobReader
from ostinato.refine.job.model import server_settings
from ostinato.refine.job.toml_reader import Problems, Table, read_job_toml
from ostinato.refine.prompts import PromptTemplate
from ostinato.refine.routing.cases import CaseSettings, read_cases
from ostinato.refine.routing.router import Router
from ostinato.refine.routing.rules import Rule
from ostinato.refine.strategies.base import Strategy

READ = ("rule", "cases", "check", "strategy", "sampling", "server")
OTHERS = (
    *("input", "output", "report", "id", "model", "adapter", "compile", "bits", "device"),
    *("seed", "slots", "details", "keep", "prompt", "budget"),
)
"""Keys of a job file that say nothing of how a message is answered."""


@dataclass(frozen=True, kw_only=True)
class RuleBook:
    """How messages are answered, as a job file says; None where it does not.

    `server` has settings of a model on a server, such as its prices.
    """

    file: Path
    rules: tuple[Rule, ...] = ()
    cases: CaseSettings | None = None
    checks: tuple[BaseCheck, ...] = ()
    strategy: Strategy | None = None
    sampling: SamplingParams | None = None
    max_new_tokens: int | None = None
    server: Mapping[str, Any] | None = None
    _routers: dict[str, Router] = field(default_factory=dict, compare=False, repr=False)

    def router(self, column: str) -> Router:
        """Return what routes a message, which is in `column`. The first time, reads past cases."""
        if column not in self._routers:
            self._routers[column] = Router(
                prompt=PromptTemplate(messages=(("user", Template(f"{{{column}}}")),)),
                rules=self.rules,
                cases=read_cases(self.cases) if self.cases else None,
                case_settings=self.cases,
                checks=self.checks,
            )
        return self._routers[column]

    def with_columns(self, columns: Collection[str]) -> tuple[RuleBook, list[str]]:
        """Return the rules and checks that need no other columns, and why each other is left out.

        Raises `InputError` for past cases that are compared with another column.
        """
        told: list[str] = []

        def usable(what: str, needed: Sequence[str]) -> bool:
            missing = [name for name in needed if name not in columns]
            if missing:
                told.append(f"{what} is left out: it needs {', '.join(map(repr, missing))}.")
            return not missing

        rules = [each for each in self.rules if usable(f"The rule '{each.name}'", each.columns)]
        checks = [each for each in self.checks if usable(f"The check '{each.name}'", each.columns)]
        if self.cases is not None and self.cases.column not in columns:
            raise InputError(
                f"The column of [cases] in {self.file.name} must be one of {', '.join(columns)}, "
                f"got {self.cases.column!r}.{did_you_mean(self.cases.column, columns)}"
            )
        if not told:
            return self, told
        return replace(self, rules=tuple(rules), checks=tuple(checks), _routers={}), told


def read_rule_book(path: Path | str) -> RuleBook:
    """Read the rules, past cases, checks, strategy and sampling of a job file.

    It needs no input, model and prompt. Raises `InputError` that lists every problem with file,
    line and key.
    """
    path = Path(path).absolute()
    values, source = read_job_toml(path)
    problems = Problems(source)
    root = Table(values, problems)
    for key in (*READ, *OTHERS):
        root.expect(key)
    reader = JobReader(root, problems, path.parent.resolve())
    sampling = values["sampling"] if isinstance(values.get("sampling"), dict) else {}
    parts = reader.checks_and_sampling(required=False)
    server = root.table("server")
    book = RuleBook(
        file=path,
        rules=reader.rules(),
        cases=reader.cases(),
        checks=parts["checks"],
        strategy=reader.strategy() if root.has("strategy") else None,
        sampling=SamplingParams(**asdict(parts["sampling"])) if sampling else None,
        max_new_tokens=parts["max_new_tokens"] if "max_new_tokens" in sampling else None,
        server=None if server is None else server_settings(server),
    )
    root.close()
    problems.refuse()
    return book
