"""Edits from outside: committed before they take effect, applied once, at the same tick again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from killable import denoise, refine, train, walk
from toys import Walk

from ostinato.errors import EditError
from ostinato.journal import Journal
from ostinato.journal.run import Run
from ostinato.loop import CheckpointSchedule, Exceeds, Lanes, Loop, Steps, go_back


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Journal(tmp_path / "journal.db").create("a", kind="Walk")


def drive_and_ask(run: Run, edits: dict[str, object], last: int) -> tuple[Loop, int]:
    """Drive a walk; ask for edits at its fifth step; return the loop and the tick they took."""
    loop = Loop(Walk(), until=Steps(last), run=run, checkpoint=CheckpointSchedule(steps=10_000))
    at = 0
    for step in loop:
        if step.tick == 5:
            Journal(run.database.path).request(run, "change", edits)
            deadline = time.monotonic() + 10
            while not loop._session.inbox and time.monotonic() < deadline:  # type: ignore[union-attr]
                time.sleep(0.01)
            at = step.tick
        if step.tick == last - 1:
            break
    return loop, at


def undisturbed(at: int, rate: float, last: int) -> float:
    walk = Walk()
    for tick in range(1, last + 1):
        walk.step()
        if tick == at:
            walk.change({"rate": rate})
    return walk.place


def test_a_change_is_done_with_its_event_and_applied_again_on_resume(run: Run) -> None:
    loop, at = drive_and_ask(run, {"rate": 0.25}, 20)
    assert run.database.query("SELECT COUNT(*) FROM requests WHERE done IS NULL") == [(0,)]
    loop._session.close()  # type: ignore[union-attr]  # as if it had been killed: no checkpoint
    walk = Walk()
    Loop(walk, until=Steps(20), run=run).run()
    assert walk.place == undisturbed(at, 0.25, 20)
    assert [(e.tick, e.data) for e in run.events() if e.name == "change"] == [(at, {"rate": 0.25})]
    assert [(each.answer, each.error) for each in run.requests()] == [({"tick": at}, None)]
    assert not any(event.name == "differs" for event in run.events())


def test_a_change_that_the_process_refuses_is_told_and_the_run_goes_on(run: Run) -> None:
    loop, at = drive_and_ask(run, {"speed": 2}, 20)
    loop._session.close()  # type: ignore[union-attr]
    walk = Walk()
    Loop(walk, until=Steps(20), run=run).run()
    assert walk.place == undisturbed(0, 1.0, 20)
    (refused,) = (event for event in run.events() if event.name == "refused")
    assert (refused.tick, refused.data["edits"]) == (at, {"speed": 2})
    assert "Unknown edit 'speed'" in refused.data["why"]
    (request,) = run.requests()
    assert (request.done is not None, request.error) == (True, refused.data["why"])


@pytest.mark.parametrize("recorded", [False, True])
def test_a_refused_change_of_the_program_is_raised_once(run: Run, recorded: bool) -> None:
    walk = Walk()
    loop = Loop(walk, until=Steps(20), run=run if recorded else None)
    for step in loop:
        if step.tick == 5:
            break
    loop.change({"speed": 2})
    with pytest.raises(EditError, match="Unknown edit 'speed'"):
        next(iter(loop))
    assert loop.run().numbers == {"steps": 20}
    assert walk.place == undisturbed(0, 1.0, 20)
    refused = [event.tick for event in run.events() if event.name == "refused"]
    assert refused == ([5] if recorded else [])


def test_going_back_works_after_many_pauses(run: Run) -> None:
    for last in (12, 13, 14, 15, 16, 17):
        with Loop(
            Walk(), until=Steps(50), run=run, checkpoint=CheckpointSchedule(steps=10, keep=1)
        ) as loop:
            for step in loop:
                if step.tick == last:
                    break
    walk = Walk()
    loop = Loop(
        walk,
        until=Steps(18) & Exceeds("tokens", above=0),
        on_stop=go_back(kinds=("failed",), times=1, to=10, rate=0.5),
        run=run,
        checkpoint=CheckpointSchedule(steps=10, keep=1),
    )
    loop.run()
    assert run.checkpoints()[0].tick == 10
    assert walk.rate == 0.5


class Known(Walk):
    known_edits: ClassVar = {"rate": "number", "place": "integer", "names": "list", "any": "any"}


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (
            {"rat": 0.1},
            r"Unknown edit 'rat'\. Known: any, names, place, rate\. Did you mean 'rate'?",
        ),
        ({"rate": "abc"}, "rate must be a number, got 'abc'."),
        ({"rate": True}, "rate must be a number, got True."),
        ({"place": 1.5}, "place must be a whole number, got 1.5."),
        ({"names": "x"}, "names must be a list, got 'x'."),
    ],
)
def test_a_branch_with_an_edit_that_its_process_does_not_know_is_refused_when_made(
    run: Run, edits: dict[str, object], message: str
) -> None:
    Loop(Known(), until=Steps(5), run=run).run()
    with Journal(run.database.path) as journal:
        with pytest.raises(EditError, match=message):
            journal.branch(run, "b", edits=edits)
        assert [each.name for each in journal.runs()] == ["a"]
        journal.branch(run, "b", edits={"rate": 1, "place": 2, "names": [], "any": None})


@pytest.mark.parametrize("make", [train, refine, denoise, walk])
def test_what_a_process_says_that_it_knows_it_does_not_call_unknown(
    tmp_path: Path, make: Callable[..., Loop]
) -> None:
    loop = make(journal=Journal(tmp_path / "journal.db"), run="a")
    for _ in zip(range(2), loop, strict=False):
        pass
    process = loop.process
    known = dict(getattr(process, "known_edits", {}))
    assert bool(known) == (make is not walk)
    place = {"lane": next(iter(process._states))} if isinstance(process, Lanes) else {}
    # "lane" names one, and feedback is taken where a draft begins only.
    for name in (known.keys() - {"lane", "feedback"}) | {"unheard"}:
        with pytest.raises(EditError) as refused:
            process.change({**place, name: "a text that is no value"})
        assert ("Unknown edit" in str(refused.value)) == (name == "unheard" or make is walk)
    loop.close()
