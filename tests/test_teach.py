"""Teaching by thumbs: the policy follows its teacher, and no press is lost or counted twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("gymnasium")

from ostinato.cli.main import cli
from ostinato.errors import EditError, InputError
from ostinato.journal import Journal
from ostinato.reward.minigame import (
    RULES,
    TASTES,
    Teaching,
    TeachRun,
    build_teach,
    credit,
    likes,
    measured,
    no_policy,
    simulated_press,
    taste_of,
    untaught,
)
from ostinato.runs import build, record
from ostinato.testing import check_process


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def taught(rule: str, presses: int) -> Teaching:
    teaching = Teaching(no_policy)
    while teaching.presses < presses:
        teaching.step()
        if value := simulated_press(teaching, taste_of(rule)):
            teaching.change({"press": value})
    return teaching


def test_a_teaching_keeps_the_rules_of_a_process() -> None:
    check_process(lambda: Teaching(no_policy))


def test_credit_goes_to_the_moments_before_a_press() -> None:
    shares = credit(5.0)
    assert shares.sum() == pytest.approx(1) and len(shares) == 10
    assert shares.argmax() == 1 and shares[-1] < 0.01  # 0.3 s before; 2 s before


@pytest.mark.parametrize("value", [1, -1])
def test_one_press_says_something_about_the_last_moves(value: int) -> None:
    teaching = Teaching(no_policy)
    for _ in range(8):
        teaching.step()
    before = teaching.weights.copy()
    teaching.change({"press": value})
    change = (teaching.weights - before) @ list(teaching.recent[1])
    assert change * value > 0.1
    assert teaching.step()["presses"] == 1 and teaching.step()["presses"] == 0


def test_wrong_presses_are_refused() -> None:
    teaching = Teaching(no_policy)
    for wrong in (0, 2, True, "up", None):
        with pytest.raises(EditError, match="press must be 1 or -1, got"):
            teaching.change({"press": wrong})
    with pytest.raises(EditError, match="Unknown edit 'pres' of Teaching"):
        teaching.change({"pres": 1})
    assert teaching.presses == 0


@pytest.mark.parametrize(("rule", "before", "after"), [("left", 0.6, 0.8), ("lilies", 0.6, 0.75)])
def test_a_policy_follows_its_teacher_after_forty_presses(
    rule: str, before: float, after: float
) -> None:
    weights = taught(rule, 40).weights
    first, then = (
        measured(no_policy, each, taste_of(rule), strength=8.0, games=3)
        for each in (untaught(), weights)
    )
    assert first.style < before and then.style > after
    words = dict(likes(weights))
    assert words[{"left": "the left", "lilies": "lilies"}[rule]] > 0.3


def test_every_rule_has_its_taste() -> None:
    assert set(RULES) == set(TASTES)
    with pytest.raises(InputError, match=r"auto must be one of lilies, .* got 'lilly'"):
        TeachRun(auto="lilly")


# Runs ---------------------------------------------------------------------------------------------


def test_a_press_is_in_the_journal_before_it_counts() -> None:
    with Journal() as journal:
        run = record(journal, TeachRun(policy="none"), name="mine")
        work: Any = build_teach(TeachRun(policy="none"), run=run)
        for step in work.loop:
            if step.tick == 5:
                work.press(1)
            if step.tick == 6:
                assert work.teaching.presses == 1
                break
        # The session is not closed: as if it were killed here.
        recorded = [(e.tick, e.data) for e in run.events() if e.name == "change"]
        assert recorded == [(5, {"press": 1})]
        work.loop.close()


def test_a_resumed_teaching_has_every_press_once() -> None:
    with Journal() as journal:
        run = record(journal, TeachRun(policy="none"), name="mine")
        work: Any = build(run)
        for step in work.loop:
            if step.tick in (4, 9):
                work.press(-1)
            if step.tick == 12:
                break
        weights = work.teaching.weights.tolist()
        work.loop.close()
        again: Any = build(run)
        assert again.teaching.presses == 2
        assert again.teaching.weights.tolist() == weights
        again.loop.close()


def output(*words: str) -> Result:
    return CliRunner().invoke(cli, ["teach", "--policy", "none", *words])


def test_a_simulated_teacher_on_the_command_line_and_more_presses_later() -> None:
    first = output("--auto", "left", "--presses", "12", "--run", "mine")
    assert first.exit_code == 0, first.output
    assert "10 presses: its teacher likes" in first.output
    assert "time left of the middle" in first.output
    more = output("--auto", "left", "--presses", "16", "--run", "mine", "--json")
    summary = json.loads(more.stdout)
    whole = output("--auto", "left", "--presses", "16", "--no-journal", "--json")
    assert summary["presses"] == 16
    assert summary["likes"] == json.loads(whole.stdout)["likes"]


def test_a_policy_of_another_game_is_refused_by_name() -> None:
    from ostinato.reward.games import GameSpaces, Policy, PolicyShape, save_policy

    spaces = GameSpaces(seen=(4,), choices=(2,))
    save_policy("other", Policy(PolicyShape(game="CartPole-v1", spaces=spaces)))
    with pytest.raises(InputError, match="policy must be one of ostinato/River-v0, got one of Car"):
        build_teach(TeachRun(policy="other"))


def test_bad_input_is_named() -> None:
    wrong = CliRunner().invoke(cli, ["teach", "--auto", "lef", "--policy", "none"])
    assert isinstance(wrong.exception, InputError)
    assert "--auto must be one of lilies, pearls, left" in str(wrong.exception)
    piped = output()
    assert isinstance(piped.exception, InputError)
    assert "The standard input must be a terminal, got a pipe or a file." in str(piped.exception)
    assert "--auto" in str(piped.exception)
    assert not Path(".ostinato").exists()
