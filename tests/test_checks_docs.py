"""docs/checks.md: its code runs, its tables build, and it names every kind and parameter."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from ostinato.checks import KINDS, from_spec, parameters

PAGE = (Path(__file__).parent.parent / "docs" / "checks.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_the_examples_run() -> None:
    namespace: dict[str, object] = {"__name__": "docs"}
    for block in blocks("python"):
        exec(compile(block, "docs/checks.md", "exec"), namespace)


def test_the_tables_build_checks() -> None:
    tables = [table for block in blocks("toml") for table in tomllib.loads(block)["check"]]
    assert len(tables) > 4
    for table in tables:
        assert from_spec("", table).kind == table["kind"]


def test_every_kind_and_parameter_is_described() -> None:
    headings = re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    described = {kind for heading in headings for kind in heading.split(", ")}
    assert set(KINDS) <= described
    for kind in KINDS:
        for parameter in parameters(kind):
            assert f"`{parameter}`" in PAGE or f"`{parameter} =" in PAGE, (kind, parameter)
