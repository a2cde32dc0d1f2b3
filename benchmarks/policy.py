"""Policies that learn games: ours beside CleanRL's and Stable-Baselines3 with rl-zoo's settings.

    pip install 'gymnasium[box2d]' stable-baselines3
    python -m benchmarks.policy [--only cartpole lunarlander pendulum] [--seeds 5] [--json]

Each learns until the mean return of its last 100 episodes is at least that of the task: 475 on
CartPole-v1, 200 on LunarLander-v3, -200 on Pendulum-v1. Seconds are those of the training alone,
without imports and without making environments; steps are those of all environments. Of several
seeds the medians are told. All run on one thread; `--cpu` counts processor time, for a machine
that has other work.

Ours are the settings of `ostinato train policy`. CleanRL's recipe is that of its `ppo.py`, written
here after the published script, since the package of that name is older. It takes long on
LunarLander-v3 and Pendulum-v1, where only Stable-Baselines3 is asked.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

from ostinato.loop import Loop, Reaches, Steps
from ostinato.reward.games import Environments, PolicyGradient, policy_for, recipe_for

OVER = 100


class Task(NamedTuple):
    """An environment, the mean return that solves it, and the most steps that anyone may take."""

    game: str
    solved: float
    most: int


TASKS = {
    "cartpole": Task("CartPole-v1", 475, 500_000),
    "lunarlander": Task("LunarLander-v3", 200, 1_500_000),
    "pendulum": Task("Pendulum-v1", -200, 500_000),
}


class Outcome(NamedTuple):
    """What a training took: seconds, steps of environments, and its last mean return."""

    seconds: float
    steps: int
    last: float


Train = Callable[[Task, int, Callable[[], float]], Outcome]


# Ours -------------------------------------------------------------------------------------------


def ours(task: Task, seed: int, clock: Callable[[], float]) -> Outcome:
    """Train by our recipe, without evaluations."""
    recipe = recipe_for(task.game)
    config = replace(recipe.training, seed=seed, valid_every=1 << 30)
    environments = Environments(
        partial(gymnasium.make, task.game), config.environments, seed=seed, name=task.game
    )
    policy = policy_for(
        environments,
        width=recipe.width,
        layers=recipe.layers,
        normalize=recipe.normalize,
        seed=seed,
    )
    process = PolicyGradient(policy, environments, config)
    most = Steps(task.most // (config.environments * config.rollout))
    began, last, steps = clock(), deque[float](maxlen=OVER), 0
    for step in Loop(process, until=Reaches("return", above=task.solved, over=OVER) | most):
        last.extend(step.report["return"])  # type: ignore[arg-type]
        steps += step.report["steps"]  # type: ignore[operator]
    return Outcome(clock() - began, steps, float(np.mean(last)))


# Stable-Baselines3 ------------------------------------------------------------------------------


def linear(first: float) -> Callable[[float], float]:
    """Return a schedule that falls to 0; Stable-Baselines3 gives what is left."""
    return lambda left: left * first


ZOO: dict[str, tuple[int, int, dict[str, Any]]] = {
    "CartPole-v1": (
        8,
        100_000,
        {
            "n_steps": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "n_epochs": 20,
            "ent_coef": 0.0,
            "learning_rate": linear(0.001),
            "clip_range": linear(0.2),
        },
    ),
    "LunarLander-v3": (
        16,
        1_000_000,
        {
            "n_steps": 1024,
            "batch_size": 64,
            "gae_lambda": 0.98,
            "gamma": 0.999,
            "n_epochs": 4,
            "ent_coef": 0.01,
        },
    ),
    "Pendulum-v1": (
        4,
        100_000,
        {
            "n_steps": 1024,
            "gae_lambda": 0.95,
            "gamma": 0.9,
            "n_epochs": 10,
            "ent_coef": 0.0,
            "learning_rate": 1e-3,
            "clip_range": 0.2,
            "use_sde": True,
            "sde_sample_freq": 4,
        },
    ),
}
"""By environment: copies, steps, and settings of rl-baselines3-zoo's `ppo.yml`."""


def sb3(task: Task, seed: int, clock: Callable[[], float]) -> Outcome:
    """Train with Stable-Baselines3."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    last = deque[float](maxlen=OVER)

    class UntilSolved(BaseCallback):
        def _on_step(self) -> bool:
            last.extend(info["episode"]["r"] for info in self.locals["infos"] if "episode" in info)
            return not (len(last) == OVER and np.mean(last) >= task.solved)

    copies, steps, settings = ZOO[task.game]
    model = PPO(
        "MlpPolicy",
        make_vec_env(task.game, n_envs=copies, seed=seed),
        seed=seed,
        device="cpu",
        **settings,
    )
    began = clock()
    model.learn(max(steps, task.most if task.game != "CartPole-v1" else steps), UntilSolved())
    return Outcome(clock() - began, model.num_timesteps, float(np.mean(last)))


# CleanRL's recipe -------------------------------------------------------------------------------


class Agent(nn.Module):
    """Two networks of two layers of 64 units."""

    def __init__(self, seen: int, choices: int) -> None:
        super().__init__()
        self.critic = self._network(seen, 1, 1.0)
        self.actor = self._network(seen, choices, 0.01)

    def _network(self, seen: int, outputs: int, gain: float) -> nn.Sequential:
        sizes = [(seen, 64, 2**0.5), (64, 64, 2**0.5), (64, outputs, gain)]
        layers: list[nn.Module] = []
        for inputs, size, each in sizes:
            layer = nn.Linear(inputs, size)
            nn.init.orthogonal_(layer.weight, each)
            nn.init.constant_(layer.bias, 0.0)
            layers += [layer, nn.Tanh()]
        return nn.Sequential(*layers[:-1])

    def forward(self, x: torch.Tensor, action: torch.Tensor | None = None) -> Any:
        """Return an action, its log-probability, the entropy and the value."""
        probs: Any = Categorical(logits=self.actor(x))
        action = probs.sample() if action is None else action
        return action, probs.log_prob(action), probs.entropy(), self.critic(x)


def cleanrl(task: Task, seed: int, clock: Callable[[], float]) -> Outcome:
    """Train by the settings of CleanRL's `ppo.py`: 4 environments, 128 steps, 4 epochs of 4."""
    N, T, epochs, parts, total, gamma, lam = 4, 128, 4, 4, task.most, 0.99, 0.95
    torch.manual_seed(seed)
    np.random.seed(seed)
    games = gymnasium.vector.SyncVectorEnv(
        [
            lambda: gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make(task.game))
            for _ in range(N)
        ],
        autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    )
    observed: Any = games.single_observation_space
    acted: Any = games.single_action_space
    agent = Agent(observed.shape[0], int(acted.n))
    optimizer = torch.optim.Adam(agent.parameters(), lr=2.5e-4, eps=1e-5)
    last = deque[float](maxlen=OVER)
    began, steps = clock(), 0
    seen = torch.tensor(games.reset(seed=seed)[0], dtype=torch.float32)
    done, updates = torch.zeros(N), total // (N * T)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = (1 - update / updates) * 2.5e-4
        rows: list[tuple[torch.Tensor, ...]] = []
        for _ in range(T):
            steps += N
            with torch.no_grad():
                action, logprob, _, value = agent(seen)
            following, reward, ended, cut, infos = games.step(action.numpy())
            rows.append((seen, action, logprob, torch.tensor(reward), done, value.flatten()))
            seen = torch.tensor(following, dtype=torch.float32)
            done = torch.tensor(ended | cut, dtype=torch.float32)
            episodes = infos.get("final_info", {}).get("episode")
            if episodes is not None:
                last.extend(episodes["r"][infos["_final_info"]].tolist())
            if len(last) == OVER and np.mean(last) >= task.solved:
                return Outcome(clock() - began, steps, float(np.mean(last)))
        obs, actions, logprobs, rewards, dones, values = (
            torch.stack(each) for each in zip(*rows, strict=True)
        )
        with torch.no_grad():
            next_value = agent.critic(seen).flatten()
        advantages, carried = torch.zeros(T, N), torch.zeros(N)
        for t in reversed(range(T)):
            goes_on = 1 - (done if t == T - 1 else dones[t + 1])
            after = next_value if t == T - 1 else values[t + 1]
            delta = rewards[t] + gamma * after * goes_on - values[t]
            advantages[t] = carried = delta + gamma * lam * goes_on * carried
        returns = (advantages + values).flatten()
        flat = [each.flatten(0, 1) for each in (obs, actions, logprobs, advantages, values)]
        for _ in range(epochs):
            for chosen in torch.randperm(N * T).chunk(parts):
                x, a, before, A, old = (each[chosen] for each in flat)
                _, now, entropy, v = agent(x, a.long())
                ratio = (now - before).exp()
                A = (A - A.mean()) / (A.std() + 1e-8)
                policy_loss = torch.max(-A * ratio, -A * ratio.clamp(0.8, 1.2)).mean()
                v = v.flatten()
                clipped = old + (v - old).clamp(-0.2, 0.2)
                error = torch.max((v - returns[chosen]) ** 2, (clipped - returns[chosen]) ** 2)
                loss = policy_loss - 0.01 * entropy.mean() + 0.5 * 0.5 * error.mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
    return Outcome(clock() - began, steps, float(np.mean(last)))


# The comparison ---------------------------------------------------------------------------------


def compared(name: str, seeds: int, clock: Callable[[], float]) -> Mapping[str, Any]:
    """Return the medians of all on a task, over seeds; seed by seed, so that all share the day."""
    task = TASKS[name]
    trainings: dict[str, Train] = {"ours": ours, "sb3": sb3}
    if name == "cartpole":
        trainings["cleanrl"] = cleanrl
    found: dict[str, list[Outcome]] = {each: [] for each in trainings}
    for seed in range(seeds):
        for each, train in trainings.items():
            outcome = train(task, seed, clock)
            found[each].append(outcome)
            print(
                f"{task.game} {each:8} seed {seed}: {outcome.seconds:7.1f} s, "
                f"{outcome.steps:9,} steps, last 100 episodes {outcome.last:.1f}",
                flush=True,
            )
    result: dict[str, Any] = {}
    for each, outcomes in found.items():
        result[f"{each}_s"] = round(median(outcome.seconds for outcome in outcomes), 2)
        result[f"{each}_steps"] = int(median(outcome.steps for outcome in outcomes))
        result[f"{each}_solved"] = sum(outcome.last >= task.solved for outcome in outcomes)
    fastest = min(result[f"{each}_s"] for each in trainings if each != "ours")
    return result | {"share": round(result["ours_s"] / fastest, 3)}


def main() -> None:
    """Run the command that was typed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.policy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=5, help="seeds of CartPole-v1")
    parser.add_argument("--long-seeds", type=int, default=1, help="seeds of the other tasks")
    parser.add_argument("--cpu", action="store_true", help="count processor time")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.process_time if args.cpu else time.perf_counter
    results: dict[str, Any] = {}
    for name in args.only:
        found = compared(name, args.seeds if name == "cartpole" else args.long_seeds, clock)
        own = name == "cartpole"
        results |= {key if own else f"{name}_{key}": value for key, value in found.items()}
    if args.json:
        machine = {"machine": platform.processor() or platform.machine(), "threads": 1}
        print(json.dumps(results | machine))
    else:
        for key, value in results.items():
            print(f"{key}: {value}")


if __name__ == "__main__":
    main()
