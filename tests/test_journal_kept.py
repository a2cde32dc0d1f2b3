"""What is kept how long: the tree of calls goes and stays together, brief runs do not pile up."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ostinato.errors import InputError, RunError, RunLocked
from ostinato.journal import Journal, Retention, Run, StopKind, Stopped


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db", retention=Retention(newest=3, days=2))


ENDED = Stopped(StopKind.ENDED, "It is done.")


def end(journal: Journal, run: Run, status: str = "stopped") -> Run:
    with journal.drive(run) as session:
        session.step(1, 1, {})
        session.result("k", {"n": 1})
        session.checkpoint(1, 1, {"n": 1})
        session.finish(status, ENDED if status == "stopped" else None, 1, 1)
    return run


def names(journal: Journal) -> list[str]:
    return [run.name for run in journal.runs()]


def brief(journal: Journal, status: str = "stopped") -> Run:
    return end(journal, journal.create("generate", kind="generate", brief=True), status)


def made_days_ago(journal: Journal, run: Run, days: float) -> None:
    with journal._database.write() as connection:
        connection.execute(
            "UPDATE runs SET updated = ? WHERE id = ?", (time.time() - days * 86400, run.id)
        )


# The tree of calls ------------------------------------------------------------------------------


@pytest.fixture
def tree(journal: Journal) -> Journal:
    """`flow`, which called `part`, which called `leaf`; and `other`."""
    flow = end(journal, journal.create("flow", kind="Flow"))
    part = end(journal, journal.create("part", kind="Walk", caller=(flow, "a/1")))
    end(journal, journal.create("leaf", kind="Walk", caller=(part, "b")))
    end(journal, journal.create("other", kind="Walk"))
    return journal


def test_the_two_trees_are_apart(tree: Journal) -> None:
    part = tree.get("part")
    branch = tree.branch(part, "branch")
    assert (part.caller, part.parent) == ((tree.get("flow").id, "a/1"), None)
    assert (branch.caller, branch.parent) == (None, (part.id, 1))
    assert [run.name for run in tree.get("flow").called()] == ["part"]
    assert part.now().to_json()["caller"] == [tree.get("flow").id, "a/1"]


def test_a_run_is_deleted_with_those_that_it_called(tree: Journal) -> None:
    folders = [tree.get(name).folder for name in ("flow", "part", "leaf")]
    branch = tree.branch(tree.get("leaf"), "branch")
    with tree.drive(tree.get("leaf")), pytest.raises(RunLocked):
        tree.delete("flow")
    assert names(tree) == ["branch", "other", "leaf", "part", "flow"]
    assert tree.delete("flow") == 3
    assert names(tree) == ["branch", "other"]
    assert not any(folder.exists() for folder in folders)
    assert branch.load() is not None
    assert tree.delete("branch") == 1


def test_a_called_run_is_pruned_with_its_caller_only(tree: Journal) -> None:
    def pruned(**options: float) -> list[str]:
        return [each.row.name for each in tree.prunable(**options)]  # type: ignore[arg-type]

    assert pruned(keep=0) == ["other", "leaf", "part", "flow"]
    assert pruned(keep=1) == ["leaf", "part", "flow"]
    assert pruned(keep=2) == []
    made_days_ago(tree, tree.get("flow"), 30)
    assert pruned(older_than=86400.0) == ["leaf", "part", "flow"]
    with tree.drive(tree.get("leaf")):
        assert pruned(keep=0) == ["other"]
    end(tree, tree.branch(tree.get("leaf"), "branch"), "paused")
    assert pruned(keep=0) == ["other"]
    tree.delete("branch")
    for each in tree.prunable(keep=0):
        if tree.find(each.row.id):
            tree.delete(each.row.id)
    assert names(tree) == []


# Brief runs -------------------------------------------------------------------------------------


def test_brief_runs_do_not_pile_up(journal: Journal) -> None:
    named = end(journal, journal.create("generate", kind="generate"))
    runs = [brief(journal) for _ in range(6)]
    assert [run.name for run in runs[-2:]] == ["generate-6", "generate-7"]
    assert names(journal) == ["generate-7", "generate-6", "generate-5", "generate-4", "generate"]
    assert not named.now().brief and runs[-1].now().brief
    assert {path.name for path in (journal.path.parent / "runs").iterdir()} == {
        run.id for run in journal.runs()
    }
    brief(journal)  # the one before it is deleted when it is made, so there is one more for a while
    assert names(journal)[:2] == ["generate-8", "generate-7"] and len(names(journal)) == 5


def test_brief_runs_that_mean_something_to_somebody_stay(journal: Journal) -> None:
    branched, noted, kept, waits, paused, driven, called = (
        brief(journal, "paused") for _ in range(7)
    )
    for run in (branched, noted, kept, driven, called):
        end(journal, run)
    journal.branch(branched, "branch")
    journal.note(noted, "k", "accepted")
    journal.keep(kept, "mine")
    with journal.drive(waits) as session, pytest.raises(RunError):
        session.ask("q", "Which?", seconds=0)
    child = end(journal, journal.create("child", kind="Walk", caller=(called, "a")))
    journal.note(child, "k", "rejected")
    with journal.drive(driven):
        for _ in range(5):
            brief(journal)
        there = set(names(journal))
    stay = {run.name for run in (branched, noted, waits, paused, driven, called)}
    assert stay | {"mine", "branch", "child"} <= there
    assert len(there) == 9 + 4
    brief(journal)
    assert driven.id not in [run.id for run in journal.runs()]


def test_old_brief_runs_go_whatever_their_status(journal: Journal) -> None:
    old = [brief(journal, status) for status in ("stopped", "paused", "error")]
    old.append(journal.create("generate", kind="generate", brief=True))
    young = brief(journal, "paused")
    for run in old:
        made_days_ago(journal, run, 3)
    named = end(journal, journal.create("mine", kind="Walk"))
    made_days_ago(journal, named, 3)
    new = brief(journal)
    assert names(journal) == [new.name, "mine", young.name]


def test_a_brief_run_is_kept_under_a_free_name(journal: Journal) -> None:
    run = brief(journal)
    end(journal, journal.create("mine", kind="Walk"))
    with pytest.raises(RunError, match="The name of a run must be new, got 'mine'"):
        journal.keep(run, "mine")
    with pytest.raises(RunError, match="The name of a run must be 1 to 100 letters"):
        journal.keep(run, "a b")
    assert run.now().brief
    journal.keep(run)
    assert (run.name, run.now().brief) == ("generate", False)


@pytest.mark.parametrize("options", [{"newest": -1}, {"days": -0.5}])
def test_a_retention_below_nothing_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must be 0 or more"):
        Retention(**options)
