"""What flows have spent is the same when replayed; texts without checks are written once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import save_tiny, tiny_model

from ostinato.checks import Excludes, Judge, Length
from ostinato.errors import RunError, Unanswered
from ostinato.flow import FlowSettings, LimitReached, Limits, ask, check, flow, generate, step
from ostinato.flow.config import FlowRun
from ostinato.flow.run import work_of
from ostinato.journal import Journal

BROKEN: list[bool] = []


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as opened:
        yield opened


@step
def breaks_once() -> None:
    if BROKEN:
        BROKEN.clear()
        raise OSError("no connection")


@flow
def writes(fails: bool = False) -> str:
    text = generate("Hello", max_new_tokens=8)
    if fails:
        raise ValueError(text)
    return text


def limit_reached(name: str, journal: Journal, *, fails: bool) -> list[str]:
    @flow(limits=Limits(tokens=20))
    def outer() -> list[str]:
        found = []
        for number in range(4):
            try:
                found.append(writes(fails))
            except LimitReached as error:
                found.append(str(error))
            except ValueError as error:
                found.append(f"failed: {error}")
            if number == 1:
                breaks_once()
        return found

    BROKEN[:] = [True] if name == "resumed" else []
    if name == "resumed":
        with pytest.raises(OSError):
            outer.run(run=name, journal=journal, model=tiny_model())
    return outer.run(run=name, journal=journal, model=tiny_model())


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_called_flow_has_spent_counts_when_it_is_replayed(
    journal: Journal, fails: bool
) -> None:
    whole = limit_reached("whole", journal, fails=fails)
    assert "has spent 24" in whole[3] and "has spent" not in whole[2]
    assert limit_reached("resumed", journal, fails=fails) == whole


def test_a_text_without_checks_is_written_once_and_accepted() -> None:
    @flow
    def once() -> list[object]:
        reply = generate("Hello", max_new_tokens=8)
        return [reply.accepted, reply.rounds, reply.backtracks, reply.tokens, reply.computed]

    found = next(iter(once.over([{}], model=tiny_model())))[1]
    assert found == [True, 1, 0, 8, 7]


def test_equal_checks_share_a_writer_and_few_are_kept() -> None:
    @flow
    def judged(most: int) -> str:
        return generate("Hello", [Length(max=most)], max_new_tokens=4, strategy="best_of")

    pairs = [(f"{n}", {"most": 3 + n % 2}) for n in range(6)]
    work = work_of(judged, pairs, FlowRun(items="all"), run=None, model=tiny_model())
    with work.loop:
        for each in work.loop:
            work.watch(each)
    assert len(work.results) == 6
    settings: FlowSettings = work.lanes._settings
    assert len(settings.writers) == 2
    assert work.lanes._texts is not None and len(work.lanes._texts._batches) == 2
    for most in range(300):
        settings.writers.of(tiny_model(), (Length(max=most + 1),), work.lanes._hub)
    assert len(settings.writers) == 256


def test_a_reply_tells_what_was_taken_back(journal: Journal) -> None:
    @flow
    def told() -> list[object]:
        reply = generate(
            "Hello", [Excludes(texts=("e", "a"), whole=False)], max_new_tokens=16, strategy="abort"
        )
        back = reply.taken_back
        assert len(back) >= reply.rounds - 1 > 0
        assert all(each.checks == ("excludes",) and each.why for each in back)
        assert all("e" in each.text or "a" in each.text for each in back)
        return [reply, reply.rounds, [[each.text, each.why] for each in back]]

    found = told.run(run="a", journal=journal, model=tiny_model())
    assert told.run(run="a", journal=journal, model=tiny_model()) == found


def test_steps_are_few_while_some_wait_and_others_work(journal: Journal) -> None:
    @step
    def slow() -> None:
        time.sleep(1)

    @flow
    def each(number: int) -> None:
        if number:
            slow()
        else:
            ask("How?")

    rows = [{"number": number} for number in range(2)]
    with pytest.raises(Unanswered):
        list(each.over(rows, run="a", journal=journal))
    assert journal.get("a").tick < 60  # without news, a step waits


def test_a_model_may_come_later_and_computes_as_before_on_resume(journal: Journal) -> None:
    one = tiny_model()
    other = replace(one, name="other")

    @flow
    def two() -> list[str]:
        first = generate("Hello", max_new_tokens=4)
        breaks_once()
        return [first, generate("Hello", model=other, max_new_tokens=4)]

    BROKEN[:] = [True]
    with pytest.raises(OSError):
        two.run(run="a", journal=journal, model=one)
    found = two.run(run="a", journal=journal, model=one)
    assert two.run(run="b", journal=journal, model=one) == found
    modes = json.loads(str(journal.get("b").spec["compute_mode"]))
    assert list(modes) == ["other", "tiny"]


def test_the_models_of_checks_compute_as_before_on_resume(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(question="Is {output} a word?", model=str(save_tiny(tmp_path / "tiny")), min=1e-6)
    name = f"check {judge.name} {judge.model}"

    @flow
    def judged() -> list[bool]:
        first = check("Hello", judge)
        breaks_once()
        return [bool(first), generate("Hello", judge, max_new_tokens=4).accepted]

    BROKEN[:] = [True]
    with pytest.raises(OSError):
        judged.run(run="a", journal=journal, model=tiny_model())
    recorded = json.loads(str(journal.get("a").spec["compute_mode"]))
    assert list(recorded) == [name] and recorded[name] == judge.compute_mode
    used: list[str] = []
    monkeypatch.setattr(Judge, "use_compute_mode", lambda self, mode: used.append(mode))
    judged.run(run="a", journal=journal, model=tiny_model())
    assert used == [recorded[name]]
    now = json.loads(str(journal.get("a").spec["compute_mode"]))
    assert list(now) == [name, "tiny"] and now[name] == recorded[name]


def test_a_check_whose_model_computes_otherwise_is_refused_on_resume(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(question="Is {output} a word?", model=str(save_tiny(tmp_path / "tiny")), min=1e-6)

    @flow
    def judged() -> list[bool]:
        first = generate("Hello", judge, max_new_tokens=4).accepted
        breaks_once()
        return [first, generate("Hi", judge, max_new_tokens=4).accepted]

    BROKEN[:] = [True]
    with pytest.raises(OSError):
        judged.run(run="a", journal=journal, model=tiny_model())
    monkeypatch.setattr(Judge, "compute_mode", "another")
    monkeypatch.setattr(Judge, "use_compute_mode", lambda self, mode: None)
    with pytest.raises(RunError, match="must be resumed in its compute mode"):
        judged.run(run="a", journal=journal, model=tiny_model())
