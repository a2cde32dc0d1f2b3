"""Loops that sample images, and the strategy that noises a failed image again. Knows no network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from torch import Tensor

from ostinato.arguments import require, require_at_least, require_types
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
    Never,
    OnStop,
    Policy,
    StartOver,
    Verdict,
    accept,
    content_keys,
)

Item = TypeVar("Item")


def denoise_loop(
    requests: Sequence[ImageRequest | int | None],
    *,
    model: Denoiser | str = "digits",
    each: Condition = Never(),
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
    """Return the loop that samples one image for every request, in a batch of `slots`.

    A request is an `ImageRequest`, a class or None. `each` ends an image before its last step, such
    as `Converges("change", 0.01)`. `checks` judge it, and `on_stop` answers where it fails, such as
    `Renoise()`. `loop` holds arguments of `Loop`, such as `run` and `until`. The images are in
    `step.results`: the `output` of each is a tensor (C, H, W) in [-1, 1].
    """
    if not requests:
        raise InputError("There must be at least one image request, got none.")
    network = load_denoiser(model) if isinstance(model, str) else model
    process = Denoise(
        network,
        steps=steps,
        solver=solver,
        guidance=guidance,
        guidance_interval=guidance_interval,
        sigmas=sigmas,
        slots=slots or min(len(requests), 16),
    )
    items = [ImageRequest.of(request) for request in requests]
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
    """Return the loop that takes items through any lane process of images.

    `columns` returns an item's fields: its key is a hash of them, and checks see them.
    """

    def judge(output: object, item: Any) -> Sequence[Verdict]:
        return judge_all(checks, output, columns(item))

    lanes = Lanes(
        process,
        # Keys from the content: an image is the same wherever its item is in the list.
        list(zip(content_keys(columns(item) for item in items), items, strict=True)),
        Policy(each=each, judge=judge if checks else None, on_stop=on_stop, edited=edited),
        seed=seed,
    )
    return Loop(lanes, **loop)


def edited(item: Any, edits: Mapping[str, object]) -> object:
    """Return an item with the edits that name one of its fields, for checks to see.

    Without it, an image whose label was edited would be judged by the old label.
    """
    if isinstance(item, Mapping):
        return {**item, **edits}
    known = {spec.name for spec in fields(item)}
    return replace(item, **{name: value for name, value in edits.items() if name in known})


@dataclass(frozen=True, kw_only=True)
class Renoise:
    """A strategy: go back some steps with new noise on the image (SDEdit, Meng et al. 2022).

    The first failure takes `share` of the steps again, each further one `share` more. At last the
    image starts over from pure noise, at most `rounds` times with the first.
    """

    share: float = 0.4
    rounds: int = 3

    def __post_init__(self) -> None:
        require_types(self)
        require(0 < self.share <= 1, "share", "above 0 and at most 1", self.share)
        require_at_least(1, rounds=self.rounds)

    def __call__(self, stopped: Stopped, history: History) -> Action:
        """Answer a stop; an image that converged or ended without failing is accepted."""
        if stopped.good or stopped.kind not in ("failed", "diverged"):
            return Accept()
        backtracks = history.backtracks(round=history.lane.round)
        repeated = math.ceil(history.position * self.share * (backtracks + 1))
        # From position 0 nothing of the image would be left: that is to start over.
        if repeated < history.position and isinstance(history.output, Tensor):
            edits = {"renoise": history.output}
            return GoBack(history.position - repeated, edits, stopped.sentence)
        if history.lane.round + 1 < self.rounds:
            return StartOver({}, stopped.sentence)
        return GiveUp(f"All rounds are used: {self.rounds}.", out_of_rounds=True)
