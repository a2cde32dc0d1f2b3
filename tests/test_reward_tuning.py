"""A language model tuned by the rewards of its own texts: estimators, rewards, guard, resume."""

from __future__ import annotations

import math
import time
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import tiny_model

from ostinato.checks import Excludes, Length
from ostinato.errors import InputError, RunError
from ostinato.loop import Exceeds, Loop, Steps
from ostinato.models import Branches, LanguageModel, Llama, LlamaConfig, add_lora
from ostinato.reward import CheckReward, GroupConfig, GroupPolicy, RewardFunction
from ostinato.reward.tuning.advantages import advantages, kl_to, soft_limit, surrogate
from ostinato.reward.tuning.guard import copied_share
from ostinato.reward.tuning.scores import GroupTokens, score
from ostinato.testing import check_process
from ostinato.train import Example, TextTask, conversation

ITEMS = [{"id": str(n), "message": f"Can you help with {n}?"} for n in range(5)]
CHECKS = (Length(max=6), Excludes(texts=("e",), whole=False))
SMALL = GroupConfig(
    prompts_per_step=2, group_size=4, valid_every=2, steps=6, warmup_steps=1, lr=0.01
)


def model() -> LanguageModel:
    made = replace(tiny_model(), network=deepcopy(tiny_model().llama()))
    add_lora(made.llama(), 2)
    return made


def policy(reward: Any = None, config: GroupConfig = SMALL, **more: Any) -> GroupPolicy:
    more = {"held_out": [{"id": "h", "message": "Hello?"}], "max_new_tokens": 8, **more}
    return GroupPolicy(
        model(),
        ITEMS,
        prompt="{message}",
        reward=CheckReward(checks=CHECKS) if reward is None else reward,
        config=config,
        slots=8,
        **more,
    )


def step_of(tuned: GroupPolicy) -> dict[str, Any]:
    return dict(tuned.step())


def letters(text: str) -> float:
    """Reward texts of few letters "e" and "a"."""
    return -float(sum(text.count(letter) for letter in "ea"))


# The process ------------------------------------------------------------------------------------


def test_it_conforms() -> None:
    small = replace(SMALL, prompts_per_step=1, group_size=3)
    check_process(lambda: policy(letters, small, max_new_tokens=4), steps=3, cuts=(2,))


TEXTS = [
    conversation(
        tiny_model().tokenizer,
        [
            {"role": "user", "content": "Can you help?"},
            {"role": "assistant", "content": "I can help you."},
        ],
        64,
    )
]


@torch.no_grad()
def loss_of_texts(network: Llama) -> float:
    task = TextTask(TEXTS)
    return float(task.loss(network, [0], 0).total) / task.loss_tokens([0])


def test_texts_are_kept_that_rewards_alone_unlearn() -> None:
    def loss_after(texts: list[Example]) -> float:
        tuned = policy(letters, replace(SMALL, lr=0.02, texts_per_step=1), texts=texts)
        for _ in range(6):
            step_of(tuned)
        return loss_of_texts(tuned.network)

    start = loss_of_texts(model().llama())
    assert loss_after(TEXTS) < start < loss_after([])
    assert step_of(policy(letters, SMALL, texts=TEXTS))["loss/texts"] == pytest.approx(start)
    assert "loss/texts" not in step_of(policy(letters, SMALL))


def test_it_conforms_with_texts() -> None:
    small = replace(SMALL, prompts_per_step=1, group_size=3, texts_per_step=2, precision="bfloat16")
    check_process(lambda: policy(letters, small, max_new_tokens=4, texts=TEXTS * 3), steps=2)


def odd(completions: Any, completion_ids: list[list[int]]) -> list[float]:
    """Reward texts that begin with an odd token."""
    return [float(ids[0] % 2) for ids in completion_ids]


@pytest.mark.parametrize("method", ["grpo", "dr-grpo", "rloo", "expert"])
def test_each_estimator_raises_the_reward(method: Any) -> None:
    config = replace(
        SMALL, method=method, group_size=16, steps=100, kl_coefficient=0.0, valid_every=100
    )
    tuned = policy(odd, config, held_out=(), max_new_tokens=1)
    rewards = [float(str(step.report["reward"])) for step in Loop(tuned, until=Steps(10))]
    assert rewards[0] < 0.7 and sum(rewards[-3:]) / 3 > 0.85, rewards


def test_the_first_update_clips_nothing_and_later_ones_do() -> None:
    config = replace(SMALL, updates_per_step=3, lr=0.05, warmup_steps=0)
    assert step_of(policy(letters, replace(config, updates_per_step=1)))["clipped"] == 0
    assert step_of(policy(letters, config))["clipped"] > 0


def test_groups_without_a_difference_are_skipped_and_counted() -> None:
    def last_digit(prompts: Any, completions: Any, message: Any, **columns: Any) -> list[float]:
        return [float("0" in each) * n for n, each in enumerate(message)]

    tuned = policy(last_digit)
    skipped: list[int] = []
    while not skipped or tuned.cursor.epoch < 1:
        try:
            skipped.append(step_of(tuned)["skipped"])
        except RunError:  # the first batch has no "0" in it
            continue
    assert sum(skipped) >= 2


def test_the_reference_is_the_model_at_the_start_also_after_a_resume() -> None:
    first = policy()
    reports = [step_of(first) for _ in range(3)]
    assert reports[0]["kl"] == 0 and reports[2].get("kl", 1.0) > 0
    assert reports[0]["mismatch"] < 1e-4  # the same network in decode and training
    second = policy()
    second.load_state_dict(first.state_dict())
    assert step_of(first) == step_of(second)


def test_the_weights_of_the_start_are_the_best_until_others_are_better() -> None:
    tuned = policy(letters)
    start = {name: p.clone() for name, p in tuned.parameters.items()}
    step_of(tuned)
    assert tuned.best.step == 0
    assert all(value.equal(start[name]) for name, value in tuned.best.weights.items())


# Rewards ----------------------------------------------------------------------------------------


def hangs(text: str) -> float:
    time.sleep(2)
    return 0.0


def broken(text: str) -> float:
    raise KeyError("price")


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda text: 1.0, "must tell texts apart, got 1 for all 8 of the first batch"),
        (lambda text: math.nan, "must return finite numbers, got nan"),
        (lambda prompts, completions: [1.0], "must return a list of 8 numbers, .* got 1"),
        (lambda completions: 0.5, "must return a list of 8 numbers, .* got 0.5"),
        (lambda completions: torch.ones(8, 2), r"must return finite numbers, got \[1.0, 1.0\]"),
        (lambda text: "good", "must return finite numbers, got 'good'"),
        (RewardFunction(function=hangs, time_limit=0.05), "'hangs' must return within 0.05 sec"),
        (broken, "'broken' must return numbers, and raised KeyError: 'price'. Mend it, and resume"),
    ],
)
def test_a_reward_of_no_use_is_named_at_its_first_batch(reward: Any, message: str) -> None:
    tuned = policy(reward, held_out=())
    before = {name: p.clone() for name, p in tuned.parameters.items()}
    with pytest.raises(RunError, match=message):
        step_of(tuned)
    assert all(p.equal(before[name]) for name, p in tuned.parameters.items())


def test_a_reward_of_trl_gets_conversations_and_columns() -> None:
    seen: dict[str, Any] = {}

    def reward(prompts: Any, completions: Any, message: Any, **columns: Any) -> list[float]:
        seen.update(prompts=prompts, completions=completions, message=message, **columns)
        return [float(n) for n in range(len(completions))]

    chat = GroupPolicy(
        model(),
        ITEMS,
        prompt=lambda row, edits: [{"role": "user", "content": str(row["message"])}],
        reward=reward,
        config=SMALL,
        max_new_tokens=8,
    )
    chat.step()
    assert seen["prompts"][0] == [{"role": "user", "content": seen["message"][0]}]
    assert [each["role"] for each in seen["completions"][0]] == ["assistant"]
    assert len(seen["completion_ids"]) == len(seen["id"]) == 8


def test_several_rewards_are_weighed_and_reported() -> None:
    other = RewardFunction(function=lambda text: float(len(text)), name="longer", weight=0.1)
    report = step_of(policy([CheckReward(checks=CHECKS), other], held_out=()))
    total = report["reward/checks"] + 0.1 * report["reward/longer"]
    assert report["reward"] == pytest.approx(total, abs=1e-5)
    with pytest.raises(InputError, match="names of rewards must be unique, got 'letters' twice"):
        policy([letters, letters])


def test_scores_weights_and_the_whole_shape_the_reward_of_checks() -> None:
    verdicts = [check.judge("one two three", {}) for check in CHECKS]
    assert [verdict.passed for verdict in verdicts] == [True, False]
    by: Any = {"by": "verdict", "checks": CHECKS}
    assert CheckReward(**by, whole=0).of(verdicts) == 0.5
    assert CheckReward(**by, whole=1).of(verdicts) == 0.0
    assert CheckReward(checks=CHECKS[:1]).of(verdicts) == 1.0  # others are held out
    assert CheckReward(**by, whole=0, weights={"length": 3}).of(verdicts) == 0.75
    assert CheckReward(**by, weights={"excludes": 0}).of(verdicts) == 1.0
    with pytest.raises(InputError, match="Did you mean 'length'"):
        CheckReward(checks=CHECKS, weights={"lenght": 1})


def test_a_hopeless_text_is_left_with_the_reward_that_it_would_have() -> None:
    reward = CheckReward(checks=CHECKS, whole=1)
    config = replace(SMALL, group_size=8)
    left, written = policy(reward, config), policy(reward, replace(config, leave_hopeless=False))
    one, other = step_of(left), step_of(written)
    assert one["hopeless"] > 0 and other["hopeless"] == 0
    assert one["reward"] == other["reward"] and one["passed"] == other["passed"]
    assert one["tokens"] < other["tokens"]
    shaped = step_of(policy(CheckReward(checks=CHECKS, whole=0.9), config))
    assert shaped["hopeless"] == 0  # its reward is not known before its end


def test_overlong_texts_lose_by_their_length() -> None:
    assert [soft_limit(n, 6, 10) for n in (5, 6, 8, 10)] == [0, 0, 0.5, 1]
    report = step_of(policy(letters, replace(SMALL, overlong="zero"), held_out=()))
    assert report["cut"] > 0.5 and abs(report["reward"]) < 1


# Estimators -------------------------------------------------------------------------------------


def test_advantages_are_those_of_the_papers() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.5, 1.0])
    standard = advantages("grpo", rewards)
    assert standard.mean().abs() < 1e-6 and standard.std() == pytest.approx(1, abs=1e-3)
    plain = advantages("dr-grpo", rewards)
    assert torch.allclose(advantages("rloo", rewards), plain * 4 / 3)
    assert advantages("expert", rewards).tolist() == [2, 0, 0, 2]


def test_the_ratio_is_clipped_where_it_would_gain_more() -> None:
    config = GroupConfig(clip_range=0.2, clip_range_high=0.5)
    logprobs, old = torch.log(torch.tensor([2.0, 2.0, 0.5, 0.5])), torch.zeros(4)
    gain, clipped = surrogate(logprobs, old, torch.tensor([1.0, -1.0, 1.0, -1.0]), config)
    assert torch.allclose(gain, torch.tensor([1.5, -2.0, 0.5, -0.8]))
    assert clipped.tolist() == [True, False, False, True]


def test_the_estimate_of_the_divergence_is_unbiased_and_never_negative() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    each = kl_to(p.log(), q.log())
    assert (each >= 0).all()
    assert (p * each).sum() == pytest.approx(float((p * (p / q).log()).sum()), abs=1e-6)


GROUP = GroupTokens([5, 6, 7, 8], [[9, 10, 11], [12], [13, 14, 9, 9, 2]])


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_a_shared_prompt_gives_the_log_probabilities_of_each_text_alone(family: str) -> None:
    sizes: dict[str, Any] = {
        "model_type": family,
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "sliding_window": 3 if family == "mistral" else None,
    }
    if family == "gpt2":
        sizes = {"model_type": "gpt2", "vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2}
        sizes["n_positions"] = 32
    network = Llama(LlamaConfig.from_dict(sizes), seed=1)
    shared = score(network, GROUP, 0.7).logprobs
    single = score(network, GroupTokens(GROUP.prompt, [[12], [9]]), 0.7).logprobs
    assert torch.allclose(single[:1], shared[3:4], atol=1e-5)
    alone = [score(network, GroupTokens(GROUP.prompt, [text]), 0.7) for text in GROUP.texts]
    assert torch.allclose(shared, torch.cat([each.logprobs for each in alone]), atol=1e-5)
    plain = []
    for text in GROUP.texts:
        tokens = torch.tensor([[*GROUP.prompt, *text]])
        logits = network.logits(network(tokens))[0, len(GROUP.prompt) - 1 : -1] / 0.7
        logp = logits.log_softmax(-1)
        plain.append(logp[torch.arange(len(text)), torch.tensor(text)])
    assert torch.allclose(shared, torch.cat(plain), atol=1e-5)


def test_gradients_of_log_probability_and_entropy_are_those_of_autograd() -> None:
    network = Llama(replace(tiny_model().llama().config, vocab_size=150), seed=1)
    scores = score(network, GROUP, 0.8)
    (scores.logprobs.sum() + 0.5 * scores.entropy.sum()).backward()  # type: ignore[no-untyped-call]
    by_hand = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    total = torch.zeros(())
    for text in GROUP.texts:
        hidden = network(torch.tensor([[*GROUP.prompt, *text]]))[0, len(GROUP.prompt) - 1 : -1]
        logp = (network.logits(hidden) / 0.8).log_softmax(-1)
        total = total + logp[torch.arange(len(text)), torch.tensor(text)].sum()
        total = total - 0.5 * (logp.exp() * logp).sum()
    total.backward()  # type: ignore[no-untyped-call]
    for name, p in network.named_parameters():
        assert p.grad is not None and torch.allclose(by_hand[name], p.grad, atol=1e-4), name


def test_branches_stand_right_after_their_prompt() -> None:
    branches = Branches(2, [2, 1, 0])
    assert branches.positions.tolist() == [0, 1, 2, 3, 2] and branches.longest == 4
    q, k, v = torch.randn(3, 1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    seen = torch.zeros(5, 5).masked_fill(~BRANCHED, -torch.inf)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    assert torch.allclose(branches.attend(q, k, v), expected, atol=1e-6)


BRANCHED = torch.tensor(
    [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
).bool()


# The guard --------------------------------------------------------------------------------------


def test_copied_words_are_those_in_runs_of_the_prompt() -> None:
    prompt = "The table is booked for two at noon."
    assert copied_share("the table is booked for you", prompt) == 5 / 6
    assert copied_share("at noon", prompt) == 1 and copied_share("noon at two", prompt) == 0
    assert copied_share("", prompt) == 0


def test_a_policy_that_games_its_reward_ends_and_its_weights_are_not_the_best() -> None:
    config = replace(SMALL, max_bits=0.5, max_copied=0.0, max_lost=0.0, valid_every=1)
    tuned = policy(letters, config)
    guard = config.guard()
    assert guard == Exceeds("bits/ratio", above=0.5)
    loop = Loop(tuned, until=guard | Steps(5))
    assert "bits/ratio is" in loop.run().sentence and loop.tick == 1
    assert tuned.best.step == 0 and not tuned.holds({"bits/ratio": 0.6})


def test_held_out_checks_are_watched_and_no_reward() -> None:
    tuned = policy(CheckReward(checks=CHECKS[1:]), held_out_checks=CHECKS[:1])
    report = [step_of(tuned) for _ in range(2)][1]
    assert "passed/excludes" in report and "passed/length" not in report
    assert {"passed/valid/length", "passed/lost"} <= report.keys()
