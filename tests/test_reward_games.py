"""Policies that learn from reward: the same bits after any resume, and they learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("gymnasium")
from functools import partial

from games import (
    Corridor,
    Drifting,
    PixelCorridor,
    Remembering,
    Switches,
    Target,
    small,
    table,
)

from ostinato.loop import Loop, Reaches, Steps
from ostinato.reward.games import Environments, Playing, collect, play, policy_for
from ostinato.testing import Forks, check_killed, check_process
from ostinato.testing.compare import differences
from ostinato.train import Values

SCALED: dict[str, Any] = {"scale_rewards": True, "ema_decay": 0.9, "target_kl": 0.01}


@pytest.mark.parametrize("make", [Corridor, PixelCorridor, Target, Switches])
def test_a_training_keeps_the_promises_of_a_process(make: Callable[[], Any]) -> None:
    check_process(partial(small, make, **SCALED), steps=5, cuts=(0, 1, 4))


def test_so_do_a_table_and_a_policy_at_play() -> None:
    policy = policy_for(Environments(Corridor, 1))
    check_process(table)
    check_process(
        partial(Playing, policy, partial(Corridor, render_mode="rgb_array"), 30, shown=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["policy", "q_table"])
def test_a_killed_training_equals_an_undisturbed_one(name: str) -> None:
    with Forks("killable_games") as forks:
        assert check_killed(f"killable_games:{name}", kills=2, forks=forks) >= 1


def test_an_environment_that_saves_itself_is_not_replayed() -> None:
    first, second = small(Remembering), small(Remembering)
    for _ in range(3):
        first.step()
    second.load_state_dict(first.state_dict())
    assert second.environments.restarted == 0
    before, after = first.state_dict(), second.state_dict()
    assert not differences(before["environments"], after["environments"])


def test_episodes_that_cannot_be_brought_back_are_restarted_and_told() -> None:
    first, second = small(Drifting), small(Drifting)
    first.step()
    with pytest.warns(UserWarning, match="3 of 3 episodes in progress were restarted: Drifting is"):
        second.load_state_dict(first.state_dict())
    report = second.step()
    assert report["restarted"] == 3
    assert "restarted" not in second.step()


def test_a_rollout_holds_what_was_seen_in_order() -> None:
    training = small(Corridor, environments=2)
    environments, policy = training.environments, training.policy
    rollout = collect(policy, environments, training.config, 0, Values(returns=torch.zeros(2)))
    seen, actions = (each.view(8, 2, -1) for each in (rollout.seen, rollout.actions))
    plain, ends = Environments(Corridor, 2), 0
    for t in range(8):
        assert plain.seen.tolist() == seen[t].tolist()
        ends += len(plain.step(actions[t].numpy()).episodes)
    assert ends == len(rollout.episodes) > 0


def test_a_policy_learns_and_a_condition_counts_episodes() -> None:
    training = small(Corridor, rollout=32, minibatch=48, epochs=6, lr=1e-2)
    returns: list[float] = []
    loop = Loop(training, until=Reaches("return", above=0.7, over=40) | Steps(50))
    for step in loop:
        returns += step.report["return"]  # type: ignore[arg-type]
    assert loop.stopped is not None and loop.stopped.kind == "passed"
    assert sum(returns[:40]) / 40 < 0.5
    assert sum(returns[-40:]) / 40 > 0.65
    assert training.step()["steps"] == 96


def test_a_continuous_policy_learns_in_the_bounds_of_the_environment() -> None:
    training = small(Target, rollout=32, minibatch=48, epochs=8, lr=1e-2, gamma=0.0, steps=60)
    first = training.validate()["return/valid"]
    Loop(training, until=Steps(40)).run()
    assert training.validate()["return/valid"] > first / 2


def test_a_policy_learns_of_pixels() -> None:
    training = small(PixelCorridor, rollout=32, minibatch=48, epochs=6, lr=3e-3)
    loop = Loop(training, until=Reaches("return", above=0.7, over=40) | Steps(40))
    assert loop.run().kind == "passed"


def test_a_table_learns() -> None:
    process = table()
    Loop(process, until=Steps(300)).run()
    assert process.Q[:5].argmax(1).tolist() == [1] * 5


def test_the_best_weights_come_with_the_moments_they_were_found_with() -> None:
    training = small(Corridor, valid_every=1)
    for _ in range(6):
        training.step()
    best = training.best.value
    with training.best_weights():
        episodes = play(training.policy, Corridor, 2)
        assert sum(each.total for each in episodes) / 2 == pytest.approx(best)
        moments = training.policy.seen_moments.count.item()
    assert moments == 24 * (training.best.step or 0)
