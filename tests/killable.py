"""Loops that `check_killed` starts in separate processes and kills."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import replace
from typing import Any

from tiny import compiled_tiny, tiny_model
from tiny_denoiser import TinyDenoiser
from toy_family import WriterAndCritic
from toys import Speller, Walk, slowly

from ostinato.checks import Excludes, Length
from ostinato.decode import SamplingParams
from ostinato.image.denoise import Denoise
from ostinato.journal import Stopped
from ostinato.loop import (
    Action,
    CheckpointSchedule,
    Epochs,
    GiveUp,
    GoBack,
    History,
    Lanes,
    Loop,
    NotFinite,
    Policy,
    Steps,
    Verdict,
)
from ostinato.models import Llama, add_lora
from ostinato.refine import STRATEGIES
from ostinato.refine.refine import Refine
from ostinato.reward import CheckReward, GroupConfig, GroupPolicy
from ostinato.train import TextTask, Training, TrainingConfig, go_back, split, windows


class SlowWalk(Walk):
    """A walk with steps long enough to be killed in."""

    def step(self) -> Any:
        time.sleep(0.002)
        return super().step()


def walk(**where: Any) -> Loop:
    return Loop(SlowWalk(), until=Steps(400), checkpoint=CheckpointSchedule(steps=7), **where)


class BrokenWalk(Walk):
    """A walk that breaks at its third step."""

    def step(self) -> Any:
        if self.steps == 2:
            raise RuntimeError("it broke at 3")
        return super().step()


def broken(**where: Any) -> Loop:
    return Loop(BrokenWalk(), until=Steps(400), **where)


class SlowSpeller(Speller):
    """A speller with steps long enough to be killed in."""

    def step(self) -> Any:
        time.sleep(0.004)
        return super().step()


def no_b(output: object, item: object) -> list[Verdict]:
    return [Verdict("no b", "b" not in str(output), message="b is there.")]


def go_back_to_b(stopped: Stopped, history: History) -> Action:
    position = str(history.output).find("b")
    return GoBack(position, {"forbid": ["b"]}) if position >= 0 else GiveUp()


def spell(own: str = "", **where: Any) -> Loop:
    """Spell items by one policy, or (`own`) each by its own."""
    items = [(f"item{n}", n) for n in range(60)]
    shared = Policy(each=Steps(30), judge=no_b, on_stop=go_back_to_b)

    def policy(n: int) -> Policy:
        return shared if n % 3 == 0 else Policy(each=Steps(5 + n % 11))

    lanes = Lanes(SlowSpeller(), items, policy if own else shared, seed=3)
    return Loop(lanes, until=Steps(100_000), checkpoint=CheckpointSchedule(steps=9), **where)


def toy_family(**where: Any) -> Loop:
    """Train two networks in turns, of which one is sampled with the weights of now."""
    schedule = CheckpointSchedule(steps=7)
    return Loop(WriterAndCritic(), until=Steps(60), checkpoint=schedule, **where)


def tune(**where: Any) -> Loop:
    """Tune a model by checks, with held-out prompts, averages and texts that are left early."""
    model = replace(tiny_model(), network=deepcopy(tiny_model().llama()))
    add_lora(model.llama(), 2, 4.0)
    checks = (Length(max=6), Excludes(texts=("e",), whole=False))
    policy = GroupPolicy(
        model,
        MESSAGES[:6],
        prompt="{message}",
        reward=CheckReward(checks=checks, whole=1.0),
        config=GroupConfig(
            prompts_per_step=2, group_size=4, steps=8, valid_every=3, ema_decay=0.9, lr=0.01
        ),
        held_out=MESSAGES[6:8],
        max_new_tokens=8,
        slots=8,
    )
    return Loop(policy, until=Steps(8), checkpoint=CheckpointSchedule(steps=2), **where)


MESSAGES = [{"id": str(n), "message": f"Can you help me with number {n}?"} for n in range(16)]


def refine(
    run: str,
    journal: Any,
    keep: Any = "steps",
    strategy: str = "backtrack",
    compiled: str = "",
) -> Loop:
    job = Refine(
        compiled_tiny(compiled) if compiled else tiny_model(),
        MESSAGES,
        prompt="{message}",
        checks=[Length(max=12), Excludes(texts=("7", "Q", "e"), whole=False)],
        strategy=STRATEGIES[strategy](),
        sampling=SamplingParams(temperature=1.0),
        max_new_tokens=24,
        seed=5,
        slots=4,
    )
    return job.loop(run=run, journal=journal, keep=keep, checkpoint=CheckpointSchedule(steps=5))


class FragileTraining(Training):
    """A training whose loss diverges once."""

    def step(self) -> Any:
        report = dict(super().step())
        if report["batch"] == 30 and self.updater.lr_scale == 1.0:
            report["loss/train"] = float("nan")
        return report


def train(optimizer: Any = "adamw", lora: str = "", **where: Any) -> Loop:
    """Train for some epochs, going back once, with validation, samples, averages and dropout."""
    config = TrainingConfig(
        optimizer=optimizer,
        steps=50,
        batch_tokens=64,
        gradient_accumulation_steps=2,
        ema_decay=0.9,
        valid_every=8,
        sample_every=16,
    )
    network = Llama(tiny_model().llama().config, seed=1)
    if lora:
        add_lora(network, int(lora), 4.0, dropout=0.1)
    train_set, valid_set = split(windows([(7 * i * i + 3 * i) % 250 for i in range(700)], 16), 0.2)
    task = TextTask(train_set, valid_set, write=lambda network: "a sample")
    return Loop(
        FragileTraining(network, task, config),
        until=Epochs(40) | Steps(50) | NotFinite(),
        on_stop=go_back(lr_scale=0.5),
        checkpoint=CheckpointSchedule(steps=7),
        **where,
    )


def denoise(solver: str = "dpmpp_2m", **where: Any) -> Loop:
    """Images in a few slots; those that fail are noised again."""
    process = Denoise(TinyDenoiser(), slots=3, steps=12, solver=solver, guidance=1.5)
    items = [(f"image {n}", {"label": n % 3}) for n in range(12)]

    def again(stopped: Stopped, history: History) -> Action:
        if history.backtracks() >= 2:
            return GiveUp("Twice is enough.")
        return GoBack(6, {"renoise": history.output}, stopped.sentence)

    def judge(output: Any, item: object) -> list[Verdict]:
        score = float(output.abs().mean())
        return [Verdict("dark", score < 0.4, message="Draw it darker.")]

    lanes = Lanes(
        process, items, Policy(each=Steps(100) | slowly(0.01), judge=judge, on_stop=again)
    )
    return Loop(lanes, until=Steps(10_000), checkpoint=CheckpointSchedule(steps=5), **where)
