"""The configurations of tuning by reward. Imports no torch: the command line makes options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ostinato.arguments import require, require_above, require_at_least
from ostinato.loop import Condition, Exceeds
from ostinato.train import GradientConfig, option

Method = Literal["grpo", "dr-grpo", "rloo", "expert"]


@dataclass(frozen=True, kw_only=True)
class GroupConfig(GradientConfig):
    """How a language model is tuned by the rewards of groups of its own texts."""

    planned: ClassVar[tuple[str, ...]] = ("steps", "valid_every")

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
    valid_every: int = option(20, "Steps between looks at held-out prompts.")
    kl_coefficient: float = option(
        0.02, "Weight of the divergence (KL) from the model at the start; 0: none."
    )
    entropy_coefficient: float = option(0.0, "Weight of the entropy bonus.")
    clip_range: float = option(0.2, "Clipping of the probability ratio, below 1.")
    clip_range_high: float | None = option(
        None, "Clipping of the ratio above 1.  [default: as --clip-range]"
    )
    overlong: Literal["keep", "mask", "zero"] = option(
        "keep",
        "Texts cut at the token limit: judged as they are, left out of the loss, or reward 0.",
    )
    soft_limit: int | None = option(
        None, "Tokens from which on the reward falls, by up to 1 at the token limit."
    )
    leave_hopeless: bool = option(
        True,
        "With --whole 1: stop writing a text that can no longer pass.",
        flag="--leave-hopeless/--write-hopeless",
    )
    max_copied: float | None = option(
        0.3, "Guard: rise of the share of copied text at which the tuning ends."
    )
    max_bits: float | None = option(
        1.5, "Guard: bits per character under the reference, as a multiple of those at the start."
    )
    max_lost: float | None = option(
        0.2, "Guard: fall of the share of texts that pass the held-out checks."
    )
    seed: int = option(0, "Seed of the prompts' order, the texts and the initial adapter.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, prompts_per_step=self.prompts_per_step)
        require_at_least(1, updates_per_step=self.updates_per_step)
        require_at_least(2, "A group's texts are compared.", group_size=self.group_size)
        require_at_least(
            0, kl_coefficient=self.kl_coefficient, entropy_coefficient=self.entropy_coefficient
        )
        require(0 < self.clip_range < 1, "clip_range", "in (0, 1)", self.clip_range)
        for name in ("clip_range_high", "soft_limit", "max_copied", "max_bits", "max_lost"):
            if (value := getattr(self, name)) is not None:
                require_above(0, **{name: value})

    def steps_per_epoch(self, lengths: Sequence[int]) -> float:
        """Return how many steps a pass over so many prompts takes."""
        return -(-len(lengths) // self.prompts_per_step)

    def guard(self) -> Condition | None:
        """Return the condition that ends a tuning which games its reward; None for no guard."""
        bounds = {"copied/rise": self.max_copied, "bits/ratio": self.max_bits}
        bounds["passed/lost"] = self.max_lost
        found: Condition | None = None
        for name, bound in bounds.items():
            if bound is not None:
                each = Exceeds(name, above=bound)
                found = each if found is None else found | each
        return found
