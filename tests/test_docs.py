"""README and docs cannot rot: Python blocks run, commands and options exist, links resolve."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import click
import pytest
from tiny import save_tiny
from tiny_bert import save_tiny_bert

from ostinato.cli.main import cli
from ostinato.runs import KINDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.M | re.S)
FENCED = re.compile(r"^```.*?^```", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)")


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text("utf-8")) if kind == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page share a namespace; `smollm2` is a tiny model of random weights."""
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path / "cache"))
    save_tiny(tmp_path / "cache" / "models" / "smollm2")
    if page.stem == "decoding":
        save_tiny_bert(tmp_path / "masked")
    if page.stem == "diffusers":
        from tiny_pipelines import stable_diffusion  # heavy, and of the extra

        stable_diffusion(tmp_path / "my-pipeline")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "docs"}
    for number, code in enumerate(blocks(page, "python"), 1):
        with contextlib.redirect_stdout(io.StringIO()):
            where = f"{page.name}, block {number}"
            exec(compile(code, where, "exec", dont_inherit=True), namespace)


def commands(page: Path) -> list[list[str]]:
    lines = [line for code in blocks(page, "console") for line in code.splitlines()]
    split = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [arguments for arguments in split if arguments and arguments[0] == "ostinato"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_ours(page: Path) -> None:
    for arguments in commands(page):
        context = cli.make_context("ostinato", arguments[1:2], resilient_parsing=True)
        command: click.Command | None = cli
        rest = arguments[1:]
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            command = command.get_command(context, rest.pop(0))
        assert command is not None, f"{page.name}: no command {' '.join(arguments)}"
        options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        used = {argument.split("=")[0] for argument in rest if argument.startswith("--")}
        unknown = used - options - {"--help", "--version"}
        assert not unknown, f"{page.name}: {' '.join(arguments)}"


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, spelled as GitHub does."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text("utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_resolve(page: Path) -> None:
    for path, anchor in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {path}"
        if anchor:
            assert anchor in headings(target), f"{page.name}: {path}#{anchor}"


def test_every_stop_kind_condition_and_strategy_is_documented() -> None:
    from ostinato.journal import StopKind
    from ostinato.loop.conditions.parser import NAMES
    from ostinato.refine import STRATEGIES

    loop = (ROOT / "docs" / "loop.md").read_text("utf-8")
    for kind in StopKind:
        assert kind.value in loop
    for name in NAMES:
        assert f"`{name}(" in loop
    strategies = (ROOT / "docs" / "strategies.md").read_text("utf-8")
    for name in STRATEGIES:
        assert f"`{name}`" in strategies


def test_every_table_and_column_of_the_journal_is_documented(tmp_path: Path) -> None:
    from ostinato.journal import Journal

    page = (ROOT / "docs" / "journal.md").read_text("utf-8")
    with Journal(tmp_path / "journal.db") as journal:
        query = journal._database.query
        tables = [
            row[0]
            for row in query("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not row[0].startswith("sqlite_")
        ]
        for table in tables:
            columns = {row[1] for row in query(f"PRAGMA table_info({table})")}
            if table == "migrations":
                told = re.findall(r"`(\w+)`", page.partition("`migrations` (")[2].partition(")")[0])
            else:
                rows = page.partition(f"| column of `{table}` | is |")[2].partition("\n\n")[0]
                cells = [row.split("|")[1] for row in rows.splitlines()[2:]]
                told = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
            assert sorted(told) == sorted(columns), table


def test_what_may_change_on_resume_is_documented_for_every_kind() -> None:
    rows = re.findall(r"^\| `([^|`]+)` \| (.*) \|$", (ROOT / "docs/resuming.md").read_text(), re.M)
    documented = {kind: set(re.findall(r"`(\w+)`", fields)) for kind, fields in rows}
    free = {name: set(kind.config_class().free) for name, kind in KINDS.items()}
    assert documented == free
