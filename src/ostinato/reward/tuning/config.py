"""The configurations of tuning by reward. Imports no torch: the command line makes options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from ostinato.arguments import require, require_above, require_at_least
from ostinato.journal import Place
from ostinato.loop import Condition, Exceeds
from ostinato.train import GradientConfig, TrainingConfig, TrainingRun, argument, option

Method = Literal["grpo", "dr-grpo", "rloo", "expert"]


@dataclass(frozen=True, kw_only=True)
class GroupConfig(GradientConfig):
    """How a language model is tuned by the rewards of groups of its own texts."""

    steps: int = option(
        200, "Steps of the learning-rate schedule; also the limit if no other condition is given."
    )
    method: Method = option(
        "grpo",
        "Estimator: GRPO (DeepSeekMath), Dr. GRPO (no division by deviation and length), RLOO "
        "(leave one out), expert iteration (learn the best texts).",
    )
    prompts_per_step: int = option(8, "Prompts per step.")
    group_size: int = option(8, "Texts per prompt, which are compared with each other.")
    updates_per_step: int = option(1, "Updates on the texts of a step; later ones are clipped.")
    lr: float = option(3e-4, "Peak learning rate.")
    warmup_steps: int = option(5, "Steps of linear warm-up.")
    valid_every: int = option(20, "Steps between evaluations on held-out prompts.")
    kl_coefficient: float = option(
        0.04, "Weight of the divergence (KL) from the model at the start; 0: none."
    )
    entropy_coefficient: float = option(0.0, "Weight of the entropy bonus.")
    texts_weight: float = option(
        1.0, "Weight of the loss of --texts, beside the rewards' of each step."
    )
    texts_per_step: int = option(4, "Texts of --texts that each step learns from.")
    clip_range: float = option(0.2, "Clipping of the probability ratio, below 1.")
    clip_range_high: float | None = option(
        None, "Clipping of the ratio above 1.  [default: as --clip-range]"
    )
    overlong: Literal["keep", "mask", "zero"] = option(
        "keep",
        "Texts cut at the token limit: judged as they are, left out of the loss, or reward 0.",
    )
    soft_limit: int = option(
        0, "Length in tokens from which the reward falls, by up to 1 at the token limit; 0: off."
    )
    leave_hopeless: bool = option(
        True,
        "With --whole 1: stop writing a text that can no longer pass.",
        flag="--leave-hopeless/--write-hopeless",
    )
    max_copied: float = option(0.3, "Guard: largest rise of the share of copied text; 0: no bound.")
    max_bits: float = option(
        1.5,
        "Guard: largest bits per character under the model at the start, as a multiple of "
        "those of its own texts; 0: no bound.",
    )
    max_lost: float = option(
        0.2, "Guard: largest fall of the share of texts that pass the held-out checks; 0: no bound."
    )
    seed: int = option(0, "Seed of the prompts' order, the texts and the initial adapter.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, prompts_per_step=self.prompts_per_step)
        require_at_least(1, updates_per_step=self.updates_per_step)
        require_at_least(1, texts_per_step=self.texts_per_step)
        require_above(0, texts_weight=self.texts_weight)
        require_at_least(2, "A group's texts are compared.", group_size=self.group_size)
        or_zero = ("kl_coefficient", "entropy_coefficient", "soft_limit")
        bounds = ("max_copied", "max_bits", "max_lost")
        require_at_least(0, **{name: getattr(self, name) for name in (*or_zero, *bounds)})
        require(0 < self.clip_range < 1, "clip_range", "in (0, 1)", self.clip_range)
        if self.clip_range_high is not None:
            require_above(0, clip_range_high=self.clip_range_high)

    def steps_per_epoch(self, lengths: Sequence[int]) -> float:
        """Return how many steps a pass over so many prompts takes."""
        return -(-len(lengths) // self.prompts_per_step)

    def guard(self, *, checks: bool = True) -> Condition | None:
        """Return the condition that ends a tuning which games its reward; None for no guard.

        `checks`: whether there are checks that are held out.
        """
        bounds = {"copied/rise": self.max_copied, "bits/ratio": self.max_bits}
        bounds |= {"passed/lost": self.max_lost} if checks else {}
        found: Condition | None = None
        for name, bound in bounds.items():
            if bound:
                each = Exceeds(name, above=bound)
                found = each if found is None else found | each
        return found


@dataclass(frozen=True, kw_only=True)
class TuneRun(TrainingRun):
    """A language model tuned by the checks of a job.

    `model` replaces that of the job, `input` its items. `data` is a hash of the items with their
    prompts and of the checks, `weights` of the model that it starts from.
    """

    kind: ClassVar[str] = "tune"
    prepare: ClassVar[str] = "ostinato.reward:prepare_tuning"
    measure: ClassVar[str] = "reward/valid"
    better: ClassVar[Literal["min", "max"]] = "max"
    free: ClassVar[frozenset[str]] = TrainingRun.free | {"input", "texts"}
    hashes: ClassVar[frozenset[str]] = TrainingRun.hashes | {"weights"}

    job: Path = argument("JOB.toml")
    training: GroupConfig = GroupConfig()
    checkpoint_every: int = 10
    input: Path | None = option(None, "Items to tune on.  [default: the job's]")
    model: Place = option("", "Model, without an adapter.  [default: the job's]")
    adapter: Place = option("", "Adapter to start from.  [default: the job's]")
    lora_rank: int = option(16, "Rank of a new adapter; 0: train all weights.")
    reward_by: Literal["score", "verdict"] = option(
        "score", "What counts of a check: its score, or only whether it passed."
    )
    whole: float = option(0.5, "Share of the reward for passing every check, in [0, 1].")
    weight: tuple[str, ...] = option(
        (), "Weight of a check in the rest, 1 by default; repeatable.", metavar="NAME=NUMBER"
    )
    held_out_check: tuple[str, ...] = option(
        (), "A check that is measured but gives no reward; repeatable.", metavar="NAME"
    )
    reward: tuple[str, ...] = option(
        (),
        "Another reward: a function in a file beside the job; repeatable.",
        metavar="MODULE:NAME",
    )
    hold_out: float = option(0.1, "Share of the items to evaluate on, never learned from.")
    texts: tuple[Path, ...] = option(
        (),
        "Texts whose loss is added, so that the model does not unlearn them: JSONL rows as of "
        "train text; repeatable.",
        metavar="FILE",
    )
    texts_context: int = option(1024, "Token limit of each of --texts.")
    weights: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, lora_rank=self.lora_rank)
        require_at_least(2, texts_context=self.texts_context)
        require(0 <= self.whole <= 1, "whole", "in [0, 1]", self.whole)
        require(0 <= self.hold_out < 1, "hold_out", "in [0, 1)", self.hold_out)
        self.check_weights()

    def check_weights(self) -> dict[str, float]:
        """Return the weights of checks by name. Raises `InputError` for another spelling."""
        found = {}
        for text in self.weight:
            name, _, number = text.rpartition("=")
            try:
                value = float(number)
            except ValueError:
                value = math.nan
            fits = bool(name) and math.isfinite(value) and value >= 0
            require(fits, "weight", "NAME=NUMBER with a number of 0 or more", text)
            found[name] = value
        return found

    def placed(self) -> Self:
        """Return the configuration for a record: what it reads by absolute paths."""
        from ostinato.models import adapter_place, model_place

        return replace(
            self,
            job=self.job.absolute(),
            input=None if self.input is None else self.input.absolute(),
            texts=tuple(path.absolute() for path in self.texts),
            model=model_place(self.model) if self.model else "",
            adapter=adapter_place(self.adapter) if self.adapter else "",
        )

    def trusted(self) -> list[str]:
        """Name the functions of the job's checks, and those that are rewards."""
        from ostinato.refine import python_checks

        calls = [*python_checks(self.job), *self.reward]
        return [f"calls the function {call}" for call in calls]


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig(TrainingConfig):
    """How a language model learns from pairs of a better and a worse text."""

    steps: int = option(
        200, "Steps of the learning-rate schedule; also the limit if no other condition is given."
    )
    lr: float = option(2e-4, "Peak learning rate.")
    valid_every: int = option(20, "Steps between validations.")


@dataclass(frozen=True, kw_only=True)
class PreferenceRun(TrainingRun):
    """A language model trained on preferences; `weights` is a hash of the model at the start."""

    kind: ClassVar[str] = "train preferences"
    prepare: ClassVar[str] = "ostinato.reward:prepare_preferences"
    free: ClassVar[frozenset[str]] = TrainingRun.free | {"files"}
    hashes: ClassVar[frozenset[str]] = TrainingRun.hashes | {"weights"}

    files: tuple[Path, ...] = argument("FILES...")
    training: PreferenceConfig = PreferenceConfig()
    start: Place = option("smollm2", "Model to tune.", flag="--from", metavar="MODEL")
    adapter: Place = option("", "Adapter to start from.  [default: a new one]")
    lora_rank: int = option(16, "Rank of a new adapter; 0: train all weights.")
    beta: float = option(
        0.1, "Strength of the pull toward the initial model; lower lets it move farther."
    )
    anchor: float = option(
        0.0, "Weight of the better text's own loss, which keeps its probability up (RPO)."
    )
    context: int = option(1024, "Tokens per text with its prompt; longer ones are left out.")
    device: str = option("cpu", "Where to compute: cpu, cuda or cuda:N.")
    weights: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, lora_rank=self.lora_rank, anchor=self.anchor)
        require_at_least(2, context=self.context)
        require_above(0, beta=self.beta)

    def placed(self) -> Self:
        """Return the configuration for a record: what it reads by absolute paths."""
        from ostinato.models import adapter_place, model_place

        return replace(
            self,
            files=tuple(path.absolute() for path in self.files),
            start=model_place(self.start),
            adapter=adapter_place(self.adapter) if self.adapter else "",
        )
