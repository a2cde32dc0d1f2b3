"""DenoisePipeline: images by a pipeline of `diffusers`, many side by side, one solver step a step.

The lane process of pipelines, as `ostinato.image.Denoise` is that of our own networks: here the
noise levels, the solver and its history are those of the folder's scheduler, one copy for a lane.
The network runs on one sample at a time, whoever else is there: a fixed shape, so that company
changes no bit, whatever the network is made of.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ostinato.errors import EditError, InputError, ItemError
from ostinato.image import ALL_STEPS, pixels, sample_images
from ostinato.image.pipelines.families import PipelineFamily
from ostinato.image.pipelines.folder import load_pipeline
from ostinato.image.pipelines.inputs import PipelineInputs, as_pipeline_inputs, check_guidance
from ostinato.image.pipelines.scheduler_state import SchedulerState
from ostinato.loop import Check, Condition, Lane, Loop, OnStop, Report, accept, fold_in

WORDS = ("prompt", "negative_prompt", "guidance")
KNOWN = (*WORDS, "renoise")


@dataclass(slots=True)
class _PipelineSlot:
    """A lane in its slot; `stands[p]` is where it stood at position p, `cleans[p]` what it saw."""

    lane: Lane
    item: PipelineInputs
    shape: tuple[int, int, int]
    base: Any  # the scheduler, set for the item's steps and never stepped
    stands: list[SchedulerState] = field(default_factory=list)
    cleans: list[Tensor] = field(default_factory=list)


class DenoisePipeline:
    """Draw images with a pipeline; every lane one step of the pipeline's scheduler a step.

    `steps` and `guidance` hold where an item has none (default: those of the pipeline's own call).
    An item is a `PipelineInputs`, a mapping of its fields, a text (its prompt), or None without words.
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
    the network; `backtracks` of the lane; `ended` after the last step.
    """

    deterministic = True

    def __init__(
        self,
        family: PipelineFamily,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        slots: int = 16,
        decode: bool = False,
    ) -> None:
        if slots < 1:
            raise InputError(f"slots must be at least 1, got {slots}.")
        if guidance is not None and not family.worded:
            raise InputError("guidance must be left out: the pipeline makes images without words.")
        self.slots = slots
        self.family = family
        self.default = PipelineInputs(steps=steps or family.steps, guidance=guidance)
        self._decode = decode
        self._slots: dict[str, _PipelineSlot] = {}

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a place: at noise, or where its past ended."""
        wanted = as_pipeline_inputs(item)
        self.family.check_item(wanted)
        shape = self.family.latent_shape(wanted)
        base = copy.deepcopy(self.family.pipeline.scheduler)
        try:
            self.family.set_timesteps(base, wanted.steps or self.default.steps or 1, shape)
        except ValueError as error:
            raise InputError(f"The scheduler cannot take these steps: {error}") from None
        slot = _PipelineSlot(lane, wanted, shape, base)
        self._at(slot, 0)
        backtracks = [*map(_backtracks, lane.past), lane.backtracks]
        slot.stands.append(self._begin(slot, backtracks[0]))
        for report, each in zip(lane.past, backtracks, strict=False):
            self._renoise(slot, each)
            self._repeat(slot, report)
        self._renoise(slot, backtracks[-1])
        self._slots[lane.key] = slot

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring the lane back to a position: its latent and its solver's history are kept."""
        slot = self._slots[lane.key]
        self._at(replace(slot, lane=lane), to)  # an unknown edit is refused before anything changes
        slot.lane = lane
        del slot.stands[to + 1 :], slot.cleans[to:]
        if to == 0:
            slot.stands[0] = self._begin(slot, lane.backtracks)
        self._renoise(slot, lane.backtracks)

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        del self._slots[key]

    @torch.no_grad()
    def output(self, key: str) -> Tensor:
        """Return the image (C, height, width) in [-1, 1]: what is predicted, decoded.

        After the last step it is what is left of the noise, as the pipeline's own call returns it.
        """
        slot = self._slots[key]
        done = slot.stands[-1].last or not slot.cleans
        latent = slot.stands[-1].noisy[0] if done else slot.cleans[-1]
        return self.family.decode(latent)

    # A step -----------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self) -> Mapping[str, Report]:
        """Take the next step of every lane that has not ended."""
        slots = [slot for slot in self._slots.values() if not slot.stands[-1].last]
        return {slot.lane.key: self._step(slot) for slot in slots}

    def _step(self, slot: _PipelineSlot) -> Report:
        settings = self._at(slot, slot.stands[-1].position)
        stand, x = slot.stands[-1].scaled()
        guidance = self._guidance(settings)
        prediction = self._predict(x, stand.timestep, settings.prompt, guidance)
        calls = 1
        if self.family.uses_guidance(guidance):
            without = self._predict(x, stand.timestep, settings.negative_prompt or "", guidance)
            prediction = without + guidance * (prediction - without)
            calls = 2
        lane = slot.lane
        after, clean = stand.step(
            prediction, self._draws(slot, "step", lane.backtracks, stand.position)
        )
        last = slot.cleans[-1] if slot.cleans else torch.zeros_like(clean[0])
        slot.stands.append(after)
        slot.cleans.append(clean[0])
        self._renoise(slot, lane.backtracks)  # an edit of a later position has waited for it
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
            "backtracks": lane.backtracks,
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

    def _repeat(self, slot: _PipelineSlot, report: Report) -> None:
        """Take a step of the past again: its prediction is known, the network is not run."""
        stand, _ = slot.stands[-1].scaled()
        prediction = self._in(report["prediction"])
        after, _ = stand.step(prediction, 0)  # what it draws is replaced by what was drawn
        slot.stands.append(replace(after, noisy=self._in(report["noisy"])))
        slot.cleans.append(self._in(report["clean"])[0])

    def _in(self, value: object) -> Tensor:
        return torch.as_tensor(value).clone().to(self.family.device)[None]

    # Noise ------------------------------------------------------------------------------------

    def _begin(self, slot: _PipelineSlot, backtracks: int) -> SchedulerState:
        """Return where a lane begins: at noise."""
        dice = torch.Generator().manual_seed(self._draws(slot, "begin", backtracks, 0))
        noise = torch.randn((1, *slot.shape), generator=dice, dtype=self.family.dtype)
        scheduler = copy.deepcopy(slot.base)
        return SchedulerState(
            0, self.family.begin(scheduler, noise.to(self.family.device)), scheduler
        )

    @torch.no_grad()
    def _renoise(self, slot: _PipelineSlot, backtracks: int) -> None:
        """Apply the last `renoise` of the position where the lane stands."""
        stand = slot.stands[-1]
        images = [
            edits["renoise"]
            for at, edits in slot.lane.edits
            if at == stand.position and "renoise" in edits
        ]
        if images and not stand.last:
            image = pixels(images[-1], self.family.image_shape(slot.shape), "renoise")
            latent = self.family.encode_image(image.to(self.family.device))
            latent = latent[None].to(self.family.dtype)
            draws = self._draws(slot, "renoise", backtracks, stand.position)
            if stand.position % getattr(slot.base, "order", 1):
                slot.stands[-1] = slot.stands[-2].halfway(slot.base, latent, draws)
            else:
                slot.stands[-1] = stand.renoised(slot.base, latent, draws)

    def _draws(self, slot: _PipelineSlot, use: str, backtracks: int, position: int) -> int:
        """Return the seed of what is drawn at a place."""
        lane, seed = slot.lane, slot.item.seed
        source = (lane.seed, lane.key) if seed is None else (seed, "")
        return fold_in(*source, use, lane.round, backtracks, position)

    # Settings ---------------------------------------------------------------------------------

    def _guidance(self, settings: PipelineInputs) -> float:
        for value in (settings.guidance, self.default.guidance):
            if value is not None:
                return float(value)
        return self.family.guidance

    def _at(self, slot: _PipelineSlot, position: int) -> PipelineInputs:
        """Return the item as it is at a position. Raises `EditError` for what is not known."""
        settings = slot.item
        for at, edits in slot.lane.edits:
            for name, value in edits.items():
                if name == "renoise":
                    self._check_renoise(slot, value)
                    continue
                changed = self._edited(settings, name, value)
                settings = changed if at <= position else settings
        return settings

    def _check_renoise(self, slot: _PipelineSlot, image: object) -> None:
        try:
            pixels(image, self.family.image_shape(slot.shape), "renoise")
        except (InputError, ItemError) as error:
            raise EditError(str(error)) from None

    def _edited(self, settings: PipelineInputs, name: str, value: object) -> PipelineInputs:
        if name not in KNOWN:
            raise EditError(f"Unknown edit {name!r} of a pipeline. Known: {', '.join(KNOWN)}.")
        if not self.family.worded:
            raise EditError(f"{name} cannot be edited: the pipeline makes images without words.")
        try:
            if name == "guidance":
                value = check_guidance(value)
            changed: PipelineInputs = replace(settings, **{name: value})  # type: ignore[arg-type]
            self.family.check_item(changed)
        except (InputError, ItemError) as error:
            raise EditError(str(error)) from None
        return changed


def _backtracks(report: Report) -> int:
    backtracks = report["backtracks"]
    assert isinstance(backtracks, int)
    return backtracks


def _out(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().contiguous().cpu()


def pipeline_loop(
    items: Sequence[object],
    *,
    pipeline: PipelineFamily | str,
    each: Condition = ALL_STEPS,
    checks: Sequence[Check] = (),
    on_stop: OnStop = accept,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    slots: int | None = None,
    decode: bool = False,
    **loop: Any,
) -> Loop:
    """Return the loop that draws one image for every item, side by side.

    An item is a text (its prompt), a `PipelineInputs`, a mapping of its fields, or None where the
    pipeline takes no words. `each` ends an image before its last step, such as
    `Converges("change", 0.01)`; `checks` judge it, and `on_stop` answers where it fails.
    `decode` adds the predicted `image` to every report. `loop` goes to `Loop`, as `run` and
    `until`. The row's `output` is a tensor (C, H, W) in [-1, 1].
    """
    if not items:
        raise InputError("There must be at least one item, got none.")
    family = pipeline if isinstance(pipeline, PipelineFamily) else load_pipeline(pipeline)
    process = DenoisePipeline(
        family, steps=steps, guidance=guidance, slots=slots or min(len(items), 16), decode=decode
    )
    values = [asdict(as_pipeline_inputs(item)) for item in items]
    return sample_images(process, values, dict, each, checks, on_stop, seed, **loop)
