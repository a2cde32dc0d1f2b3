"""Denoise: images out of noise, many at a time, one solver step a step.

A lane process. Sampling as in Karras et al., "Elucidating the Design Space of Diffusion-Based
Generative Models" (2022), algorithm 1, with the solvers of `ostinato.image.solvers`. Knows noise
levels, classes and guidance; not when to stop, nor what a good image is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from ostinato.arguments import require_at_least
from ostinato.errors import InputError
from ostinato.image.fixed_batches import (
    BLOCK,
    Denoiser,
    fixed_batches,
    is_batch_invariant,
    remembered_self_test,
)
from ostinato.image.image_request import ImageRequest, pixels
from ostinato.image.slot import EDITS, SETTINGS, DenoiseSettings, DenoiseSlot, as_guidance
from ostinato.image.solvers import Solver, heun_step, jump_sigmas, solver_named
from ostinato.image.step_batch import BatchKey, StepBatch
from ostinato.loop import Lane, Report, fold_in


class Denoise:
    """Sample images by denoising; every lane takes one solver step a step.

    `network` predicts clean images (`Denoiser`). `sigmas` are the noise levels, falling to 0; the
    default is `jump_sigmas` with `steps` of them. `guidance` g is classifier-free guidance (Ho and
    Salimans 2022): the prediction is D_none + g (D_class - D_none); 1 is none. It costs a second
    call of the network, and acts at noise levels within `guidance_interval` (Kynkäänniemi et al.
    2024: the middle ones are enough). An item is an `ImageRequest`, a mapping of its fields, or a
    class.

    Edits: `label`, `guidance` and `solver` hold from their position on. `renoise` (an image)
    replaces x by that image with fresh noise, when the lane is at its position (SDEdit, Meng et al.
    2022); a multistep solver starts again there.

    Reports: `step` (of the schedule, from 1), `sigma` and `sigma_next`, `noisy` (x after the step)
    and `clean` (the prediction before it), each (C, H, W); `change`, the root mean square change of
    the clean prediction; `calls` of the network; `ended` after the last step.
    """

    known_edits = EDITS
    deterministic: bool
    costs = ("calls",)

    def __init__(
        self,
        network: Denoiser,
        *,
        steps: int = 20,
        solver: str | Solver = "dpmpp_2m",
        guidance: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, math.inf),
        sigmas: Sequence[float] | None = None,
        slots: int = 16,
        block: int = BLOCK,
    ) -> None:
        require_at_least(1, slots=slots, block=block)
        self.slots = slots
        self.network = network
        self.sigmas = _checked_sigmas(
            sigmas or jump_sigmas(steps, network.sigma_min, network.sigma_max)
        )
        self._guidance_interval = _checked_interval(guidance_interval)
        self._default = DenoiseSettings(None, as_guidance(guidance), solver_named(solver))
        self._block = block
        self._shape = (network.channels, network.size, network.size)
        self.deterministic = remembered_self_test(network, self._self_test, block=block)
        # One for all noise; each use seeds it first.
        self._generator = torch.Generator()
        self._slots: dict[str, DenoiseSlot] = {}
        self._batches: list[StepBatch] | None = None  # None: to be made again, as a lane changed
        self._steps_to_edit: int | None = None

    @property
    def steps(self) -> int:
        """The number of steps of an image that starts as noise."""
        return len(self.sigmas) - 1

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a slot: at noise, at a noised image, or where its past ended."""
        request = ImageRequest.of(item)
        request.check(
            channels=self.network.channels, size=self.network.size, classes=self.network.classes
        )
        self._check_edits(lane)
        slot = DenoiseSlot(lane, request, self._first_step(request))
        slot.states.append(self._initial_x(slot))
        for report in lane.past:
            slot.states.append(_copied(report["noisy"]))
            slot.denoised.append(_copied(report["clean"]))
        # After the past: a `renoise` of the current position replaces the recorded x.
        self._renoise(slot)
        self._slots[lane.key] = slot
        self._batches = None

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring the lane back to a position: x and the predictions up to there are kept."""
        self._check_edits(lane)  # before anything changes
        slot = self._slots[lane.key]
        self._batches = None
        slot.lane = lane
        del slot.states[to + 1 :], slot.denoised[to:]
        if to == 0:  # its noise depends on `lane.backtracks`
            slot.states[0] = self._initial_x(slot)
        self._renoise(slot)

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        del self._slots[key]
        self._batches = None

    def output(self, key: str) -> Tensor:
        """Return the last clean prediction (C, H, W) in [-1, 1]; zeros before the first step."""
        denoised = self._slots[key].denoised
        # Clamped, as guidance pushes predictions out of the range.
        return denoised[-1].clamp(-1, 1) if denoised else torch.zeros(self._shape)

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Take the next solver step of every lane that has not ended."""
        batches = self._active_batches()
        sigmas = [self.sigmas[batch.step] for batch in batches]
        denoised = self._denoise(
            [(batch, batch.x, s) for batch, s in zip(batches, sigmas, strict=True)]
        )
        x_next = [
            batch.advanced(self.sigmas, each, self._step_noise(batch))
            for batch, each in zip(batches, denoised, strict=True)
        ]
        calls = [self._calls(batch, sigma) for batch, sigma in zip(batches, sigmas, strict=True)]
        if any(batch.key.solver.second for batch in batches):
            self._correct(batches, denoised, x_next, calls)
        reports: dict[str, Report] = {}
        for n, batch in enumerate(batches):
            reports |= batch.move(self.sigmas, denoised[n], x_next[n], calls[n])
        if len(batches) > 1:  # in the order of the slots, however the lanes are batched
            reports = {key: reports[key] for key in self._slots if key in reports}
        self._apply_due_edits()
        return reports

    def _active_batches(self) -> list[StepBatch]:
        """Return the lanes that have not ended, batched by the step that they take."""
        if self._batches is None:
            self._batches = self._make_batches()
        self._batches = [batch for batch in self._batches if batch.step < self.steps]
        return self._batches

    def _make_batches(self) -> list[StepBatch]:
        lanes: dict[BatchKey, list[tuple[DenoiseSlot, int]]] = defaultdict(list)
        active = [slot for slot in self._slots.values() if slot.step < self.steps]
        for slot in active:
            settings = self._settings(slot)
            if settings.label is None:  # no class to be guided to
                key, label = BatchKey.of(slot, settings.solver, 1.0), self.network.classes
            else:
                key, label = BatchKey.of(slot, settings.solver, settings.guidance), settings.label
            lanes[key].append((slot, label))
        waits = [slot.steps_to_edit for slot in active]
        self._steps_to_edit = min((steps for steps in waits if steps is not None), default=None)
        return [StepBatch.of(key, *zip(*each, strict=True)) for key, each in lanes.items()]

    def _apply_due_edits(self) -> None:
        """Count down to the next edit of a later position, and apply it when it is due."""
        if self._steps_to_edit is None:
            return
        self._steps_to_edit -= 1
        if self._steps_to_edit == 0:
            self._batches = None
            for slot in self._slots.values():
                self._renoise(slot)

    def _calls(self, batch: StepBatch, sigma: float) -> int:
        """Return how often the network runs at a noise level: twice with guidance."""
        low, high = self._guidance_interval
        return 1 if batch.key.guidance == 1.0 or not low <= sigma <= high else 2

    def _denoise(self, points: Sequence[tuple[StepBatch, Tensor, float]]) -> list[Tensor]:
        """Return the clean prediction of each (batch, x, sigma), guided and masked.

        The network runs once over all of them, with and without class.
        """
        images, levels, labels = [], [], []
        for batch, x, sigma in points:
            level = _filled(sigma, len(batch.slots))
            images.append(x)
            levels.append(level)
            labels.append(batch.labels)
            if self._calls(batch, sigma) == 2:
                images.append(x)
                levels.append(level)
                labels.append(torch.full_like(batch.labels, self.network.classes))
        if not images:
            return []
        inputs = [
            each[0] if len(each) == 1 else torch.cat(each) for each in (images, levels, labels)
        ]
        outputs = fixed_batches(self._predict, *inputs, block=self._block)
        sizes = [len(x) for x in images]
        parts = iter(torch.split(outputs, sizes) if len(sizes) > 1 else (outputs,))
        denoised = []
        for batch, _, sigma in points:
            prediction = next(parts)
            if self._calls(batch, sigma) == 2:
                unconditional = next(parts)
                prediction = unconditional + (prediction - unconditional) * batch.key.guidance
            denoised.append(batch.masked(prediction))
        return denoised

    def _correct(
        self,
        batches: Sequence[StepBatch],
        denoised: Sequence[Tensor],
        x_next: list[Tensor],
        calls: list[int],
    ) -> None:
        """Replace the Euler steps of Heun's batches by whole steps, and count the calls."""
        # Not where the step ends at noise 0: there is no slope (algorithm 1, line 6).
        second = [
            n
            for n, batch in enumerate(batches)
            if batch.key.solver.second and self.sigmas[batch.step + 1] > 0.0
        ]
        levels = [self.sigmas[batches[n].step + 1] for n in second]
        denoised_2 = self._denoise(
            [(batches[n], x_next[n], s) for n, s in zip(second, levels, strict=True)]
        )
        for n, sigma_next, each in zip(second, levels, denoised_2, strict=True):
            x, sigma = batches[n].x, self.sigmas[batches[n].step]
            x_next[n] = heun_step(x, sigma, sigma_next, denoised[n], x_next[n], each)
            calls[n] += self._calls(batches[n], sigma_next)

    def _predict(self, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        return self.network(x, sigma, label if self.network.classes else None)

    def _self_test(self) -> bool:
        """Return whether a sample has the same bits at every index of a batch, in any batch."""
        network, generator = self.network, torch.Generator().manual_seed(0)
        x = torch.randn(8, *self._shape, generator=generator)

        sigma = torch.linspace(network.sigma_min, min(network.sigma_max, 2.0), 8)
        label = torch.arange(8) % (network.classes + 1)
        return is_batch_invariant(
            self._predict, x * sigma[:, None, None, None], sigma, label, block=self._block
        )

    # Where a lane starts ----------------------------------------------------------------------

    def _first_step(self, request: ImageRequest) -> int:
        """Return the step of the schedule that an image starts with; above 0 for a variation."""
        # At least one step is left, whatever the strength: without any there is no prediction.
        return min(self.steps - 1, self.steps - round(request.strength * self.steps))

    def _initial_x(self, slot: DenoiseSlot) -> Tensor:
        """Return x at position 0: noise, around the request's image if there is one."""
        request = slot.request
        noise = self._noise(slot, "begin", 0)
        if request.interpolate_to is not None:
            other = replace(request, seed=request.interpolate_to)
            noise = slerp(noise, self._noise(slot, "begin", 0, other), request.share)
        x = noise * self.sigmas[slot.first]
        if request.image is not None:  # x = clean + sigma * noise, as in training
            x = x + pixels(request.image, self._shape, "image")
        return x

    def _renoise(self, slot: DenoiseSlot) -> None:
        """Apply a `renoise` of the lane's current position."""
        image, position = slot.renoised, slot.position
        if image is not None and slot.step < self.steps:
            noise = self._noise(slot, "renoise", position) * self.sigmas[slot.step]
            slot.states[position] = pixels(image, self._shape, "renoise") + noise

    def _settings(self, slot: DenoiseSlot) -> DenoiseSettings:
        """Return the settings at the lane's position, edits included."""
        settings = replace(self._default, label=slot.request.label)
        for name, value in slot.lane.edits.in_force(slot.position, SETTINGS).items():
            settings = settings.edited(name, value, self.network.classes)
        return settings

    def _check_edits(self, lane: Lane) -> None:
        lane.edits.check("a lane of Denoise", EDITS, self._check_edit)

    def _check_edit(self, name: str, value: object) -> None:
        if name == "renoise":
            pixels(value, self._shape, name)
        else:
            self._default.edited(name, value, self.network.classes)

    # Noise ------------------------------------------------------------------------------------

    def _step_noise(self, batch: StepBatch) -> Tensor | None:
        """Draw the noise (B, C, H, W) of a step, where the solver takes any."""
        if batch.key.solver.eta == 0.0 or self.sigmas[batch.step + 1] == 0.0:
            return None
        noise = torch.empty_like(batch.x)
        for row, slot in zip(noise.unbind(), batch.slots, strict=True):
            seed = self._noise_seed(slot, "step", slot.position)
            row.normal_(generator=self._generator.manual_seed(seed))
        return noise

    def _noise(
        self, slot: DenoiseSlot, use: str, position: int, request: ImageRequest | None = None
    ) -> Tensor:
        """Draw standard normal noise (C, H, W) for a use at a position."""
        seed = self._noise_seed(slot, use, position, request)
        return torch.randn(self._shape, generator=self._generator.manual_seed(seed))

    def _noise_seed(
        self, slot: DenoiseSlot, use: str, position: int, request: ImageRequest | None = None
    ) -> int:
        lane, seed = slot.lane, (request or slot.request).seed
        # A request's own seed replaces run and key: the same seed is the same image in any run.
        source = (lane.seed, lane.key) if seed is None else (seed, "")
        return fold_in(*source, use, lane.round, lane.backtracks, position)


@lru_cache(maxsize=1024)
def _filled(sigma: float, count: int) -> Tensor:
    """Return a noise level as a tensor (count,); cached, as every image has the same few."""
    with torch.inference_mode(False):  # the cache outlives the caller's inference mode
        return torch.full((count,), sigma)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Turn noise `a` toward `b` by a share of their angle (spherical interpolation).

    A straight line between them would pass through noise that is too weak.
    """
    cosine = float((a * b).sum() / (a.norm() * b.norm()))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(angle) < 1e-6:
        return a * (1 - share) + b * share
    return (a * math.sin((1 - share) * angle) + b * math.sin(share * angle)) / math.sin(angle)


def _checked_sigmas(sigmas: Sequence[float]) -> tuple[float, ...]:
    levels = tuple(float(sigma) for sigma in sigmas)
    falling = all(a > b for a, b in pairwise(levels))
    if len(levels) < 2 or not falling or levels[-1] != 0.0:
        raise InputError(f"sigmas must fall to a last 0, got {list(levels)}.")
    return levels


def _checked_interval(interval: Sequence[float]) -> tuple[float, float]:
    low, high = interval
    if not 0.0 <= low <= high:
        raise InputError(
            f"guidance_interval must be two noise levels, the lower first, got {low} and {high}."
        )
    return low, high


def _copied(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value.clone()  # the journal owns the tensor of the report
