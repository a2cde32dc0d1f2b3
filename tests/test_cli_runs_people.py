"""What a person tells a run on the command line, and the tree of runs that call others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ostinato.cli.main import cli
from ostinato.errors import InputError, OstinatoError, RunError, Unanswered
from ostinato.journal import Journal


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """`flow`, which waits, has two results, and called `part`, which has the branch `branch`."""
    monkeypatch.chdir(tmp_path)
    journal = Journal(tmp_path / ".ostinato/journal.db")
    flow = journal.create("flow", kind="Flow")
    part = journal.create("part", kind="Walk", caller=(flow, "steps/1"))
    with journal.drive(part) as session:
        session.step(1, 1, {"x": 1.5})
        session.checkpoint(1, 1, {"n": 1})
        session.finish("paused", None, 1, 1)
    journal.branch(part, "branch")
    with journal.drive(flow) as session:
        session.result("a", {"text": "An answr.", "score": 1})
        session.call("steps/2", lambda n: n, {"n": float("inf")})
        with pytest.raises(Unanswered):
            session.ask("ship", "Ship\nit?", options=["yes", "no"], seconds=0)
        session.finish("waiting", None, 0, 0)
    return journal


def lines(*words: str) -> list[str]:
    result = CliRunner().invoke(cli, ["runs", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_the_list_shows_who_called_whom_and_what_a_run_waits_for(journal: Journal) -> None:
    first, asks, called, branch = lines()
    assert first.startswith("flow  Flow  waiting  tick 0  1 result  ")
    assert asks == "  asks: Ship it?"
    assert called.startswith("└─ part  Walk  paused  called at steps/1, tick 1  ")
    assert branch.startswith("   └─ branch  Walk  paused  from tick 1, tick 1  ")
    assert [line.split()[0] for line in lines("--status", "waiting")] == ["flow", "asks:"]
    (row,) = json.loads(lines("--json", "--name", "flow")[0])["runs"]
    assert (row["status"], row["waits_for"], row["caller"]) == ("waiting", "Ship\nit?", None)


def test_show_tells_the_caller_what_was_called_and_what_is_asked(journal: Journal) -> None:
    shown = lines("show", "flow")
    assert "  called      part" in shown
    assert "  asks        ship: Ship it? (yes, no)" in shown
    assert "  answer with ostinato runs answer flow …" in shown
    assert "  called by   flow, at steps/1" in lines("show", "part")
    found = json.loads(lines("show", "flow", "--json")[0])
    assert found["called"] == ["part"] and found["questions"][0]["options"] == ["yes", "no"]


def test_a_question_is_answered(journal: Journal) -> None:
    with pytest.raises(InputError, match="must be one of yes, no, got 'maybe'"):
        lines("answer", "flow", "maybe")
    answered = lines("answer", "flow", "yes", "--by", "ada")
    assert answered == ["Answered. To resume: Python: Loop(process, until=..., run='flow')"]
    call = journal.get("flow").call("ship")
    assert call is not None and (call.answer, call.author) == ("yes", "ada")
    assert journal.get("flow").status == "paused"
    with pytest.raises(RunError, match="must wait for an answer, got paused"):
        lines("answer", "flow", "yes")


def test_a_result_to_be_noted_on_is_found(journal: Journal) -> None:
    assert "  results     1: a" in lines("show", "flow")
    with pytest.raises(RunError, match=r"has no result 'z' to be noted on\. Results are: a\."):
        lines("note", "flow", "z", "accepted")


def test_a_run_that_waits_for_another_is_paused_with_it(journal: Journal) -> None:
    part = journal.get("part")
    with journal.drive(part) as session:
        assert lines("pause", "flow") == ["part will pause at its next step."]
        with pytest.raises(RunError, match="Pause it, or stop that one: ostinato runs stop part"):
            lines("stop", "flow")
        session.finish("paused", None, 1, 1)
    with pytest.raises(RunError, match="To pause a run, it must be running"):
        lines("pause", "flow")


def test_a_note_is_taken_and_shown(journal: Journal) -> None:
    words = ["--set", "text=An answer.", "--set", "score=2", "--text", "A typo.", "--by", "ada"]
    assert lines("note", "flow", "a", "edited", *words) == ["Noted: a is edited."]
    (note,) = journal.get("flow").notes()
    assert note.value == {"text": "An answer.", "score": 2}
    assert (note.text, note.author) == ("A typo.", "ada")
    assert "  notes       1" in lines("show", "flow")
    with pytest.raises(OstinatoError, match="has no result 'b'"):
        lines("note", "flow", "b", "accepted")


def test_export_prints_the_log_as_json_lines(journal: Journal) -> None:
    entries = [json.loads(line) for line in lines("export", "flow")]
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry["entry"] for entry in entries] == ["result", "event", "call", "event", "event"]
    assert entries[2]["arguments"] == {"n": "Infinity"}
    assert [json.loads(line) for line in lines("export", "flow", "--after", "2")] == entries[2:]
    steps = [json.loads(line) for line in lines("export", "part")]
    assert steps[1]["report"] == {"x": 1.5} and steps[1]["entry"] == "step"
    assert steps[2]["entry"] == "checkpoint" and Path(steps[2]["path"]).exists()


def test_deleting_a_run_tells_what_goes_with_it(journal: Journal) -> None:
    result = CliRunner().invoke(cli, ["runs", "delete", "flow"], input="n\n")
    assert "its checkpoints and the 1 run that it called?" in result.output
    assert lines("delete", "flow", "--yes") == ["Deleted flow and 1 run that it called."]
    assert [run.name for run in journal.runs()] == ["branch"]


def test_a_brief_run_is_kept_under_a_name(journal: Journal) -> None:
    journal.create("generate", kind="generate", brief=True)
    kept = "until 100 newer ones have ended, 30 days at most; longer: ostinato runs keep generate"
    assert f"  kept        {kept}" in lines("show", "generate")
    assert lines("keep", "generate", "--as", "mine") == ["mine is kept until it is deleted."]
    assert not journal.get("mine").now().brief
