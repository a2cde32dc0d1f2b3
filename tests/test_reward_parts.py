"""The arithmetic of learning from reward, against plain loops and torch's distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")
from torch.distributions import Categorical, Normal

from ostinato.reward.games import (
    ContinuousActions,
    DiscreteActions,
    GameSpaces,
    RunningMoments,
    advantages_of,
    discounted,
    episode_seed,
)


def plain_advantage(rewards, values, following, ended, done, t, gamma, lam):  # type: ignore[no-untyped-def]
    """Sum the discounted errors of an episode from step t on: the definition."""
    total, weight = 0.0, 1.0
    for k in range(t, len(rewards)):
        worth = 0.0 if ended[k] else following[k]
        total += weight * (rewards[k] + gamma * worth - values[k])
        weight *= gamma * lam
        if done[k]:
            break
    return total


def test_advantages_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    rewards, values, following = rng.normal(size=(3, 20, 2))
    terminated, truncated = rng.random((2, 20, 2)) < 0.15
    truncated &= ~terminated
    found = advantages_of(rewards, values, following, terminated, truncated, gamma=0.9, lam=0.8)
    done = terminated | truncated
    expected = [
        [
            plain_advantage(
                rewards[:, n],
                values[:, n],
                following[:, n],
                terminated[:, n],
                done[:, n],
                t,
                0.9,
                0.8,
            )
            for n in range(2)
        ]
        for t in range(20)
    ]
    np.testing.assert_allclose(found, expected)


def test_a_truncated_episode_is_worth_what_could_have_followed() -> None:
    one, no, yes = np.ones((1, 1)), np.zeros((1, 1), bool), np.ones((1, 1), bool)
    cut = advantages_of(one, 0 * one, 10 * one, no, yes, gamma=0.5, lam=1.0)
    ended = advantages_of(one, 0 * one, 10 * one, yes, no, gamma=0.5, lam=1.0)
    assert (cut.item(), ended.item()) == (6.0, 1.0)


def test_discounted_rewards_begin_again_with_each_episode() -> None:
    rewards, done = np.ones((3, 1)), np.array([[False], [True], [False]])
    totals = discounted(rewards, done, np.array([2.0]), 0.5)
    assert totals.ravel().tolist() == [2.0, 2.0, 1.0]


def test_several_choices_have_the_probabilities_of_torch() -> None:
    actions, outputs = DiscreteActions((3, 2)), torch.randn(4, 5)
    chosen = actions.draw(outputs, actions.noise(4, draws=torch.Generator().manual_seed(0)))
    logprob, entropy = actions.logprob_and_entropy(outputs, chosen)
    parts = [Categorical(logits=each) for each in outputs.split((3, 2), 1)]
    pairs = list(zip(parts, chosen.unbind(1), strict=True))
    torch.testing.assert_close(logprob, sum(part.log_prob(each) for part, each in pairs))
    torch.testing.assert_close(entropy, sum(part.entropy() for part in parts))


def test_draws_come_as_often_as_the_probabilities_say() -> None:
    actions, outputs = DiscreteActions((3,)), torch.tensor([[0.0, 1.0, -1.0]]).expand(20_000, 3)
    noise = actions.noise(20_000, draws=torch.Generator().manual_seed(0))
    shares = actions.draw(outputs, noise).flatten().bincount() / 20_000
    torch.testing.assert_close(shares, outputs[0].softmax(0), atol=0.015, rtol=0)


def test_continuous_actions_have_the_densities_of_torch_and_stay_in_bounds() -> None:
    spaces = GameSpaces(seen=(1,), continuous=2, low=(0.0, -1.0), high=(10.0, 1.0))
    actions, outputs = ContinuousActions(spaces), torch.randn(50, 4)
    drawn = actions.draw(outputs, actions.noise(50, draws=torch.Generator().manual_seed(0)))
    mean, log_std = outputs.chunk(2, 1)
    logprob, entropy = actions.logprob_and_entropy(outputs, drawn)
    normal = Normal(mean, log_std.exp())
    torch.testing.assert_close(logprob, normal.log_prob(drawn).sum(1))
    torch.testing.assert_close(entropy, normal.entropy().sum(1))
    taken = actions.taken(drawn)
    assert (taken >= torch.tensor(spaces.low)).all() and (taken <= torch.tensor(spaces.high)).all()
    assert drawn.abs().max() > 1  # so that the bounds were needed


def test_running_moments_are_those_of_all_values() -> None:
    moments, values = RunningMoments((3,)), torch.randn(100, 3) * 5 + 2
    for part in values.split(17):
        moments.update(part)
    torch.testing.assert_close(moments.mean, values.double().mean(0))
    torch.testing.assert_close(moments.std, values.double().std(0, correction=0))
    assert moments.centered(values).std() == pytest.approx(1, abs=0.05)


def test_no_seed_is_both_for_training_and_for_something_else() -> None:
    seeds = {use: {episode_seed(0, use, 0, n) for n in range(500)} for use in ("train", "valid")}
    assert all(seed % 2 == 0 for seed in seeds["train"])
    assert all(seed % 2 == 1 for seed in seeds["valid"])
    assert len(seeds["train"]) == len(seeds["valid"]) == 500
