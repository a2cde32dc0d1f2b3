"""Runs are listed as a tree with their sizes, and old ones are pruned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from toys import Walk

from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.journal import Journal
from ostinato.loop import CheckpointSchedule, Loop, Steps


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """Runs `a` (with branches `b`, and `c` of that), `d` (paused) and `e`, the oldest first."""
    monkeypatch.chdir(tmp_path)
    journal = Journal(tmp_path / ".ostinato/journal.db")
    walked(journal, "a", 10)
    journal.branch(journal.get("a"), "b", tick=5)
    walked(journal, "b", 8)
    journal.branch(journal.get("b"), "c")
    walked(journal, "c", 12)
    walked(journal, "d", 10, pause=3)
    walked(journal, "e", 2)
    return journal


def walked(journal: Journal, name: str, steps: int, pause: int | None = None) -> None:
    schedule = CheckpointSchedule(steps=5, keep=9)
    with Loop(Walk(), until=Steps(steps), run=name, journal=journal, checkpoint=schedule) as loop:
        for step in loop:
            if step.tick == pause:
                break


def listed(*words: str) -> list[str]:
    result = CliRunner().invoke(cli, ["runs", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def names(lines: list[str]) -> list[str]:
    return [line.replace("└─", "").split()[0] for line in lines if "  Walk  " in line]


def test_branches_are_listed_under_the_run_that_they_come_from(journal: Journal) -> None:
    lines = [line for line in listed() if "  Walk  " in line]
    starts = [line.split("  Walk  ")[0] for line in lines]
    assert starts == ["e", "d", "a", "└─ b", "   └─ c"]
    assert "from tick 5, tick 8" in lines[3] and "from tick 8, tick 12" in lines[4]
    assert names(listed("--status", "paused")) == ["d"]
    assert names(listed("--name", "[bc]")) == ["b", "c"]
    assert names(listed("--limit", "2")) == ["e", "d"]
    assert listed("--kind", "train") == ["No runs like that in .ostinato/journal.db."]


def test_the_size_of_a_run_is_that_of_its_rows_and_checkpoints(journal: Journal) -> None:
    rows = {row["name"]: row for row in json.loads(listed("--json")[0])["runs"]}
    query = journal._database.query
    for name, row in rows.items():
        run = journal.get(name)
        parts = [("steps", "data"), ("events", "data"), ("results", "row")]
        sizes = [
            query(f"SELECT SUM(LENGTH({column})) FROM {table} WHERE run = ?", (run.id,))[0][0] or 0
            for table, column in parts
        ]
        files = sum(path.stat().st_size for path in run.folder.glob("*.safetensors"))
        assert row["bytes"] == sum(sizes) + files
    assert rows["a"]["bytes"] > rows["e"]["bytes"] > 0


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (["--keep", "0"], ["e", "a", "b", "c"]),
        (["--keep", "1"], ["a", "b", "c"]),
        (["--keep", "0", "--status", "paused"], ["d"]),
        (["--keep", "0", "--kind", "train"], []),
        (["--older-than", "1h"], []),
        (["--older-than", "0min"], ["e", "a", "b", "c"]),
    ],
)
def test_old_runs_are_pruned(journal: Journal, options: list[str], gone: list[str]) -> None:
    before = names(listed())
    shown = listed("prune", *options, "--dry-run")
    assert names(shown) == gone and names(listed()) == before
    listed("prune", *options, "--yes")
    assert names(listed()) == [name for name in before if name not in gone]
    there = {path.name for path in (journal.path.parent / "runs").iterdir()}
    assert there == {run.id for run in journal.runs()}


def test_a_run_stays_for_its_branch(journal: Journal) -> None:
    walked(journal, "c", 14, pause=13)
    assert names(listed("prune", "--keep", "0", "--yes")) == ["e"]
    assert sorted(names(listed())) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_that_is_driven_is_not_pruned(journal: Journal, steps: int) -> None:
    with journal.drive(journal.get("d")) as session:
        if steps:
            session.step(4, 4, {})
            session.flush()
        status = journal.get("d").status  # of a run without a new step: as before
        assert names(listed("prune", "--keep", "0", "--status", status, "--yes")) == []
        assert journal.find("d") is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "prune must have --older-than or --keep, got none. Give --keep 0 for all."),
        (["--older-than", "3"], "It must be a number with min, h, d or w, such as 30d, got '3'."),
    ],
)
def test_wrong_options_of_prune_are_refused(
    journal: Journal, options: list[str], message: str
) -> None:
    runner = CliRunner()
    try:
        output = runner.invoke(cli, ["runs", "prune", *options], catch_exceptions=False).output
    except InputError as error:
        output = str(error)
    assert message in output
    assert len(journal.runs()) == 5
