"""Flows: calls are made once, found by their places, and refused where the code has changed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model

from ostinato.checks import Contains, Length
from ostinato.decode import SamplingParams
from ostinato.errors import InputError, ItemError, RunError, Unanswered
from ostinato.flow import (
    Flow,
    FlowChanged,
    FlowRun,
    FlowsFailed,
    LimitReached,
    Limits,
    NoChoice,
    Reply,
    aio,
    ask,
    check,
    choose,
    flow,
    gather,
    generate,
    now,
    sample,
    sleep,
    step,
    uniform,
    version,
)
from ostinato.flow.run import work_of
from ostinato.image import SampleImageRun
from ostinato.journal import Journal

MADE: list[object] = []
"""What steps were called with, in this test."""


@pytest.fixture(autouse=True)
def none_made() -> None:
    MADE.clear()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as opened:
        yield opened


def paths(journal: Journal, name: str = "a") -> list[str]:
    return [call.path for call in journal.get(name).calls()]


@step
def look_up(value: int) -> int:
    MADE.append(value)
    return value + 1


@step
def fail(message: str) -> str:
    MADE.append(message)
    raise ValueError(message)


def fails_once(at: int) -> Callable[[int], int]:
    """Return a step that raises for one value, the first time only."""
    raised: list[int] = []

    @step
    def work(value: int) -> int:
        MADE.append(value)
        if value == at and not raised:
            raised.append(value)
            raise OSError("no connection")
        return value

    return work


# Replay -----------------------------------------------------------------------------------------


def test_calls_are_made_once_and_found_by_their_places(journal: Journal) -> None:
    @flow
    def inner(value: int) -> int:
        return look_up(value) + look_up(value + 10)

    @flow
    def outer(start: int) -> list[int]:
        found = [look_up(start)]
        for number in range(2):
            found.append(inner(number))
        try:
            fail("wrong")
        except ValueError as error:
            found.append(len(str(error)))
        return found

    expected = [6, 12, 14, 5]
    assert outer.run(5, run="a", journal=journal) == expected
    assert paths(journal) == [
        "1:look_up",
        "2:inner/1:look_up",
        "2:inner/2:look_up",
        "2:inner",
        "3:inner/1:look_up",
        "3:inner/2:look_up",
        "3:inner",
        "4:fail",
    ]
    made = list(MADE)
    assert outer.run(5, run="a", journal=journal) == expected
    assert made == MADE
    assert outer(5) == expected  # by itself, and not recorded


def test_a_flow_that_raised_goes_on_where_it_was(journal: Journal) -> None:
    work = fails_once(2)

    @flow
    def several() -> list[int]:
        return [work(value) for value in range(4)]

    with pytest.raises(OSError, match="no connection"):
        several.run(run="a", journal=journal)
    assert journal.get("a").status == "error"
    assert several.run(run="a", journal=journal) == [0, 1, 2, 3]
    assert MADE == [0, 1, 2, 2, 3]  # the call that raised was made again, no other


def test_an_error_that_is_handled_is_recorded_and_raised_again(journal: Journal) -> None:
    class Odd(Exception):
        pass

    work = fails_once(7)

    @step
    def odd() -> None:
        MADE.append("odd")
        raise Odd("a", 1)

    @flow
    def handled() -> list[str]:
        found = []
        for each in (partial(fail, "x"), odd):
            try:
                each()
            except (ValueError, Odd, RunError) as error:
                found.append(f"{type(error).__name__}: {error}")
        work(7)
        return found

    with pytest.raises(OSError):
        handled.run(run="a", journal=journal)
    assert [call.error for call in journal.get("a").calls()] == ["ValueError: x", "Odd: ('a', 1)"]
    # A class of a function's own cannot be found again.
    again = handled.run(run="a", journal=journal)
    assert again == ["ValueError: x", "CallError: The call '2:odd' has failed: Odd: ('a', 1)"]
    assert MADE == ["x", "odd", 7, 7]


def test_a_step_is_called_again_before_it_fails(journal: Journal) -> None:
    @step(attempts=3, backoff=0.001)
    def shaky() -> str:
        MADE.append("shaky")
        if len(MADE) < 3:
            raise ConnectionError("later")
        return "there"

    @flow
    def patient() -> str:
        return shaky()

    assert patient.run(run="a", journal=journal) == "there"
    assert MADE == ["shaky"] * 3


# Changed code -----------------------------------------------------------------------------------


def test_code_that_makes_another_call_is_refused_with_both_named(journal: Journal) -> None:
    work = fails_once(2)

    def first() -> None:
        look_up(1)
        work(2)

    def other_call() -> None:
        fail("new")

    def other_arguments() -> None:
        look_up(3)

    def shorter() -> None:
        return None

    with pytest.raises(OSError):
        named("changing", first).run(run="a", journal=journal)
    for function, message in (
        (other_call, r"the call '1:look_up' was recorded, and '1:fail' is made now"),
        (other_arguments, r"'1:look_up' was recorded with \{'value': 1\}, .* \{'value': 3\} now"),
        (shorter, r"ended where the call '1:look_up' was recorded"),
    ):
        with pytest.raises(FlowChanged, match=message):
            named("changing", function).run(run="a", journal=journal)
    assert named("changing", first).run(run="a", journal=journal) is None


def named(name: str, function: Callable[[], Any]) -> Flow[[], Any]:
    """Return a flow under the name of another one, as changed code has."""
    made: Flow[[], Any] = flow(function)
    made.name = name
    return made


def test_version_keeps_old_runs_on_the_old_code(journal: Journal) -> None:
    work = fails_once(2)

    def old() -> int:
        return look_up(1) + work(2)

    def new() -> int:
        more = look_up(100) if version("more") else 0
        return more + look_up(1) + work(2)

    with pytest.raises(OSError):
        named("changing", old).run(run="a", journal=journal)
    assert named("changing", new).run(run="a", journal=journal) == 4
    assert named("changing", new).run(run="b", journal=journal) == 105
    assert named("changing", new).run(run="b", journal=journal) == 105


def test_places_without_a_call_of_their_own_are_compared_as_well(journal: Journal) -> None:
    """`uniform` is not recorded, and of `gather` only what its branches call."""
    work = fails_once(3)

    def first() -> int:
        uniform()
        found = sum(gather(partial(look_up, 1), partial(look_up, 2)))
        return found + work(3)

    def newer() -> int:
        more = look_up(100) if version("more") else 0
        return more + first()

    def no_branches() -> None:
        uniform()
        look_up(1)

    def moved() -> None:
        uniform()
        uniform()

    with pytest.raises(OSError):
        named("changing", first).run(run="a", journal=journal)
    for function, message in (
        (no_branches, r"the call '2:gather' was recorded, and '2:look_up' is made now"),
        (moved, r"the call '2:gather' was recorded, and '2:uniform' is made now"),
        (lambda: None, r"ended where the call '2:gather' was recorded"),
    ):
        with pytest.raises(FlowChanged, match=message):
            named("changing", function).run(run="a", journal=journal)
    assert named("changing", newer).run(run="a", journal=journal) == 8
    assert sorted(MADE) == [1, 2, 3, 3]  # type: ignore[type-var]
    assert named("changing", newer).run(run="b", journal=journal) == 109


def test_a_run_of_other_arguments_is_refused(journal: Journal) -> None:
    @flow
    def one(value: int) -> int:
        return look_up(value)

    one.run(1, run="a", journal=journal)
    with pytest.raises(InputError, match="arguments"):
        one.run(2, run="a", journal=journal)
    with pytest.raises(InputError, match="must fit one"):
        one.run(run="b", journal=journal)


# Branches ---------------------------------------------------------------------------------------


def test_places_in_gather_do_not_depend_on_what_ends_first(journal: Journal) -> None:
    @step
    def slow(value: int) -> int:
        time.sleep((3 - value) / 50)
        MADE.append(value)
        return value

    @flow
    def both() -> list[int]:
        return gather(*[partial(slow, value) for value in range(3)])

    assert both.run(run="a", journal=journal) == [0, 1, 2]
    assert MADE == [2, 1, 0]
    assert sorted(paths(journal)) == [f"1:gather[{n}]/1:slow" for n in range(3)]
    assert both.run(run="a", journal=journal) == [0, 1, 2]
    assert len(MADE) == 3


def test_a_branch_that_raises_lets_the_others_end(journal: Journal) -> None:
    work = fails_once(0)

    @flow
    def both() -> list[int]:
        return gather(partial(work, 0), partial(look_up, 1))

    with pytest.raises(OSError):
        both.run(run="a", journal=journal)
    assert paths(journal) == ["1:gather[1]/1:look_up"]
    assert both.run(run="a", journal=journal) == [0, 2]


def test_async_flows(journal: Journal) -> None:
    look = aio.step(look_up)

    async def twice(value: int) -> int:
        return await look(value) + await look(value + 1)

    @flow
    async def both() -> list[int]:
        first = await look(0)
        return [first, *await aio.gather(twice(10), twice(20))]

    assert both.run(run="a", journal=journal) == [1, 23, 43]
    made = len(MADE)
    assert both.run(run="a", journal=journal) == [1, 23, 43]
    assert len(MADE) == made == 5

    @flow
    async def own_tasks() -> list[int]:
        return list(await asyncio.gather(look(1), look(2)))

    with pytest.raises(InputError, match="its place would depend on what finishes first"):
        own_tasks.run(run="b", journal=journal)

    @flow
    async def calls_another() -> int:
        return sum(await both())

    assert calls_another.run(run="c", journal=journal) == 67
    assert paths(journal, "c")[-1] == "1:both"
    assert asyncio.run(both()) == [1, 23, 43]  # type: ignore[arg-type]


def test_a_call_outside_of_a_flow_is_refused() -> None:
    with pytest.raises(InputError, match=r"generate must be called in a flow.*test_flow\.py:\d+"):
        generate("x")

    @flow
    def threads() -> str:
        errors: list[BaseException] = []

        def run() -> None:
            try:
                now()
            except InputError as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return str(errors[0])

    assert "branches run with gather" in threads()
    assert look_up(1) == 2  # a step is a function, elsewhere


# People, limits, time ---------------------------------------------------------------------------


def test_a_flow_waits_for_a_person_without_a_process(journal: Journal) -> None:
    @flow
    def asks(value: int) -> str:
        look_up(value)
        answer: str = ask("How on?", "a draft", options=["yes", "no"])
        look_up(value + 1)
        return answer

    with pytest.raises(Unanswered, match="2:ask"):
        asks.run(1, run="a", journal=journal)
    run = journal.get("a")
    assert run.status == "waiting"
    assert [each.question for each in run.questions()] == ["How on?\n\na draft"]
    with pytest.raises(Unanswered):
        asks.run(1, run="a", journal=journal)
    journal.answer(run, "yes")
    assert asks.run(1, run="a", journal=journal) == "yes"
    assert MADE == [1, 2]
    with pytest.raises(InputError, match="must be recorded"):
        asks(1)


def test_others_go_on_while_some_wait(journal: Journal) -> None:
    @flow
    def asks(number: int) -> int:
        extra = int(ask("How many?")) if number % 2 else 0
        return look_up(number) + extra

    rows = [{"id": str(n), "number": n} for n in range(6)]
    over = partial(asks.over, rows, run="a", journal=journal, in_progress=2)
    found = []
    with pytest.raises(Unanswered):
        for key, value in over():
            found.append((key, value))
    assert sorted(found) == [("0", 1), ("2", 3), ("4", 5)]
    run = journal.get("a")
    for each in run.questions():
        journal.answer(run, 10, path=each.path)
    assert dict(over()) == {"0": 1, "1": 12, "2": 3, "3": 14, "4": 5, "5": 16}


def test_a_branch_may_wait_while_the_others_end(journal: Journal) -> None:
    @flow
    def both() -> list[Any]:
        return gather(partial(ask, "What?"), partial(look_up, 1))

    with pytest.raises(Unanswered):
        both.run(run="a", journal=journal)
    journal.answer(journal.get("a"), "this")
    assert both.run(run="a", journal=journal) == ["this", 2]
    assert MADE == [1]


def test_limits_are_shared_with_the_flows_that_are_called(journal: Journal) -> None:
    @flow
    def inner() -> int:
        return look_up(1)

    @flow(limits=Limits(calls=3))
    def outer() -> list[str]:
        found = []
        for _ in range(3):
            try:
                found.append(str(inner()))
            except LimitReached as error:
                found.append(error.name)
        return found

    # A call of a flow counts as well as those in it.
    assert outer.run(run="a", journal=journal) == ["2", "2", "calls"]
    assert outer.run(run="a", journal=journal) == ["2", "2", "calls"]
    assert len(MADE) == 2


def test_time_and_chance_are_the_same_when_replayed(journal: Journal) -> None:
    work = fails_once(1)

    @flow
    def draws() -> list[Any]:
        found = [now().isoformat(), uniform(), uniform()]
        sleep(0.3)
        work(1)
        return found

    began = time.monotonic()
    with pytest.raises(OSError):
        draws.run(run="a", journal=journal, seed=3)
    assert time.monotonic() - began >= 0.3
    first = journal.get("a").call("1:now")
    assert first is not None
    found = draws.run(run="a", journal=journal, seed=3)
    assert found[0] == first.answer["value"]  # type: ignore[index, call-overload]
    assert 0 <= found[1] < 1 and found[1] != found[2]
    assert paths(journal) == ["1:now", "4:sleep", "5:work"]


# Values -----------------------------------------------------------------------------------------


@dataclass
class Order:
    number: int
    names: tuple[str, ...]


@step
def find_order(number: int) -> Order:
    MADE.append(number)
    return Order(number, ("a", "b"))


def test_values_come_back_as_the_annotation_says(journal: Journal) -> None:
    @flow
    def orders(first: Order) -> list[Order]:
        return [first, find_order(7)]

    expected = [Order(1, ()), Order(7, ("a", "b"))]
    assert orders.run(Order(1, ()), run="a", journal=journal) == expected
    assert orders.run(Order(1, ()), run="a", journal=journal) == expected
    assert MADE == [7]


def test_what_cannot_be_recorded_is_refused_by_name(journal: Journal) -> None:
    @step
    def opens():  # type: ignore[no-untyped-def]
        return object()

    @step
    def pairs():  # type: ignore[no-untyped-def]
        return {"a": (1, 2)}

    @step
    def wrong() -> int:
        return "text"  # type: ignore[return-value]

    for function, message in (
        (opens, "What the step opens returned must be made of numbers"),
        (pairs, "What the step pairs returned must be what JSON holds"),
        (wrong, "What the step wrong returned must be what its annotation says, int, got 'text'"),
    ):
        made = named("refused", partial_of(function))
        with pytest.raises(InputError, match=message):
            made.run(run=function.name, journal=journal)


def partial_of(function: Callable[[], Any]) -> Callable[[], Any]:
    def call() -> Any:
        return function()

    return call


# Texts ------------------------------------------------------------------------------------------


def test_texts_are_the_same_alone_and_in_company(journal: Journal) -> None:
    @flow
    def writes(word: str) -> list[str]:
        first = generate(
            f"About {word}.",
            [Length(max=8)],
            sampling=SamplingParams(temperature=0.9, top_k=20),
            max_new_tokens=12,
        )
        second = generate(f"{word} and {first}", max_new_tokens=6, strategy="resample")
        assert isinstance(first, Reply) and first.tokens <= 12
        return [first, second]

    rows = [{"id": f"{n}", "word": f"number {n}"} for n in range(9)]
    model = tiny_model()
    many = dict(writes.over(rows, run="a", journal=journal, model=model, slots=4, in_progress=5))
    alone: dict[str, list[str]] = {}
    for number, row in enumerate(rows):
        alone |= dict(writes.over([row], run=f"b{number}", journal=journal, model=model))
    assert many == alone
    assert len(many) == 9
    assert dict(writes.over(rows, run="a", journal=journal, model=model)) == many


def test_checks_and_choices(journal: Journal) -> None:
    @flow
    def judges(text: str) -> list[Any]:
        verdict = check(text, [Length(max=3), Contains(texts=("tea",))])
        kind = choose("Which?", ["hot", "cold"], given=text, rules={"cold": "ice"})
        by = choose("Which?", ["short", "long"], given=text, by=lambda text: "short")
        model = choose("Which?", ["hot", "cold"], given="water")
        return [verdict.passed, verdict.messages, kind, by, model in ("hot", "cold")]

    found = judges.run("ice cold green tea", run="a", journal=journal, model=tiny_model())
    assert found[0] is False and len(found[1]) == 1 and found[2:] == ["cold", "short", True]
    assert found == judges.run("ice cold green tea", run="a", journal=journal, model=tiny_model())

    @flow
    def wrong() -> str:
        return choose("Which?", ["a", "b"], by=lambda text: "c")

    with pytest.raises(NoChoice, match="one of a, b, got 'c'"):
        wrong()


def test_a_prompt_that_is_too_long_raises(journal: Journal) -> None:
    @flow
    def long() -> str:
        return generate("word " * 600)

    with pytest.raises(ItemError, match="tokens"):
        long.run(run="a", journal=journal, model=tiny_model())


# Many -------------------------------------------------------------------------------------------


def test_flows_that_fail_are_left_to_the_end_and_go_on_alone(journal: Journal) -> None:
    broken = [True]

    @flow
    def each(number: int) -> int:
        found = look_up(number)
        if broken and number in (3, 5):
            raise KeyError(f"row {number}")
        return found

    rows = [{"id": f"r{n}", "number": n} for n in range(8)]
    found = []
    with pytest.raises(FlowsFailed, match=r"2 flows have failed.*'r3'.*KeyError.*test_flow\.py"):
        for key, value in each.over(rows, run="a", journal=journal, in_progress=3):
            found.append((key, value))
    assert len(found) == 6
    broken.clear()
    assert dict(each.over(rows, run="a", journal=journal)) == {f"r{n}": n + 1 for n in range(8)}
    assert sorted(MADE) == list(range(8))  # type: ignore[type-var]


def test_rows_that_do_not_fit_are_named(journal: Journal) -> None:
    @flow
    def two(one: str, other: str) -> str:
        return one + other

    rows = [{"one": "a", "other": "b"}, {"one": "a", "others": "b"}]
    with pytest.raises(InputError, match=r"Row 2: A row must have the column 'other'.*others"):
        list(two.over(rows))


def test_a_row_is_one_argument_where_its_columns_are_none() -> None:
    @flow
    def whole(ticket: dict[str, Any]) -> str:
        return str(ticket["subject"])

    found = {value for _, value in whole.over([{"subject": "a"}, {"subject": "b"}])}
    assert found == {"a", "b"}


# Other processes --------------------------------------------------------------------------------


def test_images_are_sampled_as_a_run_below_the_flow(journal: Journal, tmp_path: Path) -> None:
    @flow
    def draws(label: str) -> list[Any]:
        file = tmp_path / "three.png"
        config = SampleImageRun(model="digits", labels=(label,), count=2, steps=2, out=file)
        images = sample(config)
        return [list(images[0].shape), str(images[0].dtype), images[1].sum().item()]

    found = draws.run("3", run="a", journal=journal)
    assert found[:2] == [[1, 28, 28], "torch.float32"]
    assert (tmp_path / "three.png").exists()
    [child] = journal.get("a").called()
    assert (child.kind, child.status) == ("sample image", "stopped")
    assert draws.run("3", run="a", journal=journal) == found
    assert draws("3") == found  # not recorded


def test_a_step_in_progress_ends_where_the_run_pauses(journal: Journal) -> None:
    started, release = threading.Event(), threading.Event()

    @step
    def slow(value: int) -> int:
        MADE.append(value)
        started.set()
        release.wait(10)
        return value

    @flow
    def two() -> int:
        return slow(1) + slow(2)

    config = FlowRun(function="two", items="x")
    run = journal.create("a", kind="flow", spec={})
    work = work_of(two, [("k", {})], config, run=run)
    with work.loop:
        for _ in work.loop:
            if started.wait(0.01):
                work.loop.pause()
        threading.Timer(0.1, release.set).start()
        work.close()
    assert run.status == "paused"
    assert [call.path for call in run.calls()] == ["k/1:slow"]
    again = work_of(two, [("k", {})], config, run=run)
    with again.loop:
        assert again.loop.run().good
    assert MADE == [1, 2]


def test_keys_with_slashes_are_kept_apart(journal: Journal) -> None:
    @flow
    def one(id: str) -> int:
        return look_up(len(id))

    rows = [{"id": "a"}, {"id": "a/1:look_up"}, {"id": "100%"}]
    assert dict(one.over(rows, run="a", journal=journal)) == {"a": 2, "a/1:look_up": 12, "100%": 5}
    assert sorted(paths(journal)) == ["100%25/1:look_up", "a%2F1:look_up/1:look_up", "a/1:look_up"]
