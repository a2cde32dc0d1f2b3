"""Tuning by the checks of a job, as a run: its prompts, its rewards, and what is saved."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

from ostinato.arguments import counted
from ostinato.checks import BaseCheck, imported
from ostinato.decode import SamplingParams
from ostinato.errors import InputError, ItemError
from ostinato.loop import NotFinite, digest, fold_in
from ostinato.models import LanguageModel, weights_digest
from ostinato.refine import (
    Item,
    Job,
    Router,
    check_tables,
    prepare,
    prompt_tokens,
    read_items,
    read_job,
    require_ready,
)
from ostinato.reward.tuning.config import GroupConfig, TuneRun
from ostinato.reward.tuning.group_policy import SLOTS, GroupPolicy
from ostinato.reward.tuning.rewards import CheckReward, Reward, RewardFunction
from ostinato.reward.tuning.start import load_start, saver
from ostinato.train import Example, TrainingParts, examples, go_back

MOST_HELD_OUT = 48
"""Items that are watched, at most: each look writes a text for every one."""


def prepare_tuning(config: TuneRun) -> TrainingParts:
    """Read the job, and load its model. Raises `InputError` for what cannot be tuned."""
    job = _job(config)
    checks = _checks(job, config)
    rewards = _rewards(job, checks, config)
    router, seed = job.router(), config.training.seed
    items = _written_by_model(router, read_items(job))
    prepare(job.checks)
    model = load_start(job.model, job.adapter, rank=config.lora_rank, device=job.device, seed=seed)
    model = replace(model, compile=job.compile, bits=job.bits)
    fitting = _fitting(router, items, model, job.max_new_tokens)
    apart = _split(fitting, config)

    texts = _texts(config, model)

    def process(settings: GroupConfig) -> GroupPolicy:
        return GroupPolicy(
            model,
            _rows(apart.learned),
            prompt=router.messages,
            reward=rewards,
            config=settings,
            held_out=_rows(apart.held_out),
            held_out_checks=checks.held_out,
            texts=texts,
            sampling=_sampling(job),
            max_new_tokens=job.max_new_tokens,
            slots=max(SLOTS, job.slots),
        )

    def size(settings: GroupConfig) -> str:
        return (
            f"{counted(len(apart.learned), 'prompts')} to learn from, {len(apart.held_out)} "
            "held out, "
            f"{counted(settings.steps_per_epoch([1] * len(apart.learned)), 'steps')} per epoch"
        )

    guard = config.training.guard(checks=bool(checks.held_out)) if apart.held_out else None
    return TrainingParts(
        process=process,
        save=saver(model, job.model),
        hashes={
            "data": _data_digest(router, apart, job, texts),
            "weights": weights_digest(job.model, job.adapter),
        },
        lengths=[1] * len(apart.learned),
        size=size,
        notes=_left_out(len(items) - len(fitting)),
        failure=NotFinite() if guard is None else NotFinite() | guard,
        on_stop=go_back(lr_scale=0.5),
    )


# The job ----------------------------------------------------------------------------------------


def _job(config: TuneRun) -> Job:
    """Read the job with what replaces its values. Raises `InputError` for a model on a server."""
    job = read_job(config.job, input=config.input)
    job = job.with_changes(model=config.model or None, adapter=config.adapter or None)
    if job.server is not None:
        raise InputError(
            f"The model of a tuning must be one in this process, got {job.model}. Name one with "
            "--model."
        )
    require_ready(job)
    return job


class _Checks(NamedTuple):
    rewarding: tuple[BaseCheck, ...]
    held_out: tuple[BaseCheck, ...]


def _checks(job: Job, config: TuneRun) -> _Checks:
    names = [check.name for check in job.checks]
    for name in config.held_out_check:
        if name not in names:
            raise InputError(
                f"--held-out-check must be a check of the job ({', '.join(names)}), got {name!r}. "
                "Name one of these."
            )
    held_out = tuple(check for check in job.checks if check.name in config.held_out_check)
    return _Checks(tuple(c for c in job.checks if c not in held_out), held_out)


def _rewards(job: Job, checks: _Checks, config: TuneRun) -> list[Reward]:
    """Return the rewards of a tuning. Raises `InputError` where none is left."""
    if not checks.rewarding and not config.reward:
        raise InputError(
            "At least one check must be a reward, got all of them held out. Give fewer "
            "--held-out-check, or a --reward."
        )
    rewards: list[Reward] = []
    if checks.rewarding:
        rewards.append(
            CheckReward(
                checks=checks.rewarding,
                by=config.reward_by,
                whole=config.whole,
                weights=config.check_weights(),
            )
        )
    for call in config.reward:
        name = call.rpartition(":")[2]
        rewards.append(RewardFunction(function=imported(call, job.folder), name=name))
    return rewards


def _sampling(job: Job) -> SamplingParams:
    """Return how the job samples its texts; one that takes the likeliest tokens has no groups."""
    sampling = SamplingParams(**asdict(job.sampling))
    return replace(sampling, temperature=1.0) if sampling.greedy else sampling


# Its items --------------------------------------------------------------------------------------


class _Apart(NamedTuple):
    learned: list[Item]
    held_out: list[Item]


def _written_by_model(router: Router, items: Sequence[Item]) -> list[Item]:
    """Return the items without a ready answer. Raises `InputError` where there is none."""
    # An item whose columns cannot be used has no answer: whoever asks for its prompt refuses it.
    found = [item for item in items if router.ready(item.columns) is None]
    if not found:
        raise InputError(
            "A job must have an item that the model writes to be tuned, got answers from rules and "
            "past cases for all. Give other items with --input."
        )
    return found


def _fitting(router: Router, items: Sequence[Item], model: LanguageModel, room: int) -> list[Item]:
    """Return the items whose prompts and answers fit into the model's context."""
    longest = model.config.max_position_embeddings - room
    found = []
    for item in items:
        try:
            tokens = prompt_tokens(router.messages(item.columns, {}), model.tokenizer)
        except ItemError:
            continue
        if len(tokens) < longest:
            found.append(item)
    if not found:
        raise InputError(
            "At least one item must be one that the model can answer, got none: all prompts are "
            "too long or wrong. Try the job first: ostinato refine --dry-run."
        )
    return found


def _split(items: Sequence[Item], config: TuneRun) -> _Apart:
    """Hold out a share of the items, chosen by the seed: at least one where any is asked for."""
    count = min(MOST_HELD_OUT, max(1, round(len(items) * config.hold_out)))
    count = count if config.hold_out else 0
    if count >= len(items):
        raise InputError(
            f"The items must be at least two, of which one is held out, got {len(items)}. Give "
            "more, or --hold-out 0."
        )
    rng = random.Random(fold_in(config.training.seed, "hold out"))
    chosen = set(rng.sample(range(len(items)), count))
    return _Apart(
        [item for n, item in enumerate(items) if n not in chosen],
        [item for n, item in enumerate(items) if n in chosen],
    )


def _rows(items: Sequence[Item]) -> list[tuple[str, Mapping[str, object]]]:
    return [(item.key, item.columns) for item in items]


def _texts(config: TuneRun, model: LanguageModel) -> list[Example]:
    """Return the texts that the model is to keep. Raises `InputError` for bad files."""
    end = min(model.tokenizer.eos_ids, default=None)
    return list(examples(config.texts, model.tokenizer, config.texts_context, end=end))


def _data_digest(router: Router, apart: _Apart, job: Job, texts: Sequence[Example]) -> str:
    """Return a hash of the items with their prompts, of the checks, the sampling and the texts.

    The sources of functions are no part of it: one that broke can be mended, and the run goes on.
    """
    items = [
        [item.key, item.columns, router.messages(item.columns, {})]
        for part in apart
        for item in part
    ]
    checks = {
        name: {key: value for key, value in table.items() if key != "source"}
        for name, table in check_tables(job.checks).items()
    }
    data: list[object] = [items, checks, asdict(job.sampling), job.max_new_tokens]
    return digest([*data, *([[each.tokens for each in texts]] if texts else [])])


def _left_out(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    what = "item is" if count == 1 else "items are"
    return (f"{count} {what} left out: the prompt is too long for the model, or wrong.",)
