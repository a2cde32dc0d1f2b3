"""DenoisePipeline: images by a pipeline of `diffusers`, many side by side, one solver step a step.

The lane process of pipelines, as `ostinato.image.Denoise` is that of our own networks: here the
noise levels, the solver and its history are those of the folder's scheduler, one copy for a lane.
The network runs on one sample at a time, whoever else is there: a fixed shape, so that company
changes no bit, whatever the network is made of.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ostinato.errors import EditError, InputError, ItemError
from ostinato.image.picture import pixels
from ostinato.image.pipelines.families import Family
from ostinato.image.pipelines.prompted import Prompted, as_prompted, check_guidance
from ostinato.image.pipelines.schedule import Stand
from ostinato.loop import Lane, Report, derive

WORDS = ("prompt", "negative_prompt", "guidance")
KNOWN = (*WORDS, "renoise")


@dataclass(slots=True)
class _Seat:
    """A lane at its place; `stands[p]` is where it stood at position p, `cleans[p]` what it saw."""

    lane: Lane
    item: Prompted
    shape: tuple[int, int, int]
    base: Any  # the scheduler, set for the item's steps and never stepped
    stands: list[Stand] = field(default_factory=list)
    cleans: list[Tensor] = field(default_factory=list)


class DenoisePipeline:
    """Draw images with a pipeline; every lane one step of the pipeline's scheduler a step.

    `steps` and `guidance` hold where an item has none (default: those of the pipeline's own call).
    An item is a `Prompted`, a mapping of its fields, a text (its prompt), or None without words.
    With `decode` the reports carry the `image` that is predicted, decoded: (C, height, width) in
    [-1, 1]. A scheduler with two halves to a step (Heun) takes a step of its own for each.

    Edits: `prompt`, `negative_prompt` and `guidance` hold from their position on; `renoise` (an
    image) puts that image with fresh noise in the place of the latent when the lane stands at its
    position (SDEdit, Meng et al. 2022); between the two halves of a step, the first half is taken
    as having predicted that image.

    Reports: `step` (from 1) and `steps`, `timestep` and `sigma` (the noise beside a clean image of
    1; in flow matching the share of noise) of the level that is left, `noisy` (the latent after
    the step), `clean` (the clean latent that is predicted), `prediction` (the network's, guided),
    each (C, H, W); `change`, the root mean square by which the clean prediction moved; `calls` of
    the network; `tries` of the lane; `ended` after the last step.
    """

    repeats = True

    def __init__(
        self,
        family: Family,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        places: int = 16,
        decode: bool = False,
    ) -> None:
        if places < 1:
            raise InputError(f"places must be at least 1, got {places}.")
        if guidance is not None and not family.worded:
            raise InputError("guidance must be left out: the pipeline makes images without words.")
        self.capacity = places
        self.family = family
        self.default = Prompted(steps=steps or family.steps, guidance=guidance)
        self._decode = decode
        self._seats: dict[str, _Seat] = {}

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a place: at noise, or where its past ended."""
        wanted = as_prompted(item)
        self.family.check_item(wanted)
        shape = self.family.latent_shape(wanted)
        base = copy.deepcopy(self.family.pipeline.scheduler)
        try:
            self.family.set_timesteps(base, wanted.steps or self.default.steps or 1, shape)
        except ValueError as error:
            raise InputError(f"The scheduler cannot take these steps: {error}") from None
        seat = _Seat(lane, wanted, shape, base)
        self._at(seat, 0)
        tries = [*map(_tries, lane.past), lane.tries]
        seat.stands.append(self._begin(seat, tries[0]))
        for report, each in zip(lane.past, tries, strict=False):
            self._renoise(seat, each)
            self._repeat(seat, report)
        self._renoise(seat, tries[-1])
        self._seats[lane.key] = seat

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring the lane back to a position: its latent and its solver's history are kept."""
        seat = self._seats[lane.key]
        self._at(replace(seat, lane=lane), to)  # an unknown edit is refused before anything changes
        seat.lane = lane
        del seat.stands[to + 1 :], seat.cleans[to:]
        if to == 0:
            seat.stands[0] = self._begin(seat, lane.tries)
        self._renoise(seat, lane.tries)

    def drop(self, key: str) -> None:
        """Free the lane's place."""
        del self._seats[key]

    @torch.no_grad()
    def output(self, key: str) -> Tensor:
        """Return the image (C, height, width) in [-1, 1]: what is predicted, decoded.

        After the last step it is what is left of the noise, as the pipeline's own call returns it.
        """
        seat = self._seats[key]
        done = seat.stands[-1].last or not seat.cleans
        latent = seat.stands[-1].noisy[0] if done else seat.cleans[-1]
        return self.family.decode(latent)

    # A step -----------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self) -> Mapping[str, Report]:
        """Take the next step of every lane that has not ended."""
        seats = [seat for seat in self._seats.values() if not seat.stands[-1].last]
        return {seat.lane.key: self._step(seat) for seat in seats}

    def _step(self, seat: _Seat) -> Report:
        settings = self._at(seat, seat.stands[-1].position)
        stand, x = seat.stands[-1].scaled()
        guidance = self._guidance(settings)
        prediction = self._predict(x, stand.timestep, settings.prompt, guidance)
        calls = 1
        if self.family.guided(guidance):
            without = self._predict(x, stand.timestep, settings.negative_prompt or "", guidance)
            prediction = without + guidance * (prediction - without)
            calls = 2
        lane = seat.lane
        after, clean = stand.step(prediction, self._draws(seat, "step", lane.tries, stand.position))
        last = seat.cleans[-1] if seat.cleans else torch.zeros_like(clean[0])
        seat.stands.append(after)
        seat.cleans.append(clean[0])
        self._renoise(seat, lane.tries)  # an edit of a later position has waited for it
        report: dict[str, object] = {
            "step": after.position,
            "steps": len(stand.scheduler.timesteps),
            "timestep": float(stand.timestep),
            "sigma": stand.sigma(),
            "noisy": _out(after.noisy[0]),
            "clean": _out(clean[0]),
            "prediction": _out(prediction[0]),
            "change": math.sqrt(float((clean[0] - last).square().mean())),
            "calls": calls,
            "tries": lane.tries,
        }
        if self._decode:
            report["image"] = _out(self.family.decode(clean[0]))
        if after.last:
            report["ended"] = f"All {after.position} steps of the scheduler are done."
        return report

    def _predict(self, x: Tensor, t: Tensor, text: str | None, guidance: float) -> Tensor:
        """Run the network on one latent (1, C, H, W), told by one text."""
        words = self.family.encode(text or "") if self.family.worded else {}
        told = torch.full((1,), guidance, device=x.device)
        return self.family.predict(x, t.reshape(1).to(x.device), words, told)

    def _repeat(self, seat: _Seat, report: Report) -> None:
        """Take a step of the past again: its prediction is known, the network is not run."""
        stand, _ = seat.stands[-1].scaled()
        prediction = self._in(report["prediction"])
        after, _ = stand.step(prediction, 0)  # what it draws is replaced by what was drawn
        seat.stands.append(replace(after, noisy=self._in(report["noisy"])))
        seat.cleans.append(self._in(report["clean"])[0])

    def _in(self, value: object) -> Tensor:
        return torch.as_tensor(value).clone().to(self.family.device)[None]

    # Noise ------------------------------------------------------------------------------------

    def _begin(self, seat: _Seat, tries: int) -> Stand:
        """Return where a lane begins: at noise."""
        dice = torch.Generator().manual_seed(self._draws(seat, "begin", tries, 0))
        noise = torch.randn((1, *seat.shape), generator=dice, dtype=self.family.dtype)
        scheduler = copy.deepcopy(seat.base)
        return Stand(0, self.family.begin(scheduler, noise.to(self.family.device)), scheduler)

    @torch.no_grad()
    def _renoise(self, seat: _Seat, tries: int) -> None:
        """Apply the last `renoise` of the position where the lane stands."""
        stand = seat.stands[-1]
        images = [
            edits["renoise"]
            for at, edits in seat.lane.edits
            if at == stand.position and "renoise" in edits
        ]
        if images and not stand.last:
            image = pixels(images[-1], self.family.image_shape(seat.shape), "renoise")
            latent = self.family.encode_image(image.to(self.family.device))
            latent = latent[None].to(self.family.dtype)
            draws = self._draws(seat, "renoise", tries, stand.position)
            if stand.position % getattr(seat.base, "order", 1):
                seat.stands[-1] = seat.stands[-2].halfway(seat.base, latent, draws)
            else:
                seat.stands[-1] = stand.renoised(seat.base, latent, draws)

    def _draws(self, seat: _Seat, use: str, tries: int, position: int) -> int:
        """Return the seed of what is drawn at a place."""
        lane, seed = seat.lane, seat.item.seed
        source = (lane.seed, lane.key) if seed is None else (seed, "")
        return derive(*source, use, lane.round, tries, position)

    # Settings ---------------------------------------------------------------------------------

    def _guidance(self, settings: Prompted) -> float:
        for value in (settings.guidance, self.default.guidance):
            if value is not None:
                return float(value)
        return self.family.guidance

    def _at(self, seat: _Seat, position: int) -> Prompted:
        """Return the item as it is at a position. Raises `EditError` for what is not known."""
        settings = seat.item
        for at, edits in seat.lane.edits:
            for name, value in edits.items():
                if name == "renoise":
                    self._check_renoise(seat, value)
                    continue
                changed = self._edited(settings, name, value)
                settings = changed if at <= position else settings
        return settings

    def _check_renoise(self, seat: _Seat, image: object) -> None:
        try:
            pixels(image, self.family.image_shape(seat.shape), "renoise")
        except (InputError, ItemError) as error:
            raise EditError(str(error)) from None

    def _edited(self, settings: Prompted, name: str, value: object) -> Prompted:
        if name not in KNOWN:
            raise EditError(f"Unknown edit {name!r} of a pipeline. Known: {', '.join(KNOWN)}.")
        if not self.family.worded:
            raise EditError(f"{name} cannot be edited: the pipeline makes images without words.")
        try:
            if name == "guidance":
                value = check_guidance(value)
            changed: Prompted = replace(settings, **{name: value})  # type: ignore[arg-type]
            self.family.check_item(changed)
        except (InputError, ItemError) as error:
            raise EditError(str(error)) from None
        return changed


def _tries(report: Report) -> int:
    tries = report["tries"]
    assert isinstance(tries, int)
    return tries


def _out(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().contiguous().cpu()
