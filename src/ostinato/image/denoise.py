"""Denoise: images out of noise, many side by side, one solver step a step.

A lane process. Sampling as in Karras et al., "Elucidating the Design Space of Diffusion-Based
Generative Models" (2022), algorithm 1, with the solvers of `ostinato.image.solvers`. It knows noise
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

from ostinato.errors import InputError
from ostinato.image.fixed_batches import BLOCK, Denoiser, fixed_batches, repeats
from ostinato.image.image_request import ImageRequest, pixels
from ostinato.image.slot import DenoiseSettings, DenoiseSlot, as_guidance
from ostinato.image.solvers import Solver, correct, jump_sigmas, solver_named
from ostinato.image.step_batch import BatchKey, StepBatch
from ostinato.loop import Lane, Report, fold_in


class Denoise:
    """Draw images by denoising, many side by side; every lane one solver step a step.

    `network` predicts clean images (`Denoiser`); `sigmas` are the noise levels, falling to 0
    (default: `jump_sigmas`, `steps` of them). `guidance` g draws toward the class: the prediction
    is D_none + g (D_class - D_none) (Ho and Salimans, 2022); 1: none. It costs a second call of the
    network, and acts at noise levels from `guided[0]` to `guided[1]` (Kynkäänniemi et al. 2024: the
    middle ones are enough). An item is a `ImageRequest`, a mapping of its fields, or a class.

    Edits: `label`, `guidance` and `solver` hold from their position on; `renoise` (an image) puts
    that image with fresh noise in the place of x when the lane stands at its position (SDEdit, Meng
    et al. 2022); a solver's memory begins anew there.

    Reports: `step` (of the schedule, from 1), `sigma` and `sigma_next`, `noisy` (x after the step)
    and `clean` (the prediction before it), each (C, H, W); `change`, the root mean square by which
    the clean prediction moved; `calls` of the network; `ended` after the last step.
    """

    deterministic: bool

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
        if slots < 1 or block < 1:
            raise InputError(f"slots and block must be at least 1, got {slots} and {block}.")
        self.slots = slots
        self.network = network
        self.sigmas = _falling(sigmas or jump_sigmas(steps, network.sigma_min, network.sigma_max))
        self._guidance_interval = _range(guidance_interval)
        self._settings = DenoiseSettings(
            None, as_guidance(guidance, InputError), solver_named(solver)
        )
        self._block = block
        self._shape = (network.channels, network.size, network.size)
        self.deterministic = self._self_test()
        self._dice = torch.Generator()  # seeded anew for each draw
        self._slots: dict[str, DenoiseSlot] = {}
        self._groups: list[StepBatch] | None = None  # made anew after whatever changes a lane
        self._until_edit: int | None = None

    @property
    def steps(self) -> int:
        """The steps of an image that begins as noise."""
        return len(self.sigmas) - 1

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a place: at noise, at a noised image, or where its past ended."""
        picture = ImageRequest.of(item)
        picture.check(
            channels=self.network.channels, size=self.network.size, classes=self.network.classes
        )
        slot = DenoiseSlot(lane, picture, self._first(picture))
        self._at(slot, 0)
        slot.images.append(self._begin(slot))
        for report in lane.past:
            slot.images.append(_copied(report["noisy"]))
            slot.cleans.append(_copied(report["clean"]))
        self._renoise(slot)
        self._slots[lane.key] = slot
        self._groups = None

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring the lane back to a position: its x and its predictions up to there are kept."""
        slot = self._slots[lane.key]
        self._at(replace(slot, lane=lane), to)  # an unknown edit is refused before anything changes
        self._groups = None
        slot.lane = lane
        del slot.images[to + 1 :], slot.cleans[to:]
        if to == 0:
            slot.images[0] = self._begin(slot)
        self._renoise(slot)

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        del self._slots[key]
        self._groups = None

    def output(self, key: str) -> Tensor:
        """Return the last clean prediction (C, H, W), in [-1, 1]; before the first, no image: 0."""
        cleans = self._slots[key].cleans
        return cleans[-1].clamp(-1, 1) if cleans else torch.zeros(self._shape)

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Take the next solver step of every lane that has not ended."""
        groups = self._side_by_side()
        cleans = self._cleans([(group, group.x, self.sigmas[group.step]) for group in groups])
        after = [
            group.advanced(self.sigmas, clean, self._fresh(group))
            for group, clean in zip(groups, cleans, strict=True)
        ]
        calls = [self._calls(group, self.sigmas[group.step]) for group in groups]
        if any(group.kind.solver.second for group in groups):
            self._correct(groups, cleans, after, calls)
        reports: dict[str, Report] = {}
        for n, group in enumerate(groups):
            reports |= group.move(self.sigmas, cleans[n], after[n], calls[n])
        if len(groups) > 1:
            reports = {key: reports[key] for key in self._slots if key in reports}
        self._come_to_edits()
        return reports

    def _side_by_side(self) -> list[StepBatch]:
        """Return the lanes that have not ended, by the steps that they take."""
        if self._groups is None:
            self._groups = self._grouped()
        self._groups = [group for group in self._groups if group.step < self.steps]
        return self._groups

    def _grouped(self) -> list[StepBatch]:
        alike: dict[BatchKey, list[tuple[DenoiseSlot, int]]] = defaultdict(list)
        going = [slot for slot in self._slots.values() if slot.step < self.steps]
        for slot in going:
            chosen = self._at(slot, slot.position)
            if chosen.label is None:
                kind, label = BatchKey.of(slot, chosen.solver, 1.0), self.network.classes
            else:
                kind, label = BatchKey.of(slot, chosen.solver, chosen.guidance), chosen.label
            alike[kind].append((slot, label))
        ahead = [slot.ahead for slot in going]
        self._until_edit = min((steps for steps in ahead if steps is not None), default=None)
        return [StepBatch.of(kind, *zip(*lanes, strict=True)) for kind, lanes in alike.items()]

    def _come_to_edits(self) -> None:
        """Apply what has waited for the positions where the lanes stand now."""
        if self._until_edit is None:
            return
        self._until_edit -= 1
        if self._until_edit == 0:
            self._groups = None
            for slot in self._slots.values():
                self._renoise(slot)

    def _calls(self, group: StepBatch, sigma: float) -> int:
        low, high = self._guidance_interval
        return 1 if group.kind.guidance == 1.0 or not low <= sigma <= high else 2

    def _cleans(self, at: Sequence[tuple[StepBatch, Tensor, float]]) -> list[Tensor]:
        """Predict the clean images of groups at x and a noise level: guided, and masked."""
        images, levels, labels = [], [], []
        for group, x, sigma in at:
            level = _level(sigma, len(group.slots))
            images.append(x)
            levels.append(level)
            labels.append(group.labels)
            if self._calls(group, sigma) == 2:
                images.append(x)
                levels.append(level)
                labels.append(torch.full_like(group.labels, self.network.classes))
        if not images:
            return []
        joined = [
            each[0] if len(each) == 1 else torch.cat(each) for each in (images, levels, labels)
        ]
        made = fixed_batches(self._predict, *joined, block=self._block)
        seen = iter(torch.split(made, [len(x) for x in images]) if len(images) > 1 else (made,))
        cleans = []
        for group, _, sigma in at:
            clean = next(seen)
            if self._calls(group, sigma) == 2:
                without = next(seen)
                clean = without + (clean - without) * group.kind.guidance
            cleans.append(group.masked(clean))
        return cleans

    def _correct(
        self,
        groups: Sequence[StepBatch],
        cleans: Sequence[Tensor],
        after: list[Tensor],
        calls: list[int],
    ) -> None:
        """Put the second half of Heun's step in the place of the first, and count its calls."""
        twice = [
            n
            for n, group in enumerate(groups)
            if group.kind.solver.second and self.sigmas[group.step + 1] > 0.0
        ]
        levels = [self.sigmas[groups[n].step + 1] for n in twice]
        second = self._cleans(
            [(groups[n], after[n], s) for n, s in zip(twice, levels, strict=True)]
        )
        for n, sigma_next, clean in zip(twice, levels, second, strict=True):
            x, sigma = groups[n].x, self.sigmas[groups[n].step]
            after[n] = correct(x, sigma, sigma_next, cleans[n], after[n], clean)
            calls[n] += self._calls(groups[n], sigma_next)

    def _fresh(self, group: StepBatch) -> Tensor | None:
        """Draw the noise of a step, where the solver takes some."""
        if group.kind.solver.eta == 0.0 or self.sigmas[group.step + 1] == 0.0:
            return None
        noise = torch.empty_like(group.x)
        for row, slot in zip(noise.unbind(), group.slots, strict=True):
            row.normal_(generator=self._dice.manual_seed(self._place(slot, "step", slot.position)))
        return noise

    def _predict(self, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        return self.network(x, sigma, label if self.network.classes else None)

    def _self_test(self) -> bool:
        """Test whether a sample's bits are the same at every place and in every company."""
        network, dice = self.network, torch.Generator().manual_seed(0)
        x = torch.randn(8, *self._shape, generator=dice)
        sigma = torch.linspace(network.sigma_min, min(network.sigma_max, 2.0), 8)
        label = torch.arange(8) % (network.classes + 1)
        return repeats(
            self._predict, x * sigma[:, None, None, None], sigma, label, block=self._block
        )

    # Where a lane begins ----------------------------------------------------------------------

    def _first(self, picture: ImageRequest) -> int:
        """Return the step that a picture begins with: the last ones only, for a variation."""
        return min(self.steps - 1, self.steps - round(picture.strength * self.steps))

    def _begin(self, slot: DenoiseSlot) -> Tensor:
        """Return x at position 0: noise, around the given image where there is one."""
        picture = slot.picture
        noise = self._noise(slot, "begin", 0)
        if picture.interpolate_to is not None:
            other = replace(picture, seed=picture.interpolate_to)
            noise = slerp(noise, self._noise(slot, "begin", 0, other), picture.share)
        x = noise * self.sigmas[slot.first]
        if picture.image is not None:
            x = x + pixels(picture.image, self._shape, "image")
        return x

    def _renoise(self, slot: DenoiseSlot) -> None:
        """Apply a `renoise` of the position where the lane stands."""
        image, position = slot.renoised, slot.position
        if image is not None and slot.step < self.steps:
            noise = self._noise(slot, "renoise", position) * self.sigmas[slot.step]
            slot.images[position] = pixels(image, self._shape, "renoise") + noise

    def _noise(
        self, slot: DenoiseSlot, use: str, position: int, picture: ImageRequest | None = None
    ) -> Tensor:
        """Draw standard normal noise (C, H, W) that belongs to a place."""
        place = self._place(slot, use, position, picture)
        return torch.randn(self._shape, generator=self._dice.manual_seed(place))

    def _place(
        self, slot: DenoiseSlot, use: str, position: int, picture: ImageRequest | None = None
    ) -> int:
        lane, seed = slot.lane, (picture or slot.picture).seed
        source = (lane.seed, lane.key) if seed is None else (seed, "")
        return fold_in(*source, use, lane.round, lane.backtracks, position)

    def _at(self, slot: DenoiseSlot, position: int) -> DenoiseSettings:
        """Return the settings at a position. Raises `EditError` for what is not known."""
        settings = replace(self._settings, label=slot.picture.label)
        classes = self.network.classes
        for at, edits in slot.lane.edits:
            for name, value in edits.items():
                changed = settings.edited(name, value, classes=classes, shape=self._shape)
                settings = changed if at <= position else settings
        return settings


@lru_cache(maxsize=1024)
def _level(sigma: float, count: int) -> Tensor:
    """Return a noise level for so many samples: the same few come in each image."""
    with torch.inference_mode(False):  # it is kept beyond the mode in which it is made
        return torch.full((count,), sigma)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Turn noise `a` toward `b` by a share of their angle; its size stays that of noise."""
    cosine = float((a * b).sum() / (a.norm() * b.norm()))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(angle) < 1e-6:
        return a * (1 - share) + b * share
    return (a * math.sin((1 - share) * angle) + b * math.sin(share * angle)) / math.sin(angle)


def _falling(sigmas: Sequence[float]) -> tuple[float, ...]:
    levels = tuple(float(sigma) for sigma in sigmas)
    falls = all(a > b for a, b in pairwise(levels))
    if len(levels) < 2 or not falls or levels[-1] != 0.0:
        raise InputError(f"sigmas must fall to a last 0, got {list(levels)}.")
    return levels


def _range(guided: Sequence[float]) -> tuple[float, float]:
    low, high = guided
    if not 0.0 <= low <= high:
        raise InputError(
            f"guidance_interval must be two noise levels, the lower first, got {low} and {high}."
        )
    return low, high


def _copied(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value.clone()
