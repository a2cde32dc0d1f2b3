"""A language model that learns from the rewards of its own texts, group by group.

GRPO (Shao et al., "DeepSeekMath", 2024, section 4.1), and the other estimators of `advantages`. A
process made of the parts of `ostinato.train`. It does not know when to stop: `Reaches("reward")`,
`Plateau("reward/valid", mode="max")`, the conditions of its guard and others do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import fmean, pstdev

import torch
from torch import Tensor

from ostinato.arguments import require, require_at_least
from ostinato.checks import TIME_LIMIT
from ostinato.decode import Decode, SamplingParams, TokenPrompt
from ostinato.errors import InputError
from ostinato.loop import Check, Report, Step, fold_in
from ostinato.models import LanguageModel, has_computed_weights, merged_once
from ostinato.refine import PromptOf, checks_of
from ostinato.reward.tuning.advantages import advantages, soft_limit
from ostinato.reward.tuning.config import GroupConfig
from ostinato.reward.tuning.held_out import HeldOut
from ostinato.reward.tuning.loss import GroupLoss, LossParts
from ostinato.reward.tuning.rewards import (
    Call,
    CheckReward,
    Reward,
    rate,
    require_telling,
    rewards_of,
    total_rewards,
)
from ostinato.reward.tuning.rollouts import Group, Items, Sampler, prompted
from ostinato.reward.tuning.scores import score
from ostinato.train import (
    AdamW,
    Averages,
    BatchCursor,
    BatchSampler,
    BestWeights,
    CurrentWeights,
    Example,
    Parts,
    PartsProcess,
    Precision,
    TextTask,
    Updater,
    Values,
    Weights,
    copied,
    trainable,
    using,
)

DEFAULT_SAMPLING = SamplingParams(temperature=1.0, top_k=256)
SLOTS = 32
"""Texts that are written at once."""


class GroupPolicy(PartsProcess):
    """Tune a language model by the rewards of groups of texts that it writes.

    It trains the parameters of `model` that require a gradient: those of an adapter
    (`ostinato.models.add_lora`), or all. `items` are mappings of columns, `prompt` a template or a
    function of (item, edits), as of `Refine`. `reward` is a `CheckReward`, a `RewardFunction`, a
    function, or several of them, whose weighted sum counts. `held_out` are items that are never
    learned from; `held_out_checks` judge them and are no reward. `texts` are examples whose
    cross-entropy is added to the loss of each step (`texts_weight`), as the pretraining gradients
    of PPO-ptx (Ouyang et al. 2022, "Training language models to follow instructions with human
    feedback", section 3.5): a model that learns from rewards alone unlearns other texts.

    Reports, where a share is one of the step's texts:

    - `reward` and `reward/std`, `reward/NAME` of each of several rewards; `passed`, the share that
      passes all checks, and `passed/NAME`; `length` in tokens; `cut`, the share ended by the token
      limit; `hopeless`, the share left early; `samples`, and `tokens` written in the step;
    - `skipped`, the groups whose rewards are all equal, from which nothing is learned;
    - `loss/texts` in nats per token, where there are `texts`;
    - `loss/train`, `kl` to the model at the start, `entropy`, `clipped` (the share of tokens whose
      ratio was clipped), `mismatch` (the mean difference between the log-probabilities of decode
      and training), `lr`, `grad/norm`: not in a step without anything to learn;
    - `epoch` (passes over the prompts), `batch` (the index of the next one);
    - every `valid_every` steps the values of `HeldOut`; in the first step, as `start/…`, those of
      the model at the start.

    Edits: `lr` sets the peak, `lr_scale` multiplies the rate; `skip`, `skip_steps` leave prompts
    out. `best` has the weights of the highest `reward/valid` within the bounds of the guard.
    `seconds` is how long the last step took to `write` and to `learn`.
    """

    def __init__(
        self,
        model: LanguageModel,
        items: Items,
        *,
        prompt: str | PromptOf,
        reward: Reward | Call | Sequence[Reward | Call],
        config: GroupConfig | None = None,
        held_out: Items = (),
        held_out_checks: Sequence[Check | Call] = (),
        texts: Sequence[Example] = (),
        sampling: SamplingParams = DEFAULT_SAMPLING,
        max_new_tokens: int = 128,
        slots: int = SLOTS,
        time_limit: float = TIME_LIMIT,
    ) -> None:
        require_at_least(1, max_new_tokens=max_new_tokens, slots=slots)
        warm = not sampling.greedy
        require(warm, "temperature", "above 0, as the texts of a group must differ", 0)
        if has_computed_weights(model.llama()):
            raise InputError(
                "model must have its matrices in memory as floats, got some that stay in a file. "
                "Load it with dtype=torch.float32 or torch.bfloat16."
            )
        self.network, self.config = model.llama(), config or GroupConfig()
        self.rewards = rewards_of(reward)
        self.items = prompted(model, items, prompt)
        self._temperature, self._limit = sampling.temperature, max_new_tokens
        self.decode = Decode(
            model,
            lambda item, edits: TokenPrompt(item.tokens),
            sampling=sampling,
            slots=slots,
            limit=max_new_tokens,
        )
        self._texts = TextTask(texts)
        self._build(self.config)
        of_checks = [one for one in self.rewards if isinstance(one, CheckReward)]
        judges = list({check.name: check for one in of_checks for check in one.checks}.values())
        hopeless = of_checks[0].counted if self._leaves_hopeless else ()
        self._sampler = Sampler(self.decode, max_new_tokens, judges, hopeless, time_limit)
        hidden = checks_of(held_out_checks) if held_out_checks else ()
        self._held_out = HeldOut(
            Sampler(self.decode, max_new_tokens, [*judges, *hidden], (), time_limit),
            prompted(model, held_out, prompt),
            self.rewards,
            hidden,
            self._reference,
            fold_in(self.config.seed, "held out"),
        )

    def _build(self, config: GroupConfig) -> None:
        self.parameters: Weights = trainable(self.network)
        fix = "Add an adapter, or let all weights require a gradient."
        require(bool(self.parameters), "model", "one with something to train", "none", fix)
        self.precision = Precision(self.network, name=config.precision, seed=config.seed)
        self._reference = copied(self.parameters)
        schedule, updates = config.lr_schedule(), config.updates_per_step
        self.updater = Updater(
            self.parameters,
            AdamW(),
            replace(
                schedule,
                steps=schedule.steps * updates,
                warmup_steps=schedule.warmup_steps * updates,
            ),
            max_grad_norm=config.max_grad_norm,
        )
        self.cursor = BatchCursor(
            BatchSampler([1] * len(self.items), config.prompts_per_step, config.seed)
        )
        self._averages = Averages(self.parameters, config.ema_decay)
        self.best = BestWeights(self.parameters, "max")
        self._values = Values(start={}, looked=-1)
        self.seconds: dict[str, float] = {}
        self._parts = Parts(
            "GroupPolicy",
            weights=CurrentWeights(self.parameters),
            updater=self.updater,
            averages=self._averages,
            best=self.best,
            cursor=self.cursor,
            values=self._values,
        )

    @property
    def _leaves_hopeless(self) -> bool:
        """Whether a text is left that can no longer pass: only where its reward is then known."""
        c, only = self.config, self.rewards[0]
        known = isinstance(only, CheckReward) and only.known_early and len(self.rewards) == 1
        return known and c.leave_hopeless and not c.soft_limit and c.overlong != "mask"

    @property
    def report_interval(self) -> int:
        """Steps within which all must have been reported, going back once included."""
        return 2 * max(self.config.valid_every, self.config.sample_every)

    @property
    def averages(self) -> bool:
        """Whether held-out texts are written with averaged weights (`ema_decay`)."""
        return bool(self._averages.weights)

    @property
    def compute_mode(self) -> str:
        """How the texts are computed: a run records it."""
        return self.decode.compute_mode

    def use_compute_mode(self, mode: str) -> None:
        """Write texts in this mode, if the model leaves it open."""
        self.decode.use_compute_mode(mode)

    # The process ------------------------------------------------------------------------------

    def step(self) -> Report:
        """Write a group of texts for each of the next prompts, and learn from their rewards."""
        number = self.cursor.steps
        with self.precision.deterministic():
            report: dict[str, object] = {}
            if number == 0:
                report |= self._look_at_start()
            began = time.perf_counter()
            groups = self._write(number)
            written = time.perf_counter()
            rewards, parts = self._rated(groups, first=number == 0)
            report |= _summary(groups, rewards, parts)
            with self.precision.step_of(number):
                report |= self._learn(groups, rewards)
            self.seconds = {"write": written - began, "learn": time.perf_counter() - written}
            report |= {"epoch": self.cursor.epoch, "batch": self.cursor.index}
            return report | self._scheduled(number + 1, groups)

    # Parts of a step --------------------------------------------------------------------------

    def _write(self, number: int) -> list[Group]:
        """Return a group of texts of the weights of now for each of the next prompts."""
        self.decode.update()
        items = [self.items[n] for batch in self.cursor.take() for n in batch.examples]
        seed = fold_in(self.config.seed, "rollouts", number)
        return self._sampler.sample(items, self.config.group_size, seed)

    def _rated(
        self, groups: Sequence[Group], *, first: bool
    ) -> tuple[list[Tensor], dict[str, list[float]]]:
        """Return the rewards (G,) of each group, and the numbers of each reward by its name."""
        parts = rate(self.rewards, [text for group in groups for text in group.texts])
        if first:
            require_telling(parts)
        totals = total_rewards(self.rewards, parts)
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        config, limit = self.config, self._limit
        for n, rollout in enumerate(rollouts):
            totals[n] -= soft_limit(len(rollout.tokens), config.soft_limit, limit)
            if rollout.cut and config.overlong == "zero":
                totals[n] = 0.0
        return list(torch.split(torch.tensor(totals), config.group_size)), parts

    def _learn(self, groups: Sequence[Group], rewards: Sequence[Tensor]) -> dict[str, object]:
        """Update the weights by the groups whose rewards differ."""
        config = self.config
        losses = [
            GroupLoss(
                group, advantages(config.method, each), config, self._temperature, self._limit
            )
            for group, each in zip(groups, rewards, strict=True)
            if len(set(each.tolist())) > 1
        ]
        report: dict[str, object] = {"skipped": len(groups) - len(losses)}
        if not losses:
            return report
        self._refer(losses)
        found: list[LossParts] = []
        for update in range(config.updates_per_step):
            with merged_once(self.network):
                found += [self._backward(loss, len(losses)) for loss in losses]
                report |= self._keep_texts(update)
            updated = self.updater.step()
            self._averages.update()
        return report | LossParts.means(found, first=len(losses)) | updated

    def _backward(self, loss: GroupLoss, groups: int) -> LossParts:
        """Add the gradients of a group's loss, of which the mean over the groups is taken."""
        with self.precision.autocast():
            parts = loss.of(self.network)
        (parts.loss / groups).backward()  # type: ignore[no-untyped-call]
        return parts.detached()

    def _keep_texts(self, update: int) -> dict[str, object]:
        """Add the gradients of some of the texts, which the step's number chooses."""
        count = len(self._texts.lengths)
        if not count:
            return {}
        seed = fold_in(self.config.seed, "texts", self.cursor.steps, update)
        chosen = random.Random(seed).sample(range(count), min(count, self.config.texts_per_step))
        with self.precision.autocast():
            total = self._texts.loss(self.network, chosen, seed).total
        loss = total / self._texts.loss_tokens(chosen)
        (self.config.texts_weight * loss).backward()  # type: ignore[no-untyped-call]
        return {"loss/texts": float(loss.detach())}

    @torch.no_grad()
    def _refer(self, losses: Sequence[GroupLoss]) -> None:
        """Give the losses the log-probabilities of the model at the start, if they need them."""
        if not self.config.kl_coefficient:
            return
        with (
            using(self.parameters, self._reference),
            merged_once(self.network),
            self.precision.autocast(),
        ):
            for loss in losses:
                loss.reference = score(self.network, loss.tokens, self._temperature).logprobs

    # Looks ------------------------------------------------------------------------------------

    def _look_at_start(self) -> dict[str, object]:
        """Return the values of the held-out prompts before anything was learned."""
        self._values.start = start = self.look()
        if start:  # a tuning that only makes it worse saves the model as it was
            self.best.offer(start["reward/valid"], 0)
        return {f"start/{name}": value for name, value in start.items()}

    def _scheduled(self, step: int, groups: Sequence[Group]) -> dict[str, object]:
        every = self.config.sample_every
        report: dict[str, object] = {}
        if step % self.config.valid_every == 0:
            report |= self._looked(step)
        if every and step % every == 0:
            report["sample"] = _shown(groups[0])
        return report

    def _looked(self, step: int) -> dict[str, float]:
        with using(self.parameters, self._averages.weights):
            found = self.look()
            self._values.looked = step
            if found:
                found |= self._held_out.beside(found, self._values.start)
                if self.holds(found):
                    self.best.offer(found["reward/valid"], step)
        return found

    def look(self) -> dict[str, float]:
        """Return the values of the held-out prompts for the weights of now; empty without any."""
        if not self._held_out.items:
            return {}
        self.decode.update()
        return self._held_out.look(self.network, self.parameters)

    def holds(self, values: Mapping[str, object]) -> bool:
        """Return whether values of held-out prompts are within the bounds of the guard."""
        guard = self.config.guard()
        return guard is None or guard.observe(guard.initial_state(), Step(1, 1, values))[1] is None

    # Weights ----------------------------------------------------------------------------------

    def validate_last(self) -> Mapping[str, float]:
        """Look at the held-out prompts with the weights of the last step, unless that is done.

        For the end of a tuning: what a resumed run computes does not depend on it.
        """
        if self._values.looked == self.cursor.steps:
            return {}
        with self.precision.deterministic():
            return self._looked(self.cursor.steps)

    @contextmanager
    def best_weights(self) -> Iterator[None]:
        """Use the best weights in the block, else averaged ones, else the last."""
        with using(self.parameters, self.best.weights or self._averages.weights):
            yield


def _summary(
    groups: Sequence[Group], rewards: Sequence[Tensor], parts: Mapping[str, Sequence[float]]
) -> dict[str, object]:
    """Return what a step reports of its texts."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    totals = torch.cat(list(rewards)).tolist()
    report: dict[str, object] = {"reward": fmean(totals), "reward/std": pstdev(totals)}
    if len(parts) > 1:
        report |= {f"reward/{name}": fmean(values) for name, values in parts.items()}
    if rollouts[0].verdicts:
        report["passed"] = fmean(all(v.passed for v in r.verdicts) for r in rollouts)
        for n, verdict in enumerate(rollouts[0].verdicts):
            report[f"passed/{verdict.check}"] = fmean(r.verdicts[n].passed for r in rollouts)
    tokens = sum(len(rollout.tokens) for rollout in rollouts)
    return report | {
        "length": tokens / len(rollouts),
        "cut": fmean(rollout.cut for rollout in rollouts),
        "hopeless": fmean(rollout.hopeless for rollout in rollouts),
        "samples": len(rollouts),
        "tokens": tokens,
    }


def _shown(group: Group) -> str:
    """Return a text as a report shows it, after the end of its prompt."""
    prompt = group.item.prompt_text.strip()
    return f"{prompt[-SHOWN:]} => {group.rollouts[0].text}"


SHOWN = 200  # characters of a prompt
