"""Runs: made, found, recorded, read back, branched and deleted."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from ostinato.errors import InputError, RunError, RunLocked
from ostinato.journal import Journal, StepRecord, StopKind, Stopped, tensor_of
from ostinato.journal.run import Run
from ostinato.journal.session import RunSession
from ostinato.journal.sqlite import migrations
from ostinato.loop import Exceeds, LaneStep, Steps, parse
from ostinato.loop.actions import GoBack
from ostinato.train import TrainingConfig


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


STOPPED = Stopped(StopKind.PASSED, "It is good enough.", "Reaches", {"loss": 0.1})


def drive_to(run: Run, last: int, *, first: int = 1, save: bool = True) -> None:
    with RunSession(run) as driver:
        for tick in range(first, last + 1):
            driver.step(tick, tick, {"loss": 1 / tick})
            if save and tick % 5 == 0:
                driver.checkpoint(tick, tick, {"n": tick})
        driver.finish("paused", None, last, last)


def test_what_was_recorded_is_read_back_in_order(journal: Journal) -> None:
    run = journal.create("a", kind="Walk", spec={"until": "Steps(3)"})
    assert (run.status, run.tick, run.stopped, run.spec) == ("new", 0, None, {"until": "Steps(3)"})
    with RunSession(run) as driver:
        for tick in (1, 2, 3):
            driver.step(tick, tick - 1, {"loss": 1 / tick})
        driver.event("answer", 2, {"answer": "accept"})
        driver.result("second", {"text": "b"})
        driver.result("first", {"text": "a"})
        driver.flush()
        assert run.status == "running"
        driver.finish("stopped", STOPPED, 3, 2)
    assert list(run.steps()) == [StepRecord(n, n - 1, {"loss": 1 / n}) for n in (1, 2, 3)]
    assert [record.tick for record in run.steps(after=2)] == [3]
    events = list(run.events())
    assert [(event.seq, event.name, event.tick) for event in events] == [
        (1, "start", 1),
        (5, "answer", 2),
        (8, "finish", 3),
    ]
    assert list(run.events(after=5)) == events[2:]
    assert list(run.results()) == [("second", {"text": "b"}), ("first", {"text": "a"})]
    assert run.result("first") == {"text": "a"} and run.result("third") is None
    assert (run.status, run.stopped, run.tick, run.position) == ("stopped", STOPPED, 3, 2)


def test_many_steps_come_back_whole_across_blocks(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    with RunSession(run) as driver:
        for tick in range(1, 10_001):
            report = {"loss": tick / 7} if tick % 1000 else {"loss": tick / 7, "valid": True}
            driver.step(tick, tick % 300, report)
    ticks = [(r.tick, r.position, r.report["loss"]) for r in run.steps()]
    assert ticks == [(n, n % 300, n / 7) for n in range(1, 10_001)]
    assert [r.tick for r in run.steps() if "valid" in r.report] == list(range(1000, 10_001, 1000))
    assert next(run.steps(after=5432)).tick == 5433


def test_reports_of_every_kind_are_recorded(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    lane = LaneStep(4, {"token": 7}, STOPPED, GoBack(2, {"forbid": [7]}, "no"))
    report = {
        "lanes": {"item": lane},
        "small": torch.tensor([[1.5, 2.0]]),
        "large": torch.zeros(100, 100),
        "bad": math.nan,
        "far": -math.inf,
        "ids": (1, 2),
        "kind": StopKind.PASSED,
        3: {("a", 1): None},
        "object": object(),
        "text": "naïve \ud800",
    }
    with RunSession(run) as driver:
        driver.step(1, 1, report)  # type: ignore[arg-type]
    (record,) = run.steps()
    assert record.report["lanes"]["item"] == {
        "position": 4,
        "report": {"token": 7},
        "stopped": STOPPED.to_json(),
        "answer": {"answer": "go back", "to": 2, "edits": {"forbid": [7]}, "reason": "no"},
    }
    assert record.report["small"] == [[1.5, 2.0]]
    assert torch.equal(tensor_of(record.report["large"]), torch.zeros(100, 100))
    assert math.isnan(record.report["bad"]) and record.report["far"] == -math.inf
    assert record.report["ids"] == [1, 2] and record.report["kind"] == "passed"
    assert record.report["3"] == {"('a', 1)": None}
    assert record.report["object"] == "<builtins.object>"
    assert record.report["text"] == "naïve \ud800"


def test_a_result_that_json_cannot_hold_is_refused_at_once(journal: Journal) -> None:
    with (
        RunSession(journal.create("a", kind="Walk")) as driver,
        pytest.raises(InputError, match=r"The result 'k' must be made of .*got: a object"),
    ):
        driver.result("k", {"text": object()})


def test_only_results_are_kept_where_that_is_asked(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    with RunSession(run, keep="results") as driver:
        for tick in range(1, 9001):
            driver.step(tick, tick, {"loss": 1.0})
        driver.result("k", {"text": "a"})
        driver.flush()
        assert run.tick == 9000
    assert list(run.steps()) == [] and run.result("k") == {"text": "a"}
    with RunSession(run) as driver:
        assert driver.resumed_ticks == 9000
        for tick in range(8999, 9003):
            driver.step(tick, tick, {"loss": 1.0})
    assert [record.tick for record in run.steps()] == [8999, 9000, 9001, 9002]


def test_steps_that_are_recorded_are_compared_and_not_written_again(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    drive_to(run, 20)
    before = list(run.steps())
    with RunSession(run) as driver:
        assert driver.resumed_ticks == 20
        for tick in range(16, 26):
            report = {"loss": 0.5 if tick == 18 else 1 / tick, "seconds": 3.0}
            driver.step(tick, tick, report)
        driver.flush()
        assert driver.differences == 1
    after = list(run.steps())
    assert after[:20] == before and [record.tick for record in after] == list(range(1, 26))
    differs = [event for event in run.events() if event.name == "differs"]
    assert [(event.tick, event.data) for event in differs] == [(18, {"names": ["loss"]})]
    with RunSession(run) as driver:
        driver.step(18, 18, {"loss": 0.4})
        driver.flush()
        assert driver.differences == 1
    assert sum(event.name == "differs" for event in run.events()) == 1


def test_a_result_stands_and_a_second_one_is_compared(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    with RunSession(run) as driver:
        driver.step(1, 1, {})
        for text in ("a", "a", "b"):
            driver.result("k", {"text": text})
        driver.flush()
        assert driver.differences == 1
    assert list(run.results()) == [("k", {"text": "a"})]
    (differs,) = (event for event in run.events() if event.name == "differs")
    assert differs.data == {"result": "k", "names": ["text"]}


def test_an_event_that_is_replayed_is_not_recorded_again(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    with RunSession(run) as driver:
        driver.step(1, 1, {})
        driver.event("answer", 1, {"to": 3})
    with RunSession(run) as driver:
        driver.event("answer", 1, {"to": 3})
        driver.event("answer", 1, {"to": 4})
    assert [e.data for e in run.events() if e.name == "answer"] == [{"to": 3}, {"to": 4}]


def test_the_last_checkpoints_are_kept_and_found_by_tick_and_position(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    with RunSession(run) as driver:
        for tick, position in ((1, 1), (2, 2), (3, 1), (4, 2), (5, 3)):
            driver.checkpoint(tick, position, {"n": tick}, keep=4)
    assert [row.tick for row in run.checkpoints()] == [2, 3, 4, 5]
    assert len(list(run.folder.glob("*.safetensors"))) == 4
    loads = [run.load(), run.load(tick=4), run.load(position=2), run.load(tick=3, position=2)]
    assert [found and found[1]["n"] for found in loads] == [5, 4, 4, 3]
    assert run.load(tick=1) is None and run.load(position=0) is None


def test_a_checkpoint_that_is_needed_outlives_the_last_ones(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    with RunSession(run) as driver:
        for tick in range(1, 6):
            driver.checkpoint(tick, tick, {"n": tick}, keep=2, needed=[1])
    assert [row.tick for row in run.checkpoints()] == [1, 4, 5]


def test_a_damaged_checkpoint_gives_way_to_an_older_one_with_a_warning(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    drive_to(run, 10)
    run.checkpoints()[-1].path.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="is damaged.*An older checkpoint"):
        found = run.load()
    assert found is not None and found[1] == {"n": 5}
    run.checkpoints()[0].path.unlink()
    with (
        pytest.warns(UserWarning, match="older"),
        pytest.raises(RunError, match="No checkpoint of the run 'a' can be read"),
    ):
        run.load()


def test_what_a_killed_driver_left_is_swept_by_the_next(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    drive_to(run, 5)
    (run.folder / ".x.safetensors.77.tmp").write_bytes(b"half")
    (run.folder / "000000000009-1.safetensors").write_bytes(b"no row")
    RunSession(run).close()
    assert [path.name for path in run.folder.iterdir() if path.name != "lock"] == [
        run.checkpoints()[0].path.name
    ]


def test_a_branch_goes_on_from_a_checkpoint_of_its_parent(journal: Journal) -> None:
    run = journal.create("a", kind="Walk", spec={"until": "Steps(9)"})
    with RunSession(run) as driver:
        driver.step(1, 1, {})
        driver.result("early", {"n": 1})
        driver.checkpoint(5, 4, {"n": 5})
        driver.step(6, 5, {})
        driver.result("late", {"n": 2})
        driver.checkpoint(6, 5, {"n": 6})
    branch = journal.branch(run, "b", tick=5, edits={"rate": 0.5})
    assert (branch.parent, branch.tick, branch.position) == ((run.id, 5), 5, 4)
    assert (branch.kind, branch.spec, branch.status) == ("Walk", {"until": "Steps(9)"}, "paused")
    assert [key for key, _ in branch.results()] == ["early"]
    journal.delete("a")
    found = branch.load()
    assert found is not None and found[1] == {"n": 5}
    with RunSession(branch) as driver:
        assert driver.edits == {"rate": 0.5}
    with RunSession(branch) as driver:
        assert driver.edits == {"rate": 0.5}
        driver.edits = None
        driver.checkpoint(5, 4, {"n": 5, "rate": 0.5})
    with RunSession(branch) as driver:
        assert driver.edits is None


def test_a_branch_where_there_is_no_checkpoint_says_where_they_are(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    drive_to(run, 12)
    with pytest.raises(RunError, match=r"got tick 7\. Checkpoints are at: 5, 10\."):
        journal.branch(run, "b", tick=7)
    assert journal.find("b") is None


def test_runs_are_found_by_name_id_and_beginning_of_an_id(journal: Journal) -> None:
    first, second = journal.create("a", kind="Walk"), journal.create("b", kind="Walk")
    assert [run.name for run in journal.runs()] == ["b", "a"]
    for name in ("a", first.id, first.id[:6]):
        found = journal.find(name)
        assert found is not None and found.id == first.id
    assert journal.find(second.id[:5]) is None
    with pytest.raises(RunError, match=r"no run 'c' in .*Runs are: b, a\."):
        journal.get("c")


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "a b", "x" * 101, "-a"])
def test_a_name_that_is_not_safe_is_refused(journal: Journal, name: str) -> None:
    with pytest.raises(RunError, match="The name of a run must be 1 to 100 letters"):
        journal.create(name, kind="Walk")


def test_a_name_that_is_taken_is_refused(journal: Journal) -> None:
    journal.create("a", kind="Walk")
    with pytest.raises(RunError, match=r"must be new in .*got 'a', which exists"):
        journal.create("a", kind="Walk")


def test_deleting_a_run_removes_its_rows_and_files(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    drive_to(run, 10)
    with RunSession(run), pytest.raises(RunLocked, match="driven already by this process"):
        journal.delete("a")
    journal.delete("a")
    assert not run.folder.exists() and journal.runs() == []
    for table in ("steps", "events", "results", "checkpoints", "requests"):
        assert journal._database.query(f"SELECT COUNT(*) FROM {table}") == [(0,)]
    with pytest.raises(RunError, match="it was deleted"):
        run.now()


KILLED_WHILE_DELETING = """
import os, sys
from ostinato.journal import Journal, removal
def die(*_): os._exit(9)
setattr(removal, sys.argv[2], die)
Journal(sys.argv[1]).delete("a")
"""


@pytest.mark.parametrize("at", ["delete_rows", "_remove_files", "_unmark"])
def test_a_deletion_that_is_killed_leaves_nothing_for_ever(journal: Journal, at: str) -> None:
    run, other = (journal.create(name, kind="Walk") for name in "ab")
    child = journal.create("c", kind="Walk", caller=(run, "part"))
    for each in (run, other, child):
        drive_to(each, 5)
    command = [sys.executable, "-c", KILLED_WHILE_DELETING, str(journal.path), at]
    assert subprocess.run(command, timeout=60).returncode == 9
    kept = at == "delete_rows"
    assert (journal.find("a") is not None) == kept
    # Journals of one folder share the folder of their runs: nobody else's files go.
    with Journal(journal.path.with_name("other.db")) as neighbor:
        neighbor.create("x", kind="Walk", brief=True)
        drive_to(neighbor.get("x"), 5)
        neighbor.delete("x")
    assert [each.folder.exists() for each in (run, child)] == [at != "_unmark"] * 2
    drive_to(journal.create("d", kind="Walk"), 5)
    journal.delete("d")
    assert [each.folder.exists() for each in (run, child, other)] == [kept, kept, True]
    if kept:
        assert run.load() is not None
        journal.delete("a")
    assert [path.name for path in other.folder.parent.iterdir()] == [other.id]


def test_a_checkpoint_row_cannot_lead_out_of_the_runs_folder(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    drive_to(run, 5)
    with sqlite3.connect(journal.path) as connection:
        connection.execute("UPDATE checkpoints SET file = '../../secret'")
    connection.close()
    with pytest.raises(RunError, match="must be a file of the run's folder"):
        run.load()


def test_an_error_of_the_writing_thread_is_raised_in_the_driving_one(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    driver = RunSession(run)
    with sqlite3.connect(journal.path) as connection:
        connection.execute("DROP TABLE steps")
    connection.close()
    driver.step(1, 1, {"loss": 1.0})
    with pytest.raises(RunError, match="could not be written: no such table: steps"):
        driver.flush()
    with pytest.raises(RunError, match="could not be written"):
        driver.step(2, 2, {"loss": 1.0})
    with pytest.raises(RunError, match="could not be written"):
        driver.close()
    assert not run.driven


def test_a_closed_driver_refuses_to_record(journal: Journal) -> None:
    driver = RunSession(journal.create("a", kind="Walk"))
    driver.close()
    driver.close()
    with pytest.raises(RunError, match="The run's journal is closed"):
        driver.step(1, 1, {})


def test_a_driver_that_is_forgotten_lets_go_of_its_run(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    driver = RunSession(run)
    driver.step(1, 1, {"loss": 1.0})
    del driver
    assert not run.driven and run.tick == 1
    drive_to(run, 3, first=2)


def test_what_is_left_at_the_end_of_the_process_is_written(tmp_path: Path) -> None:
    code = (
        "from ostinato.journal import Journal, RunSession\n"
        f"run = Journal({str(tmp_path / 'j.db')!r}).create('a', kind='Walk')\n"
        "driver = RunSession(run)\n"
        "for tick in range(1, 101): driver.step(tick, tick, {'loss': 1.0})\n"
        "raise SystemExit(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stderr) == (3, b"")
    run = Journal(tmp_path / "j.db").get("a")
    assert (run.tick, run.status) == (100, "interrupted")


def test_a_run_goes_on_after_it_was_finished(journal: Journal) -> None:
    run = journal.create("a", kind="Walk")
    with RunSession(run) as driver:
        driver.step(1, 1, {})
        driver.finish("paused", STOPPED, 1, 1)
        assert (run.status, run.stopped) == ("paused", STOPPED)
        driver.reopen()
        assert (run.status, run.stopped) == ("running", None)
        driver.finish("paused", None, 1, 1)
        driver.step(2, 2, {})
        driver.flush()
        assert run.status == "running"


def test_a_journal_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path / "j.db").close()
    with sqlite3.connect(tmp_path / "j.db") as connection:
        connection.execute("INSERT INTO migrations VALUES (99, 0)")
    connection.close()
    with pytest.raises(RunError, match=r"must have schema \d+ or an older one, got 99\. A newer"):
        Journal(tmp_path / "j.db")


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j.db").write_text("This is a text. " * 100)
    with pytest.raises(RunError, match="must be a SQLite database"):
        Journal(tmp_path / "j.db")


def test_a_migration_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(tmp_path / "j.db").close()

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (n)")
        connection.execute("CREATE TABLE half (n)")

    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, broken))
    with pytest.raises(RunError, match="table half already exists"):
        Journal(tmp_path / "j.db")
    monkeypatch.undo()
    with Journal(tmp_path / "j.db") as journal:
        assert journal._database.query("SELECT name FROM sqlite_master WHERE name = 'half'") == []


DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("version", [1, 3])
def test_a_journal_of_every_older_schema_still_opens(tmp_path: Path, version: int) -> None:
    (tmp_path / "journal.db").write_bytes((DATA / f"journal-v{version}.db").read_bytes())
    with Journal(tmp_path / "journal.db") as journal:
        run = journal.get("walk")
        assert (run.status, run.tick, run.kind) == ("stopped", 40, "Walk")
        assert run.stopped is not None and run.stopped.kind == StopKind.BUDGET
        assert [record.tick for record in run.steps()] == list(range(1, 41))
        assert [record.report["loss"] for record in run.steps()] == [1 / n for n in range(1, 41)]
        names = [event.name for event in run.events()]  # version 3 was killed, and resumed
        assert names == ["start", "change", *(["start"] if version == 3 else []), "finish"]
        assert run.result("one") == {"text": "An answer.", "accepted": True}
        assert [row.tick for row in run.checkpoints()] == [20, 40]
        branch = journal.get("walk-b")
        assert (branch.parent, branch.tick) == ((run.id, 20), 20)
        drive_to(branch, 22, first=21, save=False)


def test_the_entries_of_an_older_journal_get_numbers_in_one_order(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes((DATA / "journal-v3.db").read_bytes())
    with Journal(tmp_path / "journal.db") as journal:
        run = journal.get("walk")
        entries = list(run.log())
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
        assert run.now().seq == len(entries)
        assert [entry for entry in entries if entry.entry == "step"] == list(run.steps())
        others = [entry for entry in entries if entry.entry != "step"]
        assert [each.entry for each in others if each.entry != "event"] == [
            "checkpoint",
            "result",
            "result",
            "checkpoint",
        ]
        assert [event for event in others if event.entry == "event"] == list(run.events())
        branch = journal.get("walk-b")
        assert branch.pending_edits == {"rate": 2.0}
        with journal.drive(branch) as session:
            assert [(each.action, each.edits) for each in session.inbox] == [
                ("change", {"rate": 3.0})
            ]
        with journal.drive(run) as session:
            session.event("later", 41, {})
        assert [entry.seq for entry in run.log(len(entries))] == [len(entries) + 1]


def test_the_calls_of_an_older_journal_keep_their_numbers_and_paths(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.executescript((DATA / "journal-v5.sql").read_text())
    connection.close()
    with Journal(tmp_path / "journal.db") as journal:
        run = journal.get("work")
        calls = list(run.calls())
        assert [call.seq for call in calls] == [2, 3, 4, 5, 6, 7]
        assert calls[-1].path == "10:named" and calls[-1].answer == {"value": "no. 0"}
        assert calls[1].arguments == {"n": 4} and run.call("2:named") == calls[1]
        assert [entry for entry in run.log() if entry.entry == "call"] == calls
        assert [call.path for call in run.calls_under("1")] == ["10:named", "1:doubled"]
        with journal.drive(run) as session:
            assert session.record_call("11:named", "{}", 1) == 1
        assert [call.seq for call in run.calls(after=7)] == [12]  # a start comes first


def test_an_older_journal_is_read_under_the_names_of_today(tmp_path: Path) -> None:
    """Written by the first version: a run of lanes that went back, and a training's settings."""
    (tmp_path / "journal.db").write_bytes((DATA / "journal-v1-lanes.db").read_bytes())
    with Journal(tmp_path / "journal.db") as journal:
        run = journal.get("lanes")
        assert run.until == "Steps(50) | Exceeds('active', above=9)"
        assert run.spec["compute_mode"] == "not compiled" and "way" not in run.spec
        assert parse(run.until) == Steps(50) | Exceeds("active", above=9)
        row = run.result("a")
        assert row is not None and row["backtracks"] == 1 and "tries" not in row
        asked = "Exceeds('tokens', above=0) & Steps(4)"
        assert row["stopped"]["condition"] == row["attempts"][0]["stopped"]["condition"] == asked
        config = journal.get("train-small").spec["config"]
        assert config == asdict(TrainingConfig())
        assert [step.tick for step in run.steps()] == [1, 2, 3, 4, 5, 6]
