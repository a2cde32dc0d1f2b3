"""Every Python block of the README and docs runs; every command in them is one of ours."""

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

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.M | re.S)


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
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [line for line in words if line and line[0] == "ostinato"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_ours(page: Path) -> None:
    for words in commands(page):
        context = cli.make_context("ostinato", words[1:2], resilient_parsing=True)
        command: click.Command | None = cli
        rest = words[1:]
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            command = command.get_command(context, rest.pop(0))
        assert command is not None, f"{page.name}: no command {' '.join(words)}"
        options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        given = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert given <= options | {"--help", "--version"}, f"{page.name}: {' '.join(words)}"


def test_every_stop_kind_condition_and_strategy_is_documented() -> None:
    from ostinato.journal import StopKind
    from ostinato.loop.conditions.parser import NAMES
    from ostinato.refine.job.config import STRATEGIES

    loop = (ROOT / "docs" / "loop.md").read_text("utf-8")
    for kind in StopKind:
        assert kind.value in loop
    for name in NAMES:
        assert f"`{name}(" in loop
    strategies = (ROOT / "docs" / "strategies.md").read_text("utf-8")
    for name in STRATEGIES:
        assert f"`{name}`" in strategies
