"""A condition on a value that no report has is told of; a name that is no text is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
from toys import Speller

from ostinato.errors import InputError
from ostinato.loop import (
    Budget,
    Condition,
    Converges,
    Epochs,
    Exceeds,
    Lanes,
    Loop,
    NoProgress,
    NotFinite,
    Plateau,
    Policy,
    Reaches,
    SparseMetrics,
    Steps,
    parse,
)


def loss() -> dict[str, float]:
    return {"loss/train": 1.0, "epoch": 0.5}


@pytest.mark.parametrize(
    "build",
    [
        lambda name: Plateau(name),
        lambda name: Reaches(name, above=1),
        lambda name: Exceeds(name, above=1),
        lambda name: Converges(name),
        lambda name: NotFinite(name),
        lambda name: NoProgress(name),
        lambda name: Budget(name, 3),
    ],
)
@pytest.mark.parametrize("name", [3, "", " "])
def test_a_name_that_is_no_text_is_refused(build: Callable[[object], object], name: object) -> None:
    with pytest.raises(InputError, match=r"\(name\) must be the name of a value in the reports"):
        build(name)


def test_the_command_line_refuses_a_number_for_a_name() -> None:
    with pytest.raises(InputError, match=r"got 3\. Write for example Plateau\('loss/valid', …\)"):
        parse("Plateau(3)")


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        (Reaches("loss/trian", below=0), "on 'loss/trian' cannot.*Did you mean 'loss/train'?"),
        (Plateau("reward") & Epochs(1), "on 'reward' cannot fire.*They have loss/train, epoch"),
        (NoProgress("grad"), "on 'grad' cannot"),
    ],
)
def test_a_name_that_never_comes_is_told_of_once(condition: Condition, told: str) -> None:
    with pytest.warns(UserWarning, match=told) as caught:
        Loop(loss, until=condition | Steps(300)).run()
    assert len(caught) == 1
    assert "none of the 100 reports so far" in str(caught[0].message)
    assert caught[0].filename == __file__ or "loop.py" in caught[0].filename


def test_names_that_come_or_are_only_spent_are_not_told_of() -> None:
    until = (
        Budget("cost", 9)
        | Exceeds("loss/train", above=9)
        | NotFinite()
        | NoProgress(over=400)
        | Epochs(1)
    )
    Loop(loss, until=until | Steps(300)).run()


class Validated(SparseMetrics):
    """Tells of `loss/valid` at every 150th step."""

    def __init__(self) -> None:
        self.steps = 0

    @property
    def report_interval(self) -> int:
        return 150

    def step(self) -> dict[str, float]:
        self.steps += 1
        return loss() | ({"loss/valid": 1.0} if self.steps % 150 == 0 else {})

    def state_dict(self) -> dict[str, object]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.steps = int(str(state["steps"]))

    def change(self, edits: object) -> None:
        raise NotImplementedError


def test_a_process_says_how_seldom_its_names_come() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Loop(Validated(), until=Reaches("loss/valid", below=0) | Steps(149)).run()
        Loop(Validated(), until=Reaches("loss/valid", below=0) | Steps(400)).run()
    with pytest.warns(
        UserWarning, match=r"none of the 150 reports so far.*Did you mean 'loss/valid'"
    ):
        Loop(Validated(), until=Reaches("loss/vald", below=0) | Steps(400)).run()


# Of lanes ----------------------------------------------------------------------------------------


def spelled(each: Condition, items: int, *, steps: int = 8) -> Loop:
    lanes = Lanes(Speller(4), [(str(n), n) for n in range(items)], Policy(each=each | Steps(steps)))
    return Loop(lanes, until=Steps(10_000))


def test_a_name_that_no_lanes_report_has_is_told_of_once() -> None:
    with pytest.warns(UserWarning, match=r"on 'tokns' cannot.*Did you mean 'tokens'") as caught:
        spelled(Reaches("tokns", above=9), 200).run()
    assert len(caught) == 1
    assert "none of the 100 reports so far" in str(caught[0].message)


def test_a_name_that_never_came_is_told_of_when_all_lanes_are_done() -> None:
    with pytest.warns(UserWarning, match=r"on 'chnage' cannot fire: none of the \d+ reports"):
        spelled(Converges("chnage"), 1, steps=3).run()


def test_names_that_lanes_reports_have_are_not_told_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spelled(Reaches("tokens", above=9) | Budget("cost", 1), 200).run()
