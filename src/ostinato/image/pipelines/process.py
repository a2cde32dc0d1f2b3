"""DenoisePipeline: images by a pipeline of `diffusers`, one scheduler step a step.

The lane process of pipelines, as `ostinato.image.Denoise` is that of our own networks. Noise
levels, solver and its history are those of the folder's scheduler, one copy for each lane. The
network always runs on one sample: a fixed shape, which makes it batch-invariant whatever its layers
are. Knows no layout of a pipeline.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ostinato.arguments import require_at_least
from ostinato.errors import EditError, InputError, ItemError
from ostinato.image import pixels, sample_images
from ostinato.image.pipelines.families import PipelineFamily
from ostinato.image.pipelines.folder import load_pipeline
from ostinato.image.pipelines.inputs import PipelineInputs, as_pipeline_inputs, check_guidance
from ostinato.image.pipelines.scheduler_state import SchedulerState
from ostinato.journal import EditKind
from ostinato.loop import Check, Condition, Lane, Loop, Never, OnStop, Report, accept, fold_in
from ostinato.media import to_bytes

EDITS: Mapping[str, EditKind] = {
    "prompt": "text",
    "negative_prompt": "text",
    "guidance": "number",
    "renoise": "any",
}
SETTINGS = EDITS.keys() - {"renoise"}


@dataclass(slots=True)
class _PipelineSlot:
    """A lane in its slot: `states[p]` is its state at position p, `denoised[p]` its prediction.

    `states` has one entry more than `denoised`: where the lane is now has no prediction yet.
    """

    lane: Lane
    item: PipelineInputs
    shape: tuple[int, int, int]
    base: Any  # the scheduler, set for the item's steps and never stepped
    states: list[SchedulerState] = field(default_factory=list)
    denoised: list[Tensor] = field(default_factory=list)


class DenoisePipeline:
    """Sample images with a pipeline; every lane takes one step of its scheduler a step.

    `steps` and `guidance` are the defaults of items that have none; without them, the defaults of
    the pipeline's own call hold. An item is a `PipelineInputs`, a mapping of its fields, a text
    (its prompt), or None for an unconditional pipeline. With `decode` the reports carry the decoded
    `image` of the prediction, as pixels of 8 bits (C, height, width). A scheduler of two halves to
    a step (Heun) takes a step of the lane for each half.

    Edits: `prompt`, `negative_prompt` and `guidance` hold from their position on. `renoise` (an
    image) replaces the latent by that image with fresh noise, when the lane is at its position
    (SDEdit, Meng et al. 2022). Between the two halves of a step, the first half then counts as
    having predicted that image.

    Reports: `step` (from 1) and `steps`; `timestep` and `sigma` of the level before the step (the
    noise beside a clean image of 1; in flow matching the share of noise). `noisy` (the latent after
    the step), `clean` (the predicted clean latent) and `prediction` (the network's, guided) are
    each (C, H, W). `change` is the root mean square change of `clean`; `calls` counts those of the
    network; `backtracks` are the lane's; `ended` follows the last step.
    """

    known_edits = EDITS
    costs = ("calls",)
    deterministic = True  # the shape of every product is that of one sample

    def __init__(
        self,
        family: PipelineFamily,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        slots: int = 16,
        decode: bool = False,
    ) -> None:
        require_at_least(1, slots=slots)
        if guidance is not None and not family.text_to_image:
            raise InputError(
                f"guidance must be left out: the pipeline is unconditional, got {guidance}."
            )
        self.slots = slots
        self.family = family
        self.default = PipelineInputs(
            steps=family.steps if steps is None else steps, guidance=guidance
        )
        self._decode = decode
        self._slots: dict[str, _PipelineSlot] = {}

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a slot: at noise, or where its past ended."""
        inputs = as_pipeline_inputs(item)
        self.family.check_item(inputs)
        shape = self.family.latent_shape(inputs)
        # A copy: `set_timesteps` changes the scheduler, and lanes may differ in their steps.
        base = copy.deepcopy(self.family.pipeline.scheduler)
        try:
            self.family.set_timesteps(base, inputs.steps or self.default.steps or 1, shape)
        except ValueError as error:
            error_type = InputError if inputs.steps is None else ItemError  # whose steps they are
            raise error_type(f"The scheduler cannot take these steps: {error}") from None
        slot = _PipelineSlot(lane, inputs, shape, base)
        self._check_edits(slot, lane)
        # Noise depends on the number of backtracks when it was sampled, which the reports hold.
        backtracks = [*map(_backtracks, lane.past), lane.backtracks]
        slot.states.append(self._initial_state(slot, backtracks[0]))
        for report, each in zip(lane.past, backtracks, strict=False):
            self._renoise(slot, each)
            self._replay(slot, report, each)
        self._renoise(slot, backtracks[-1])
        self._slots[lane.key] = slot

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring the lane back to a position: its latent and its solver's history are kept."""
        slot = self._slots[lane.key]
        self._check_edits(slot, lane)  # before anything changes
        slot.lane = lane
        del slot.states[to + 1 :], slot.denoised[to:]
        if to == 0:  # its noise depends on `lane.backtracks`
            slot.states[0] = self._initial_state(slot, lane.backtracks)
        self._renoise(slot, lane.backtracks)

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        del self._slots[key]

    @torch.no_grad()
    def output(self, key: str) -> Tensor:
        """Return the decoded clean prediction (C, height, width) in [-1, 1].

        After the last step it is the latent itself, decoded, as the pipeline's own call returns it.
        """
        slot = self._slots[key]
        state = slot.states[-1]
        latent = state.noisy[0] if state.finished or not slot.denoised else slot.denoised[-1]
        return self.family.decode(latent)

    # A step -----------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self) -> Mapping[str, Report]:
        """Take the next step of every lane that has not ended."""
        slots = [slot for slot in self._slots.values() if not slot.states[-1].finished]
        return {slot.lane.key: self._step(slot) for slot in slots}

    def _step(self, slot: _PipelineSlot) -> Report:
        settings = self._settings_at(slot, slot.states[-1].position)
        state, x = slot.states[-1].scaled()
        prediction, calls = self._guided(x, state.timestep, settings)
        backtracks = slot.lane.backtracks
        seed = self._noise_seed(slot, "step", backtracks, state.position)
        after, denoised = state.step(prediction, seed)
        old = slot.denoised[-1] if slot.denoised else torch.zeros_like(denoised[0])
        slot.states.append(after)
        slot.denoised.append(denoised[0])
        self._renoise(slot, backtracks)  # an edit of this position may have waited for it
        report: dict[str, object] = {
            "step": after.position,
            "steps": len(state.scheduler.timesteps),
            "timestep": float(state.timestep),
            "sigma": state.sigma(),
            "noisy": _recorded(after.noisy[0]),
            "clean": _recorded(denoised[0]),
            "prediction": _recorded(prediction[0]),
            "change": math.sqrt(float((denoised[0] - old).square().mean())),
            "calls": calls,
            "backtracks": backtracks,
        }
        if self._decode:
            report["image"] = _recorded(to_bytes(self.family.decode(denoised[0])))
        if after.finished:
            report["ended"] = f"All {after.position} steps of the scheduler are done."
        return report

    def _guided(self, x: Tensor, t: Tensor, settings: PipelineInputs) -> tuple[Tensor, int]:
        """Return the network's prediction (1, C, H, W) with guidance, and the number of calls."""
        guidance = self._guidance(settings)
        prediction = self._predict(x, t, settings.prompt, guidance)
        if not self.family.uses_guidance(guidance):
            return prediction, 1
        # Two calls, not one batch of two: the shape is fixed to one sample.
        negative = self._predict(x, t, settings.negative_prompt or "", guidance)
        return negative + guidance * (prediction - negative), 2

    def _predict(self, x: Tensor, t: Tensor, text: str | None, guidance: float) -> Tensor:
        """Run the network on one latent (1, C, H, W) and one text."""
        embedding = self.family.encode(text or "") if self.family.text_to_image else {}
        scale = torch.full((1,), guidance, device=x.device)
        return self.family.predict(x, t.reshape(1).to(x.device), embedding, scale)

    def _replay(self, slot: _PipelineSlot, report: Report, backtracks: int) -> None:
        """Take a recorded step again without the network: its prediction is in the report.

        The scheduler's step is needed for its history: of predictions, or of its noise (SDE).
        """
        state, _ = slot.states[-1].scaled()
        seed = self._noise_seed(slot, "step", backtracks, state.position)
        after, _ = state.step(self._loaded(report["prediction"]), seed)
        slot.states.append(replace(after, noisy=self._loaded(report["noisy"])))
        slot.denoised.append(self._loaded(report["clean"])[0])

    def _loaded(self, value: object) -> Tensor:
        return torch.as_tensor(value).clone().to(self.family.device)[None]  # (1, C, H, W)

    # Noise ------------------------------------------------------------------------------------

    def _initial_state(self, slot: _PipelineSlot, backtracks: int) -> SchedulerState:
        """Return the state at position 0: noise."""
        # On the CPU: a GPU's generator yields other numbers for the same seed.
        generator = torch.Generator().manual_seed(self._noise_seed(slot, "begin", backtracks, 0))
        noise = torch.randn((1, *slot.shape), generator=generator, dtype=self.family.dtype)
        scheduler = copy.deepcopy(slot.base)
        latent = self.family.initial_latent(scheduler, noise.to(self.family.device))
        return SchedulerState(0, latent, scheduler, self.family.scheduler_calls)

    @torch.no_grad()
    def _renoise(self, slot: _PipelineSlot, backtracks: int) -> None:
        """Apply the last `renoise` of the lane's current position."""
        state = slot.states[-1]
        given = slot.lane.edits.newest_at(state.position, "renoise")
        if given is not None and not state.finished:
            image = pixels(given, self.family.image_shape(slot.shape), "renoise")
            latent = self.family.encode_image(image.to(self.family.device))
            latent = latent[None].to(self.family.dtype)
            seed = self._noise_seed(slot, "renoise", backtracks, state.position)
            if state.position % getattr(slot.base, "order", 1):  # between the halves of a step
                slot.states[-1] = slot.states[-2].halfway(slot.base, latent, seed)
            else:
                slot.states[-1] = state.renoised(slot.base, latent, seed)

    def _noise_seed(self, slot: _PipelineSlot, use: str, backtracks: int, position: int) -> int:
        """Return the seed of the noise for a use at a position."""
        lane, seed = slot.lane, slot.item.seed
        source = (lane.seed, lane.key) if seed is None else (seed, "")
        return fold_in(*source, use, lane.round, backtracks, position)

    # Settings ---------------------------------------------------------------------------------

    def _guidance(self, settings: PipelineInputs) -> float:
        for value in (settings.guidance, self.default.guidance):
            if value is not None:
                return float(value)
        return self.family.guidance

    def _settings_at(self, slot: _PipelineSlot, position: int) -> PipelineInputs:
        """Return the item with the edits in force at a position."""
        edits = slot.lane.edits.in_force(position, SETTINGS)
        return replace(slot.item, **edits) if edits else slot.item

    def _check_edits(self, slot: _PipelineSlot, lane: Lane) -> None:
        def check(name: str, value: object) -> None:
            if name == "renoise":
                pixels(value, self.family.image_shape(slot.shape), name)
            elif not self.family.text_to_image:
                raise EditError(f"{name} cannot be edited: the pipeline is unconditional.")
            else:
                checked = check_guidance(value) if name == "guidance" else value
                changed: PipelineInputs = replace(slot.item, **{name: checked})  # type: ignore[arg-type]
                self.family.check_item(changed)

        lane.edits.check("a lane of a pipeline", EDITS, check)


def _backtracks(report: Report) -> int:
    backtracks = report["backtracks"]
    assert isinstance(backtracks, int)
    return backtracks


def _recorded(tensor: Tensor) -> Tensor:
    """Return a copy for a report: what is recorded must not change with the lane."""
    return tensor.detach().clone().contiguous().cpu()


def pipeline_loop(
    items: Sequence[object],
    *,
    pipeline: PipelineFamily | str,
    each: Condition = Never(),
    checks: Sequence[Check] = (),
    on_stop: OnStop = accept,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    slots: int | None = None,
    decode: bool = False,
    **loop: Any,
) -> Loop:
    """Return the loop that samples one image for every item, in `slots` lanes.

    An item is a text (its prompt), a `PipelineInputs`, a mapping of its fields, or None for an
    unconditional pipeline. `each` ends an image before its last step, such as
    `Converges("change", 0.01)`. `checks` judge it, and `on_stop` answers where it fails. `decode`
    adds the predicted `image` to every report. `loop` holds arguments of `Loop`, such as `run` and
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
