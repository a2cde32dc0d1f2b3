"""The configuration of a run of flows. Imports no torch: the command line makes options from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ostinato.arguments import require_above, require_at_least, require_types
from ostinato.journal import JSON, Place, RunConfig
from ostinato.loop import Budget, Condition, Seconds, check_seed


@dataclass(frozen=True, kw_only=True)
class FlowRun(RunConfig):
    """A flow that is run once with `arguments`, or for every row of `input`.

    `function` is the flow's name in the file `program`; without one, only the program that made it
    can resume it. `limit` is how many rows of `input` count. `rows` is the hash of these, `items`
    that of rows that no file holds. `max_tokens`, `max_cost` and `max_seconds` limit all flows
    together.
    """

    kind: ClassVar[str] = "flow"
    free: ClassVar[frozenset[str]] = frozenset(
        {"out", "slots", "in_progress", "max_tokens", "max_cost", "max_seconds", "program"}
    )
    hashes: ClassVar[frozenset[str]] = frozenset({"rows"})
    writes: ClassVar[tuple[str, ...]] = ("out",)
    call: ClassVar[str] = "….run(…, run={name!r})"

    program: Path | None = None
    function: str = ""
    arguments: Mapping[str, JSON] = field(default_factory=dict)
    input: Path | None = None
    limit: int | None = None
    rows: str = ""
    items: str = ""
    out: Path | None = None
    model: Place = "smollm2"
    seed: int = 0
    slots: int = 16
    in_progress: int = 256
    max_tokens: int | None = None
    max_cost: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(1, slots=self.slots, in_progress=self.in_progress)
        if self.limit is not None:
            require_at_least(1, limit=self.limit)
        given = {name: getattr(self, name) for name in ("max_tokens", "max_cost", "max_seconds")}
        require_above(0, **{name: each for name, each in given.items() if each is not None})
        check_seed(self.seed)

    @property
    def single(self) -> bool:
        """Whether it is one flow, not one for every row."""
        return self.input is None and not self.items

    @property
    def until(self) -> Condition | None:
        """The budget of all flows together."""
        parts: list[Condition] = []
        if self.max_tokens is not None:
            parts.append(Budget("tokens", self.max_tokens))
        if self.max_cost is not None:
            parts.append(Budget("cost", self.max_cost))
        if self.max_seconds is not None:
            parts.append(Seconds(self.max_seconds))
        found: Condition | None = None
        for each in parts:
            found = each if found is None else found | each
        return found

    def resumed_by(self, name: str) -> str:
        """Return the call in Python that resumes it, where no command can build it."""
        made_here = self.program is None or bool(self.items)
        return super().resumed_by(name) if made_here else ""

    def trusted(self) -> list[str]:
        """Say that building it runs a program."""
        return [] if self.program is None else [f"runs the program {self.program}"]

    def outputs(self) -> list[tuple[str, Path]]:
        """Return the file of the rows' results, where there is one."""
        return [] if self.out is None else [("out", self.out)]

    def branched(self, name: str) -> FlowRun:
        """Return the configuration of a branch, which writes a file of its own."""
        from dataclasses import replace

        from ostinato.journal import beside

        if self.out is None:
            return self
        return replace(self, out=beside(self.out, name, self.out.suffix))
