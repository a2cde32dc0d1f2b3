"""The driver: steps, stops, answers and pauses, without a journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from toys import Walk

from ostinato.errors import InputError, RunError
from ostinato.journal import Journal, StopKind, Stopped
from ostinato.journal.sqlite.tables import RunTables
from ostinato.loop import (
    Budget,
    CheckpointSchedule,
    Condition,
    Edits,
    Epochs,
    GiveUp,
    GoBack,
    History,
    Loop,
    NotFinite,
    Plateau,
    Reaches,
    Report,
    Seconds,
    StartOver,
    Step,
    Steps,
    go_back,
)


class Counter:
    """Adds `rate` at every step; diverges at `bad` while the rate is above 1."""

    def __init__(self, rate: float = 1.0, bad: int | None = None) -> None:
        self.total, self.rate, self.bad = 0.0, rate, bad

    def step(self) -> Report:
        self.total += self.rate
        if self.bad is not None and self.total >= self.bad and self.rate > 1:
            return {"loss": float("nan"), "tokens": 2}
        return {"loss": self.total, "tokens": 2}

    def state_dict(self) -> dict[str, object]:
        return {"total": self.total, "rate": self.rate}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.total, self.rate = state["total"], state["rate"]  # type: ignore[assignment]

    def change(self, edits: Edits) -> None:
        scale = edits.get("scale", 1.0)
        assert isinstance(scale, float)
        self.rate *= scale


def test_a_plain_callable_is_stepped_until_its_output_is_good_enough() -> None:
    numbers = iter(range(100))
    loop = Loop(lambda: next(numbers), until=lambda step: step.output == 7)
    seen = [step.output for step in loop]
    assert seen == list(range(8))
    assert loop.output == 7
    assert loop.stopped is not None and loop.stopped.kind is StopKind.PASSED


def test_the_last_budgeted_step_that_ends_by_itself_says_ended() -> None:
    loop = Loop(lambda: {"ended": "The text has ended."}, until=Steps(1))
    assert loop.run().kind is StopKind.ENDED


def test_a_generator_takes_as_many_ticks_as_it_yields() -> None:
    def three() -> Iterator[int]:
        yield from (1, 2, 3)

    loop = Loop(three, until=Steps(10))
    assert [step.output for step in loop] == [1, 2, 3]
    assert loop.tick == 3
    assert loop.stopped is not None and loop.stopped.kind is StopKind.ENDED


def test_a_generator_refuses_to_be_saved_when_the_loop_is_built() -> None:
    def one() -> Iterator[int]:
        yield 1

    with pytest.raises(InputError, match="generator can neither be saved nor go back"):
        Loop(one, until=Steps(3), checkpoint=CheckpointSchedule(steps=1))
    with pytest.raises(InputError, match="generator"):
        Loop(one, until=Steps(3), on_stop=go_back())


def test_a_break_is_a_pause_and_the_next_for_goes_on() -> None:
    loop = Loop(Counter(), until=Steps(5))
    for step in loop:
        if step.tick == 2:
            break
    assert loop.stopped is None
    assert [step.tick for step in loop] == [3, 4, 5]
    assert loop.stopped is not None and loop.stopped.kind is StopKind.BUDGET
    assert list(loop) == []


def test_a_pause_ends_at_the_next_boundary_and_can_be_gone_on_from() -> None:
    loop = Loop(Counter(), until=Steps(6))
    for step in loop:
        if step.tick == 3:
            loop.pause("The bell rang.")
    assert loop.stopped is not None
    assert (loop.stopped.kind, loop.stopped.sentence) == (StopKind.PERSON, "The bell rang.")
    assert loop.run().kind is StopKind.BUDGET
    assert loop.tick == 6


def test_without_a_condition_a_loop_ends_with_its_process_or_by_a_person() -> None:
    stopped = Loop(iter_of(3)).run()
    assert (stopped.kind, stopped.sentence) == (StopKind.ENDED, "The generator has returned.")
    loop = Loop(Counter())
    for step in loop:
        if step.tick == 200:
            loop.stop()
    assert loop.tick == 200
    assert loop.stopped is not None and loop.stopped.kind is StopKind.PERSON


def iter_of(count: int) -> Iterator[int]:
    yield from range(count)


def test_a_run_without_a_condition_is_resumed_with_and_without_one(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        with Loop(Counter(), run="a", journal=journal) as loop:
            for step in loop:
                if step.tick == 3:
                    break
        assert journal.get("a").until == "Never()"
        with Loop(Counter(), run="a", journal=journal) as again:
            assert next(iter(again)).tick == 4
        assert Loop(Counter(), until=Steps(6), run="a", journal=journal).run().kind == "budget"
        assert journal.get("a").until == "Steps(6)"
        with Loop(Counter(), run="a", journal=journal) as last:
            assert next(iter(last)).tick == 7
        assert journal.get("a").until == "Never()"


def test_a_stop_by_a_person_is_for_good() -> None:
    loop = Loop(Counter(), until=Steps(6))
    for step in loop:
        if step.tick == 3:
            loop.stop()
    assert list(loop) == []
    assert loop.stopped is not None and loop.stopped.kind is StopKind.PERSON


def test_a_diverged_loss_goes_back_to_the_checkpoint_with_something_changed() -> None:
    process = Counter(rate=4.0, bad=30)
    loop = Loop(
        process,
        until=Steps(40) | NotFinite(),
        on_stop=go_back(scale=0.25),
        checkpoint=CheckpointSchedule(steps=2),
    )
    seen = [(step.tick, step.position) for step in loop]
    assert (8, 8) in seen and (9, 7) in seen  # diverged at tick 8, went back to position 6
    assert loop.stopped is not None and loop.stopped.kind is StopKind.BUDGET
    assert loop.tick == 40
    assert loop.position == 38
    assert process.total == 6 * 4 + 32 * 1


def test_without_a_checkpoint_before_it_going_back_starts_over() -> None:
    process = Counter(rate=40.0, bad=30)
    loop = Loop(process, until=Steps(3) | NotFinite(), on_stop=go_back(scale=0.01))
    loop.run()
    assert process.total == pytest.approx(0.8)
    assert loop.position == 2


def test_what_was_spent_stays_spent_when_going_back() -> None:
    answers = iter(range(100))

    def again(stopped: Stopped, history: History) -> GoBack | GiveUp:
        return GoBack(None) if next(answers) < 20 else GiveUp()

    loop = Loop(Counter(), until=Reaches("loss", above=5) | Budget("tokens", 24), on_stop=again)
    assert loop.run().kind is StopKind.BUDGET
    assert loop.tick == 12


def test_patience_returns_to_where_it_was_at_the_position_gone_back_to() -> None:
    losses = iter([5.0, 4.0, 4.0, float("nan"), 4.0, 4.0, 4.0, 4.0])

    class Losses(Counter):
        def step(self) -> Report:
            return {"loss": next(losses)}

    loop = Loop(
        Losses(),
        until=Plateau("loss", patience=3) | NotFinite(),
        on_stop=go_back(),
        checkpoint=CheckpointSchedule(steps=2),
    )
    assert loop.run().kind is StopKind.NO_PROGRESS
    assert loop.tick == 7  # back at tick 4 to position 2, where nothing had been waited yet


def test_starting_over_returns_to_the_beginning() -> None:
    process = Counter()

    def over_once(stopped: Stopped, history: History) -> StartOver | GiveUp:
        return GiveUp() if history.attempts else StartOver({"scale": 3.0})

    Loop(process, until=Reaches("loss", above=3), on_stop=over_once).run()
    assert process.total == 3.0 and process.rate == 3.0


def test_a_live_edit_takes_effect_at_the_next_boundary() -> None:
    process = Counter()
    loop = Loop(process, until=Steps(4))
    for step in loop:
        if step.tick == 2:
            loop.change({"scale": 10.0})
    assert process.total == 22


def test_an_error_of_the_process_is_raised_again_and_told() -> None:
    def broken() -> None:
        raise ZeroDivisionError("no")

    loop = Loop(broken, until=Steps(3))
    with pytest.raises(ZeroDivisionError):
        loop.run()
    assert loop.stopped is not None and loop.stopped.kind is StopKind.ERROR
    assert "ZeroDivisionError: no" in loop.stopped.sentence


def test_a_pause_does_not_count_as_seconds_spent() -> None:
    loop = Loop(Counter(), until=Seconds(60) | Steps(3))
    next(iter(loop))
    spent = loop._state[0][0]  # type: ignore[index]
    loop._state[0][1] -= 1000  # type: ignore[index,operator]
    assert loop.run().kind is StopKind.BUDGET
    assert loop.tick == 3
    assert loop._state[0][0] < spent + 60  # type: ignore[index,operator]


def test_what_is_no_process_is_refused_with_the_mend() -> None:
    with pytest.raises(InputError, match="A process must be a callable"):
        Loop(42, until=Steps(1))
    with pytest.raises(InputError, match="stop condition must be"):
        Loop(Counter(), until=42)


def test_the_step_shows_where_the_loop_stands() -> None:
    step = next(iter(Loop(Counter(), until=Steps(2))))
    assert isinstance(step, Step)
    assert repr(step) == "Step(tick=1, position=1, report={'loss': 1.0, 'tokens': 2})"


def test_a_crash_at_the_end_leaves_no_state_from_which_it_takes_a_step_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise OSError("the machine is gone")

    journal = Journal(tmp_path / "journal.db")
    with monkeypatch.context() as patched:
        patched.setattr(RunTables, "finish", crash)
        with pytest.raises(RunError, match="the machine is gone"):
            Loop(Counter(), until=Steps(5), run="a", journal=journal).run()
    loop = Loop(Counter(), until=Steps(5), run="a", journal=journal)
    assert str(loop.run()) == str(Loop(Counter(), until=Steps(5)).run())
    assert loop.tick == 5 and len(list(journal.get("a").steps())) == 5
    journal.close()


def test_a_closed_loop_says_how_to_go_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    loop = Loop(Counter(), until=Steps(5), run="a", journal=journal)
    with loop:
        next(iter(loop))
    with pytest.raises(RunError, match="Build another Loop with the same run"):
        next(iter(loop))
    again = Loop(Counter(), until=Steps(5), run="a", journal=journal)
    assert again.tick == 1
    again.run()
    finished = Loop(Counter(), until=Steps(5), run="a", journal=journal)
    assert finished.stopped is not None and list(finished) == []
    further = Loop(Counter(), until=Steps(7), run="a", journal=journal)
    assert [step.tick for step in further] == [6, 7]
    journal.close()


def test_a_step_of_a_loop_has_all_that_a_step_has() -> None:
    step = next(iter(Loop(Counter(), until=Steps(2))))
    made = Step(1, 1, {"loss": 1.0, "tokens": 2})
    for name in (*Step.__slots__, "output", "lanes"):
        assert getattr(step, name) == getattr(made, name)


# A run that needs no further step -----------------------------------------------------------------


def walked(until: Condition, journal: Path) -> tuple[Stopped, int]:
    """Drive the run `a` until a condition; return why it stopped and the steps that were taken."""
    process = Walk()
    with Loop(process, until=until, run="a", journal=Journal(journal)) as loop:
        taken = sum(1 for _ in loop)
    assert loop.stopped is not None
    return loop.stopped, taken


@pytest.mark.parametrize(
    ("until", "sentence"),
    [
        (Steps(4), "It has taken 10 steps, the limit is 4."),
        (Steps(10) | Steps(20), "It has taken 10 steps, the limit."),
        (Epochs(0.5), "It has completed 0.5 epochs, the limit."),
        (Budget("tokens", 3) | Steps(11), "10 tokens have been spent; the limit is 3."),
        (Steps(5) & Epochs(1), "It has taken 10 steps, the limit is 5. It has completed 1 epoch"),
        (Reaches("place", above=-100.0), "at least -100 was required."),
    ],
)
def test_conditions_that_hold_already_end_a_run_without_a_step(
    tmp_path: Path, until: Condition, sentence: str
) -> None:
    journal = tmp_path / "journal.db"
    assert walked(Steps(10) | Budget("tokens", 100), journal)[1] == 10
    stopped, taken = walked(until, journal)
    assert (taken, sentence in stopped.sentence) == (0, True)
    with Journal(journal) as opened:
        run = opened.get("a").now()
    assert (run.status, run.tick) == ("stopped", 10)
    assert run.stopped is not None and run.stopped.sentence == stopped.sentence
    assert walked(until, journal) == (stopped, 0)
    assert walked(Steps(12), journal)[1] == 2


@pytest.mark.parametrize(
    "until",
    [
        Steps(5) & Epochs(2),
        Reaches("place", above=100.0) | Steps(11),
        Reaches("place", below=100.0, over=2),
    ],
)
def test_conditions_that_do_not_hold_yet_take_their_steps(tmp_path: Path, until: Condition) -> None:
    journal = tmp_path / "journal.db"
    walked(Steps(10), journal)
    assert walked(until | Steps(12), journal)[1] > 0


def test_a_branch_needs_no_step_where_its_conditions_hold_already(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    schedule = CheckpointSchedule(steps=5, keep=9)
    with Journal(path) as journal:
        Loop(Walk(), until=Steps(10), run="a", journal=journal, checkpoint=schedule).run()
        journal.branch(journal.get("a"), "b", tick=5)
        journal.branch(journal.get("b"), "c")
        at = next(journal.get("a").steps(4)).report["place"]
        until = Reaches("place", above=at - 1e-9) & Reaches("place", below=at + 1e-9)
        for name in ("b", "c"):
            loop = Loop(Walk(), until=until | Steps(9), run=name, journal=journal)
            assert list(loop) == [] and loop.stopped is not None
            assert loop.stopped.kind is StopKind.PASSED


def test_a_step_after_the_saved_one_says_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal, Loop(Walk(), until=Steps(9), run="a", journal=journal) as loop:
        loop._save(regular=False)  # at tick 0, before the first step
        next(iter(loop))
        assert loop._session is not None
        loop._session.close()
        loop._closed = True
        again = Loop(Walk(), until=Reaches("place", above=-99), run="a", journal=journal)
        assert again.stopped is None and len(list(again)) == 1


def test_a_paused_run_under_a_limit_that_is_passed_is_stopped(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    with Loop(Walk(), until=Steps(10), run="a", journal=Journal(journal)) as loop:
        for step in loop:
            if step.tick == 6:
                break
    assert walked(Steps(3), journal)[1] == 0
    with Journal(journal) as opened:
        assert opened.get("a").status == "stopped"


@pytest.mark.parametrize("until", [Steps(2), Steps(100)])
def test_a_generator_that_has_ended_stays_so_when_its_script_runs_again(
    tmp_path: Path, until: Condition
) -> None:
    def count() -> Iterator[Report]:
        yield from ({"number": number} for number in range(3))

    def again(until: Condition) -> Loop:
        return Loop(count(), until=until, run="a", journal=Journal(tmp_path / "journal.db"))

    first, second = again(until).run(), again(until).run()
    assert first == second
    if until == Steps(2):  # it has not returned
        with pytest.raises(RunError, match="of a generator, which cannot be resumed"):
            again(Steps(5))
    else:
        assert again(Steps(5)).run() == first


def test_a_generator_that_was_paused_or_broke_off_has_not_ended(tmp_path: Path) -> None:
    def count() -> Iterator[Report]:
        yield from ({"number": 1 // (5 - number)} for number in range(9))

    def run(name: str) -> Loop:
        return Loop(count, until=Steps(9), run=name, journal=Journal(tmp_path / "journal.db"))

    with run("paused") as paused:
        paused.pause()
        paused.run()
        assert paused.tick == 0
    with run("paused") as paused:
        for step in paused:
            if step.tick == 2:
                paused.pause()
    with pytest.raises(ZeroDivisionError):
        run("broken").run()
    for name in ("paused", "broken"):
        with pytest.raises(RunError, match="of a generator, which cannot be resumed"):
            run(name)


# What a function that ends a loop is called -------------------------------------------------------


def is_far(step: Step) -> bool:
    return step.tick >= 2


class Far:
    def __call__(self, step: Step) -> str:
        return "It is far." if step.tick >= 2 else ""


@pytest.mark.parametrize(
    ("until", "sentence"),
    [
        (lambda step: step.tick >= 2, "lambda step: step.tick >= 2 returned True."),
        (lambda step: step.tick > 1 and len("é"), 'lambda step: step.tick > 1 and len("é") ret'),
        (is_far, "is_far returned True."),
        (partial(lambda least, step: step.tick >= least, 2), "lambda least, step: step.tick >= "),
        (Far(), "It is far."),
    ],
)
def test_a_function_that_ends_a_loop_is_told_by_name_or_source(
    until: Callable[[Step], object], sentence: str
) -> None:
    assert Loop(Walk(), until=until).run().sentence.startswith(sentence)


def test_a_lambda_whose_source_is_gone_keeps_its_name() -> None:
    made: Callable[[Step], object] = eval("lambda step: True", {})
    assert str(Loop(Walk(), until=made).until) == "Predicate(<lambda>)"


def test_a_callable_that_raises_stop_iteration_has_ended() -> None:
    loop = Loop(iter([1, 2, 3]).__next__)
    stopped = loop.run()
    assert (stopped.kind, loop.tick, loop.output) == (StopKind.ENDED, 3, 3)
