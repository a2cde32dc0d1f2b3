"""The arithmetic of learning from reward, against plain loops and torch's distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")
from torch.distributions import Categorical, Normal

from ostinato.errors import ModelError
from ostinato.reward.games import (
    ContinuousActions,
    DiscreteActions,
    GameSpaces,
    Policy,
    PolicyShape,
    RunningMoments,
    advantages_of,
    discounted,
    episode_seed,
    load_policy,
    save_policy,
)
from ostinato.train import AdamW


def plain_advantage(columns: tuple[Any, ...], t: int, gamma: float, lam: float) -> Any:
    """Sum the discounted errors of an episode from step t on: the definition."""
    rewards, values, following, ended, done = columns
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
    columns: list[tuple[Any, ...]] = [
        tuple(each[:, n] for each in (rewards, values, following, terminated, done))
        for n in range(2)
    ]
    expected = [[plain_advantage(each, t, 0.9, 0.8) for each in columns] for t in range(20)]
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
    parts: list[Any] = [Categorical(logits=each) for each in torch.split(outputs, [3, 2], 1)]
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
    normal: Any = Normal(mean, log_std.exp())
    torch.testing.assert_close(logprob, normal.log_prob(drawn).sum(1))
    torch.testing.assert_close(entropy, normal.entropy().sum(1))
    taken = actions.taken(drawn)
    assert (taken >= torch.tensor(spaces.low)).all() and (taken <= torch.tensor(spaces.high)).all()
    assert drawn.abs().max() > 1  # so that the bounds were needed


def test_running_moments_are_those_of_all_values() -> None:
    moments, values = RunningMoments((3,)), torch.randn(100, 3) * 5 + 2
    for part in torch.split(values, 17):
        moments.update(part)
    torch.testing.assert_close(moments.mean, values.double().mean(0))
    torch.testing.assert_close(moments.std, values.double().std(0, correction=0))
    assert moments.centered(values).std() == pytest.approx(1, abs=0.05)


def test_no_seed_is_both_for_training_and_for_something_else() -> None:
    seeds = {use: {episode_seed(0, use, 0, n) for n in range(500)} for use in ("train", "valid")}
    assert all(seed % 2 == 0 for seed in seeds["train"])
    assert all(seed % 2 == 1 for seed in seeds["valid"])
    assert len(seeds["train"]) == len(seeds["valid"]) == 500


def test_large_pixels_have_the_network_of_nature() -> None:
    spaces = GameSpaces(seen=(4, 84, 84), pixels=True, choices=(6,))
    policy = Policy(PolicyShape(game="made-up", spaces=spaces, width=512))
    assert sum(p.numel() for p in policy.trunk.parameters()) == 1_684_128
    outputs, values = policy(torch.zeros(2, 4, 84, 84, dtype=torch.uint8))
    assert (outputs.shape, values.shape) == ((2, 6), (2,))


def test_a_saved_policy_does_the_same_and_says_what_it_is_of(tmp_path: Path) -> None:
    spaces = GameSpaces(seen=(3,), continuous=1, low=(-2.0,), high=(2.0,))
    policy = Policy(PolicyShape(game="Pendulum-v1", spaces=spaces, normalize=True), seed=3)
    seen = torch.randn(5, 3)
    policy.seen_moments.update(seen)
    save_policy(tmp_path / "saved", policy)
    loaded = load_policy(tmp_path / "saved")
    assert loaded.shape == policy.shape
    assert torch.equal(loaded.act(seen), policy.act(seen))
    with pytest.raises(ModelError, match="A policy must be a folder of `ostinato train policy`"):
        load_policy(tmp_path / "nothing")


def test_small_parameters_are_updated_together_as_alone() -> None:
    def trained(together: bool) -> list[torch.Tensor]:
        draws = torch.Generator().manual_seed(0)
        shapes = [(3, 4), (5,), (300, 300), (2, 2)]
        weights = {str(n): torch.randn(shape, generator=draws) for n, shape in enumerate(shapes)}
        optimizers = [AdamW(weight_decay=0.1) for _ in weights]
        for step in (1, 2, 3):
            for p in weights.values():
                p.grad = torch.randn(p.shape, generator=draws)
            for optimizer, (name, p) in zip(optimizers, weights.items(), strict=True):
                if not together:
                    optimizer.step({name: p}, 0.01, step)
            if together:
                optimizers[0].step(weights, 0.01, step)
        return list(weights.values())

    assert all(map(torch.equal, trained(True), trained(False)))
