"""The notebook of the docs runs from start to end, and shows what its cells gave."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from notebooks import outputs
from tiny import save_tiny

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def test_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """`smollm2` is a tiny model of random weights: what it writes is another, how is the same."""
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path / "cache"))
    save_tiny(tmp_path / "cache" / "models" / "smollm2")
    monkeypatch.chdir(tmp_path)
    # Programs in a shell's background ignore SIGINT, which a cell sends.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    printed: list[str] = []
    for cell, shown in outputs(NOTEBOOK):
        assert kinds(shown) == kinds(cell["outputs"])
        printed += [line for output in shown for line in output.get("text", ())]
    assert "Stopped.\n" in printed and "8 of 8 done" in printed[-1]


def kinds(shown: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(output["output_type"], output.get("name")) for output in shown]
