"""A family of its own is short to write, and keeps the promises of all others."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_family
from toy_family import LENGTHS, WriterAndCritic

from ostinato import Loop, Reaches, Steps
from ostinato.decode import Decode
from ostinato.journal import Journal
from ostinato.testing import check_process


def test_it_is_short() -> None:
    assert len(Path(toy_family.__file__).read_text().splitlines()) < 80


def test_it_conforms() -> None:
    check_process(WriterAndCritic, steps=22, cuts=(0, 1, 9, 10, 11, 20))


def sampled(steps: int) -> list[list[list[int]]]:
    process, seen = WriterAndCritic(), []
    for step in Loop(process, until=Steps(steps)):
        if "return" in step.report:
            seen.append(sorted(process.kept.texts))
    return seen


def test_what_is_sampled_comes_from_the_weights_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    with_updates = sampled(41)
    monkeypatch.setattr(Decode, "update", lambda decode: False)
    without = sampled(41)
    assert len(with_updates) == 5 and with_updates[0] == without[0]
    assert with_updates[1:] != without[1:]


def test_each_prompt_has_its_own_policy() -> None:
    process = WriterAndCritic()
    process.step()
    assert sorted(map(len, process.kept.texts)) == sorted(LENGTHS.values())


def test_every_value_of_a_step_counts(tmp_path: Path) -> None:
    with Journal(tmp_path / "runs.db") as journal:
        until = Reaches("return", above=-1e9, over=4) | Steps(100)
        loop = Loop(WriterAndCritic(), until=until, run="toy", journal=journal)
        assert loop.run().condition.startswith("Reaches")
        assert loop.tick == 11  # three texts in the first step, three in the eleventh
