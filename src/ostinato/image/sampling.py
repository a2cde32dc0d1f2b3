"""Draw images: the loop over pictures, ready to be iterated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from torch import Tensor

from ostinato.checks import judge_all
from ostinato.errors import InputError
from ostinato.image.denoise import Denoise
from ostinato.image.fixed_batches import Denoiser
from ostinato.image.image_request import ImageRequest
from ostinato.image.solvers import Solver
from ostinato.image.unet import load_denoiser
from ostinato.journal import Stopped
from ostinato.loop import (
    Accept,
    Action,
    Check,
    Condition,
    GiveUp,
    GoBack,
    History,
    LaneProcess,
    Lanes,
    Loop,
    OnStop,
    StartOver,
    Steps,
    Verdict,
    accept,
    content_keys,
)

Item = TypeVar("Item")

ALL_STEPS = Steps(1 << 62)
"""Where an image ends that nothing else ends: with its last noise level."""


def denoise_loop(
    pictures: Sequence[ImageRequest | int | None],
    *,
    model: Denoiser | str = "digits",
    each: Condition = ALL_STEPS,
    checks: Sequence[Check] = (),
    on_stop: OnStop = accept,
    steps: int = 20,
    solver: str | Solver = "dpmpp_2m",
    guidance: float = 1.0,
    guidance_interval: tuple[float, float] = (0.0, math.inf),
    sigmas: Sequence[float] | None = None,
    seed: int = 0,
    slots: int | None = None,
    **loop: Any,
) -> Loop:
    """Return the loop that draws one image for every picture, side by side.

    A picture is a `ImageRequest`, a class or None. `each` ends an image before its last step, such as
    `Converges("change", 0.01)`; `checks` judge it, and `on_stop` answers where it fails, such as
    `Renoise()`. `loop` goes to `Loop`, as `run` and `until`. The images are in `step.results`: the
    row's `output` is a tensor (C, H, W) in [-1, 1].
    """
    if not pictures:
        raise InputError("There must be at least one picture, got none.")
    network = load_denoiser(model) if isinstance(model, str) else model
    process = Denoise(
        network,
        steps=steps,
        solver=solver,
        guidance=guidance,
        guidance_interval=guidance_interval,
        sigmas=sigmas,
        slots=slots or min(len(pictures), 16),
    )
    items = [ImageRequest.of(picture) for picture in pictures]
    return sample_images(process, items, ImageRequest.to_json, each, checks, on_stop, seed, **loop)


def sample_images(
    process: LaneProcess,
    items: Sequence[Item],
    columns: Callable[[Item], Mapping[str, object]],
    each: Condition,
    checks: Sequence[Check],
    on_stop: OnStop,
    seed: int,
    **loop: Any,
) -> Loop:
    """Return the loop that takes items through a process.

    `columns` gives an item's fields: its key is made of them, and checks see them.
    """

    def judge(output: object, item: Any) -> Sequence[Verdict]:
        return judge_all(checks, output, columns(item))

    lanes = Lanes(
        process,
        list(zip(content_keys(columns(item) for item in items), items, strict=True)),
        each=each,
        judge=judge if checks else None,
        on_stop=on_stop,
        seed=seed,
        edited=edited,
    )
    loop.setdefault("until", ALL_STEPS)
    return Loop(lanes, **loop)


def edited(item: Any, edits: Mapping[str, object]) -> object:
    """Return an item with the edits that name a part of it."""
    if isinstance(item, Mapping):
        return {**item, **edits}
    known = {spec.name for spec in fields(item)}
    return replace(item, **{name: value for name, value in edits.items() if name in known})


@dataclass(frozen=True, kw_only=True)
class Renoise:
    """A strategy: go back as far as the failure needs, with new noise on the image (SDEdit, Meng et
    al. 2022); an image that fails again goes back further, and from pure noise at last.

    `share` is the part of the steps that is taken again first, and is added each time; `rounds`
    how often an image is begun at most, pure noise counted.
    """

    share: float = 0.4
    rounds: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"share must be above 0 and at most 1, got {self.share}.")
        if self.rounds < 1:
            raise InputError(f"rounds must be at least 1, got {self.rounds}.")

    def __call__(self, stopped: Stopped, history: History) -> Action:
        """Answer a stop: what converged or ended without checks is accepted."""
        if stopped.good or stopped.kind not in ("failed", "diverged"):
            return Accept()
        backs = history.backtracks(round=history.lane.round)
        again = math.ceil(history.position * self.share * (backs + 1))
        if again < history.position and isinstance(history.output, Tensor):
            edits = {"renoise": history.output}
            return GoBack(history.position - again, edits, stopped.sentence)
        if history.lane.round + 1 < self.rounds:
            return StartOver({}, stopped.sentence)
        return GiveUp(f"It was begun {self.rounds} times.")
