"""Reads a job file: every key is checked, and all problems are shown together. Runs nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from ostinato.arguments import SAMPLING_RANGES
from ostinato.checks import BaseCheck, Judge, Template
from ostinato.errors import InputError
from ostinato.loop import check_seed
from ostinato.refine.inputs import STRATEGIES
from ostinato.refine.job.checks import read_checks, refuse_contradictions
from ostinato.refine.job.config import Budgets, Job, JobChoices, SamplingSettings, option_names
from ostinato.refine.job.model import read_compute_settings, read_option, read_server, read_weights
from ostinato.refine.job.standard_input import STANDARD_INPUT
from ostinato.refine.job.toml_reader import Problems, Table, read_job_toml
from ostinato.refine.prompts import ROLES, PromptTemplate
from ostinato.refine.routing.cases import CaseSettings, Similarity
from ostinato.refine.routing.rules import Rule
from ostinato.refine.strategies.backtrack import Backtrack
from ostinato.refine.strategies.base import Strategy
from ostinato.remote import Server

UNREADABLE = PromptTemplate()
"""Replaces a prompt that could not be read, until `Problems.refuse` raises."""


def read_job(
    path: Path | str, *, input: Path | str | None = None, output: Path | str | None = None
) -> Job:
    """Read a job file. `input` and `output` replace the job's own, and may be outside its folder.

    Raises `InputError` that lists every problem with file, line and key.
    """
    path = Path(path).absolute()
    values, source = read_job_toml(path)
    problems = Problems(source)
    root = Table(values, problems)
    reader = JobReader(root, problems, path.parent.resolve(), given_input(input))
    parts = reader.parts(path)
    problems.refuse()
    choices = JobChoices(input=reader.given_input)
    job = Job(file=path, choices=choices, **parts)
    return _with_output(job, output) if output is not None else job


def given_input(path: Path | str | None) -> Path | None:
    """Return the path of `--input`; `-` is standard input. Raises `InputError` for no file."""
    if path is None:
        return None
    if Path(path) == STANDARD_INPUT:
        return STANDARD_INPUT
    path = Path(path).absolute()
    if not os.path.exists(path):
        raise InputError(f"--input must be a file that exists, got {path}. Check its name.")
    if not os.path.isfile(path):  # such as a pipe of `<(...)`, which can be read only once
        raise InputError(f"--input must be a file, got {path}. Pipe it, with --input -.")
    return path


def _with_output(job: Job, output: Path | str) -> Job:
    # Not confined to the job's folder: a job file may be somebody else's, a command is the user's.
    path = Path(output).absolute()
    if path.resolve() == job.output.resolve():
        return job
    read = _read_by(job.input, job.file, job.cases)
    for written in (path, _report_beside(path)):
        if written.resolve() in read:
            raise InputError(
                f"--output must be another file than {read[written.resolve()]}, got {output}. "
                "Name another."
            )
    if os.path.isdir(path):  # pathlib raises for a name that is too long
        raise InputError(f"--output must be a file, got the folder {output}. Name a file in it.")
    return replace(job, output=path, report=_report_beside(path), elsewhere=True)


def _read_by(items: Path, file: Path, cases: CaseSettings | None) -> dict[Path, str]:
    """Return the files that a job reads, with what they are: an output must not replace one."""
    read = {file.resolve(): "the job file"}
    read |= {} if items == STANDARD_INPUT else {items.resolve(): "the input"}
    return read | ({cases.file.resolve(): "the past cases"} if cases else {})


def _report_beside(output: Path) -> Path:
    return output.with_suffix(".report.html")


@dataclass
class JobReader:
    """Reads the sections of one job file; what is wrong is added to `problems`."""

    root: Table
    problems: Problems
    folder: Path
    given_input: Path | None = None
    plain: bool = False

    def parts(self, path: Path) -> dict[str, Any]:
        """Return the fields of `Job`; what could not be read is in `problems`."""
        root = self.root
        # Read every part before anything is refused: one run lists all problems.
        output = self._path(root, "output", f"{path.stem}.replies.jsonl")
        model = read_weights(root, self.folder, "model", 'Add model = "smollm2", or a folder.')
        parts: dict[str, Any] = {
            "input": self._input(),
            "output": output,
            "report": self._path(root, "report", _report_beside(output).name, output.parent),
            "id": root.text("id"),
            "model": model,
            "adapter": read_weights(root, self.folder, "adapter"),
            **read_compute_settings(root, model),
            "server": read_server(root, model),
            "seed": self._seed(),
            "slots": root.integer("slots", 16, least=1),
            "details": root.flag("details", False),
            "keep": root.choice("keep", "results", ("results", "steps")),
            "prompt": self._main_prompt(),
            "rules": self.rules(),
            "cases": self.cases(),
            "strategy": self.strategy(),
            **self.checks_and_sampling(),
        }
        # Only now: a cost limit needs prices, and `close` refuses what nobody has read.
        parts["budgets"] = self._budgets(parts["server"], parts["checks"])
        root.close()
        self._refuse_same_files(parts, path)
        return parts

    def _input(self) -> Path:
        piped = self.root.values.get("input") == str(STANDARD_INPUT)
        if self.given_input is not None or piped:
            self.root.text("input")  # it counts as read
            return self.given_input or STANDARD_INPUT
        return self._file(self.root, "input", 'Add input = "messages.jsonl".')

    def _seed(self) -> int:
        seed = self.root.integer("seed", 0)
        try:
            return check_seed(seed)
        except InputError as error:
            self.root.add_problem("seed", str(error))
            return 0

    # Paths ------------------------------------------------------------------------------------

    def _path(self, table: Table, key: str, default: str, base: Path | None = None) -> Path:
        """Read a path inside the job's folder."""
        name = table.text(key, "")
        if not name:
            return (base or self.folder) / default
        # Resolved, so that neither `..` nor a link leads out of the folder.
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder):
            table.add_problem(
                key,
                f"It must lie in the job's folder, got {name!r}. Write a path below the folder of "
                "the job file" + (", or give --output." if key == "output" else "."),
            )
        elif os.path.isdir(path):
            table.add_problem(key, f"It must be a file, got the folder {name!r}.")
        return path

    def _file(self, table: Table, key: str, needed: str) -> Path:
        """Read the path of a file that must exist."""
        name = table.text(key, "", if_missing=needed)
        path = self._path(table, key, "")
        if name and path.is_relative_to(self.folder) and not os.path.exists(path):
            table.add_problem(key, f"The file must exist, got {name!r} in {self.folder}.")
        return path

    def _refuse_same_files(self, parts: dict[str, Any], file: Path) -> None:
        read = _read_by(parts["input"], file, parts["cases"])
        for key in ("output", "report"):
            path = parts[key].resolve()  # two names can be one file
            if path in read:
                self.root.add_problem(key, f"It must be another file than {read[path]}.")
        if parts["output"] == parts["report"]:
            self.root.add_problem("report", "It must be another file than the output.")

    # Prompts, rules, past cases ---------------------------------------------------------------

    def _main_prompt(self) -> PromptTemplate:
        table = self.root.table("prompt")
        if table is None:
            if not self.root.has("prompt"):
                self.root.add_problem(
                    "prompt", 'It is missing. Add [prompt] with template = "{message}".'
                )
            return UNREADABLE
        self.plain = table.flag("plain", False)
        return replace(self._prompt(table), plain=self.plain)

    def _prompt(self, table: Table) -> PromptTemplate:
        """Read a prompt: a template, messages, or the item's own conversation."""
        messages: list[tuple[str, Template]] = []
        if table.has("system"):
            messages.append(("system", self._template(table, "system")))
        column = table.text("messages_column")
        for one in table.tables("messages"):
            role = one.choice("role", "user", ROLES)
            messages.append((role, self._template(one, "content", "Add what the message says.")))
            one.close()
        if table.has("template"):
            messages.append(("user", self._template(table, "template", "Write the prompt.")))
        sources = [key for key in ("template", "messages", "messages_column") if table.has(key)]
        if len(sources) != 1:
            got = " and ".join(sources) or "none"
            table.add_problem(
                sources[-1] if sources else "template",
                f"A prompt must have one of template, messages and messages_column, got {got}.",
            )
        elif self.plain and (sources != ["template"] or table.has("system")):
            table.add_problem("plain", "A plain prompt must have only a template. Remove the rest.")
        table.close()
        return PromptTemplate(messages=tuple(messages), messages_column=column)

    def _template(self, table: Table, key: str, if_missing: str = "") -> Template:
        """Read a template; a wrong brace is recorded with its key and line."""
        try:
            return Template(table.text(key, if_missing=if_missing))
        except InputError as error:
            table.add_problem(key, str(error))
            return Template("")

    def rules(self) -> tuple[Rule, ...]:
        """Read every `[[rule]]`."""
        return tuple(
            rule
            for number, table in enumerate(self.root.tables("rule"), 1)
            if (rule := self._rule(table, number)) is not None
        )

    def _rule(self, table: Table, number: int) -> Rule | None:
        name = table.text("name", f"rule {number}")
        column = table.text("column", if_missing="Name the column that the pattern is searched in.")
        pattern = table.text("pattern", if_missing='Add a regular expression: pattern = "…".')
        reply = self._template(table, "reply") if table.has("reply") else None
        prompt = table.table("prompt")
        case = table.flag("case", False)
        inner = self._prompt(prompt) if prompt else None
        table.close()
        try:
            return Rule(
                name=name,
                column=column,
                pattern=pattern,
                reply=reply,
                prompt=inner,
                case=case,
            )
        except InputError as error:
            table.add_problem(error.key or "reply", str(error))
            return None

    def cases(self) -> CaseSettings | None:
        """Read `[cases]`; None without it."""
        table = self.root.table("cases")
        if table is None:
            return None

        def in_range(value: float) -> bool:
            return 0 <= value <= 1

        settings = CaseSettings(
            file=self._file(table, "file", "Name the file of past cases."),
            column=table.text("column", if_missing="Name the column that is compared."),
            question=table.text("question", "question"),
            answer=table.text("answer", "answer"),
            answer_above=table.number("answer_above", None, in_range, "from 0 to 1"),
            example_above=table.number("example_above", 0.3, in_range, "from 0 to 1"),
            examples=table.integer("examples", 3),
            by=table.choice("by", "words", get_args(Similarity)),
            encoder=read_weights(table, self.folder, "encoder") or "minilm",
        )
        table.close()
        above = settings.answer_above
        if above is not None and settings.example_above > above:
            table.add_problem(
                "example_above",
                f"It must be at most answer_above ({above:g}), got {settings.example_above:g}. "
                "Lower it.",
            )
        return settings

    # Checks, strategy, sampling, budgets ------------------------------------------------------

    def strategy(self) -> Strategy:
        """Read `[strategy]`, by default backtracking."""
        table = self.root.table("strategy")
        default = Backtrack()
        if table is None:
            return default
        kind = STRATEGIES[table.choice("kind", "backtrack", STRATEGIES)]
        options: dict[str, Any] = {
            name: read_option(table, name, default) for name, default in option_names(kind).items()
        }
        table.close()
        try:
            return kind(**options)
        except InputError as error:
            table.add_problem(error.key if error.key in options else "", str(error))
            return default

    def checks_and_sampling(self, *, required: bool = True) -> dict[str, Any]:
        """Read every `[[check]]` and `[sampling]`, as fields of a job; checks may be `required`."""
        # An empty table reads the defaults by the same code.
        table = self.root.table("sampling") or Table({}, self.problems, ("sampling",))
        defaults = asdict(SamplingSettings())
        settings = SamplingSettings(
            **{name: table.ranged(name, defaults[name], SAMPLING_RANGES[name]) for name in defaults}
        )
        length = table.integer("max_new_tokens", 128, least=1)
        table.close()
        # Together with the sampling: a check may need more tokens than a draft has.
        read = read_checks(self.root, self.folder) if required or self.root.has("check") else []
        refuse_contradictions(read, table, length)
        checks = tuple(check for _, check in read)
        return {"checks": checks, "sampling": settings, "max_new_tokens": length}

    def _budgets(self, server: Server | None, checks: Sequence[BaseCheck]) -> Budgets:
        table = self.root.table("budget") or Table({}, self.problems, ("budget",))

        def positive(value: float) -> bool:
            return 0 < value < float("inf")

        budgets = Budgets(
            item_tokens=table.integer("item_tokens", None, least=1),
            item_seconds=table.number("item_seconds", None, positive, "a number above 0"),
            job_tokens=table.integer("job_tokens", None, least=1),
            job_cost=table.number("job_cost", None, positive, "a number above 0"),
            job_seconds=table.number("job_seconds", None, positive, "a number above 0"),
        )
        table.close()
        _refuse_small_jobs(table, budgets)
        if budgets.job_cost is not None and not _priced(server, checks):
            table.add_problem(
                "job_cost",
                "It must come with the prices of a server. Set price_out in [server] or a judge.",
            )
        return budgets


def _priced(server: Server | None, checks: Sequence[BaseCheck]) -> bool:
    """Return whether a price is known: of the job's server, or of a judge on one."""
    judges = any(isinstance(check, Judge) and check.priced for check in checks)
    return judges or (server is not None and server.priced)


def _refuse_small_jobs(table: Table, budgets: Budgets) -> None:
    pairs: Sequence[tuple[str, float | None, float | None]] = (
        ("tokens", budgets.item_tokens, budgets.job_tokens),
        ("seconds", budgets.item_seconds, budgets.job_seconds),
    )
    for unit, item, job in pairs:
        # The job would always end first, and leave the item unfinished.
        if item is not None and job is not None and item > job:
            table.add_problem(
                f"item_{unit}",
                f"It must be at most job_{unit} ({job:g}), got {item:g}. Lower it, or raise the "
                "job's.",
            )
