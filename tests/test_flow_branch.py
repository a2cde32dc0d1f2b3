"""A run branched after a call has the calls until then, and makes the others itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import tiny_model

from ostinato.cli.main import cli
from ostinato.errors import InputError, RunError
from ostinato.flow import flow, gather, generate, step
from ostinato.journal import Journal
from ostinato.runs import branch

MADE: list[str] = []


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    MADE.clear()
    with Journal(tmp_path / "journal.db") as opened:
        yield opened


@step
def note(name: str) -> str:
    MADE.append(name)
    return name


@flow
def story() -> list[str]:
    first = generate("Once", max_new_tokens=6)
    found = [first, note("a"), *gather(partial(note, "b"), partial(note, "c"))]
    return [*found, generate(f"{first} then", max_new_tokens=6), note("d")]


def test_a_branch_goes_on_after_a_call(journal: Journal) -> None:
    whole = story.run(run="story", journal=journal, model=tiny_model())
    run = journal.get("story")
    answers = {call.path: call.answer for call in run.calls()}
    assert sorted(MADE) == ["a", "b", "c", "d"]
    made = branch(journal, run, "other", call="2:note")
    assert (made.parent or ("", 0))[0] == run.id
    assert (made.status, made.kind) == ("paused", "flow")
    assert [call.path for call in made.calls()] == ["1:generate", "2:note"]
    MADE.clear()
    assert story.run(run="other", journal=journal, model=tiny_model()) == whole
    assert sorted(MADE) == ["b", "c", "d"]
    texts = [call.path for call in made.calls() if call.path.endswith("generate")]
    same = [(made.call(path), answers[path]) for path in texts]
    assert all(call is not None and call.answer["value"] == a["value"] for call, a in same)  # type: ignore[index, call-overload]


def test_a_branch_of_a_branch_has_its_calls(journal: Journal) -> None:
    story.run(run="story", journal=journal, model=tiny_model())
    one = branch(journal, journal.get("story"), "one", call="4:generate")
    two = branch(journal, one, "two", call="1:generate")
    assert [call.path for call in two.calls()] == ["1:generate"]
    MADE.clear()
    story.run(run="one", journal=journal, model=tiny_model())
    assert MADE == ["d"]
    # A branch from a checkpoint of a branch has the calls that it took over.
    again = journal.branch(journal.get("one"), "again")
    assert {call.path for call in again.calls()} == {call.path for call in one.calls()}


def test_a_branch_after_no_call_is_refused(journal: Journal) -> None:
    story.run(run="story", journal=journal, model=tiny_model())
    run = journal.get("story")
    with pytest.raises(RunError, match=r"got '2:notes'\. Did you mean '2:note'\?"):
        journal.branch(run, "other", call="2:notes")
    with pytest.raises(InputError, match="without tick and edits, got '2:note' with tick"):
        journal.branch(run, "other", call="2:note", tick=1)
    journal.branch(run, "other", call="2:note")
    with pytest.raises(RunError, match="must be new"):
        journal.branch(run, "other", call="2:note")


def test_the_command_branches_after_a_call(journal: Journal) -> None:
    story.run(run="story", journal=journal, model=tiny_model())
    line = ["runs", "branch", "story", "--call", "2:note", "--as", "other"]
    result = CliRunner().invoke(cli, [*line, "--journal", str(journal.path)])
    assert result.exit_code == 0, result.output
    assert "Created other from story after the call 2:note." in result.output
    assert len(list(journal.get("other").calls())) == 2
