"""Denoise: images out of noise, many side by side, one solver step a step.

A lane process. Sampling as in Karras et al., "Elucidating the Design Space of Diffusion-Based
Generative Models" (2022), algorithm 1, with the solvers of `ostinato.image.solvers`. It knows noise
levels, classes and guidance; not when to stop, nor what a good image is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from ostinato.errors import EditError, InputError, ItemError
from ostinato.image.fixed import BLOCK, Denoiser, in_blocks, repeats
from ostinato.image.picture import Picture, pixels
from ostinato.image.solvers import Solver, advance, correct, jump_sigmas, solver_named
from ostinato.loop import Lane, Report, derive

Made = TypeVar("Made")

KNOWN = ("label", "guidance", "solver", "renoise")


@dataclass(frozen=True, slots=True)
class _Settings:
    """What is in force at a position."""

    label: int | None
    guidance: float
    solver: Solver


@dataclass(slots=True)
class _Seat:
    """A lane at its place; `images[p]` is its x at position p, `cleans[p]` the prediction there."""

    lane: Lane
    picture: Picture
    first: int  # the step of the schedule that position 0 takes
    images: list[Tensor] = field(default_factory=list)
    cleans: list[Tensor] = field(default_factory=list)

    @property
    def position(self) -> int:
        return len(self.cleans)


class Denoise:
    """Draw images by denoising, many side by side; every lane one solver step a step.

    `network` predicts clean images (`Denoiser`); `sigmas` are the noise levels, falling to 0
    (default: `jump_sigmas`, `steps` of them). `guidance` g draws towards the class: the prediction
    is D_none + g (D_class - D_none) (Ho and Salimans, 2022); 1: none. It costs a second call of the
    network, and acts at noise levels from `guided[0]` to `guided[1]` (Kynkäänniemi et al. 2024: the
    middle ones are enough). An item is a `Picture`, a mapping of its fields, or a class.

    Edits: `label`, `guidance` and `solver` hold from their position on; `renoise` (an image) puts
    that image with fresh noise in the place of x when the lane stands at its position (SDEdit, Meng
    et al. 2022); a solver's memory begins anew there.

    Reports: `step` (of the schedule, from 1), `sigma` and `sigma_next`, `noisy` (x after the step)
    and `clean` (the prediction before it), each (C, H, W); `change`, the root mean square by which
    the clean prediction moved; `calls` of the network; `ended` after the last step.
    """

    repeats: bool

    def __init__(
        self,
        network: Denoiser,
        *,
        steps: int = 20,
        solver: str | Solver = "dpmpp_2m",
        guidance: float = 1.0,
        guided: tuple[float, float] = (0.0, math.inf),
        sigmas: Sequence[float] | None = None,
        places: int = 16,
        block: int = BLOCK,
    ) -> None:
        if places < 1 or block < 1:
            raise InputError(f"places and block must be at least 1, got {places} and {block}.")
        self.capacity = places
        self.network = network
        self.sigmas = _falling(sigmas or jump_sigmas(steps, network.sigma_min, network.sigma_max))
        self._guided = _range(guided)
        self._settings = _Settings(None, _number(guidance, InputError), solver_named(solver))
        self._block = block
        self._shape = (network.channels, network.size, network.size)
        self.repeats = self._self_test()
        self._seats: dict[str, _Seat] = {}

    @property
    def steps(self) -> int:
        """The steps of an image that begins as noise."""
        return len(self.sigmas) - 1

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a place: at noise, at a noised image, or where its past ended."""
        picture = Picture.of(item)
        picture.check(
            channels=self.network.channels, size=self.network.size, classes=self.network.classes
        )
        seat = _Seat(lane, picture, self._first(picture))
        self._at(seat, 0)
        seat.images.append(self._begin(seat))
        for report in lane.past:
            seat.images.append(_copied(report["noisy"]))
            seat.cleans.append(_copied(report["clean"]))
        self._renoise(seat)
        self._seats[lane.key] = seat

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring the lane back to a position: its x and its predictions up to there are kept."""
        seat = self._seats[lane.key]
        self._at(replace(seat, lane=lane), to)  # an unknown edit is refused before anything changes
        seat.lane = lane
        del seat.images[to + 1 :], seat.cleans[to:]
        if to == 0:
            seat.images[0] = self._begin(seat)
        self._renoise(seat)

    def drop(self, key: str) -> None:
        """Free the lane's place."""
        del self._seats[key]

    def output(self, key: str) -> Tensor:
        """Return the last clean prediction (C, H, W), in [-1, 1]; before the first, no image: 0."""
        cleans = self._seats[key].cleans
        return cleans[-1].clamp(-1, 1) if cleans else torch.zeros(self._shape)

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Take the next solver step of every lane that has not ended."""
        seats = [seat for seat in self._seats.values() if seat.first + seat.position < self.steps]
        settings = [self._at(seat, seat.position) for seat in seats]
        levels = [self._levels(seat) for seat in seats]
        at = [seat.images[-1] for seat in seats]
        cleans = self._cleans(seats, settings, at, [sigma for sigma, _ in levels])
        after = self._after(seats, settings, levels, cleans)
        twice = [
            n for n, chosen in enumerate(settings) if chosen.solver.second and levels[n][1] > 0.0
        ]
        second = self._cleans(
            [seats[n] for n in twice],
            [settings[n] for n in twice],
            [after[n] for n in twice],
            [levels[n][1] for n in twice],
        )
        for n, clean in zip(twice, second, strict=True):
            after[n] = correct(at[n], *levels[n], cleans[n], after[n], clean)
        moved = self._moved(seats, cleans)
        reports = {}
        for n, seat in enumerate(seats):
            calls = sum(self._calls(settings[n], at) for at in levels[n][: 1 + (n in twice)])
            reports[seat.lane.key] = self._report(
                seat, levels[n], cleans[n], after[n], moved[n], calls
            )
        return reports

    def _levels(self, seat: _Seat) -> tuple[float, float]:
        step = seat.first + seat.position
        return self.sigmas[step], self.sigmas[step + 1]

    def _calls(self, settings: _Settings, sigma: float) -> int:
        low, high = self._guided
        if settings.guidance == 1.0 or settings.label is None or not low <= sigma <= high:
            return 1
        return 2

    def _cleans(
        self,
        seats: Sequence[_Seat],
        settings: Sequence[_Settings],
        at: Sequence[Tensor],
        sigmas: Sequence[float],
    ) -> list[Tensor]:
        """Predict the clean image of every seat, guided, and with what is kept of a given image."""
        if not seats:
            return []
        rows: list[tuple[Tensor, float, int]] = []
        no_class = self.network.classes
        for chosen, x, sigma in zip(settings, at, sigmas, strict=True):
            rows.append((x, sigma, no_class if chosen.label is None else chosen.label))
            if self._calls(chosen, sigma) == 2:
                rows.append((x, sigma, no_class))
        images, levels, labels = zip(*rows, strict=True)
        made = in_blocks(
            self._predict,
            torch.stack(images),
            torch.tensor(levels),
            torch.tensor(labels),
            block=self._block,
        )
        seen = iter(made.unbind())
        cleans = []
        for seat, chosen, sigma in zip(seats, settings, sigmas, strict=True):
            clean = next(seen).clone()
            if self._calls(chosen, sigma) == 2:
                without = next(seen)
                clean = without + (clean - without) * chosen.guidance
            cleans.append(self._kept(seat.picture, clean))
        return cleans

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

    def _after(
        self,
        seats: Sequence[_Seat],
        settings: Sequence[_Settings],
        levels: Sequence[tuple[float, float]],
        cleans: Sequence[Tensor],
    ) -> list[Tensor]:
        """Return x after the solver's step; the lanes that take the same one take it together."""
        alike = defaultdict(list)
        for n, (seat, chosen) in enumerate(zip(seats, settings, strict=True)):
            alike[chosen.solver, levels[n], self._level_before(seat)].append(n)
        after: dict[int, Tensor] = {}
        for (solver, (sigma, sigma_next), last), lanes in alike.items():
            before = noise = None
            if last is not None:
                before = last, torch.stack([seats[n].cleans[-1] for n in lanes])
            if solver.eta > 0.0 and sigma_next > 0.0:
                some = [seats[n] for n in lanes]
                noise = torch.stack([self._noise(seat, "step", seat.position) for seat in some])
            x = torch.stack([seats[n].images[-1] for n in lanes])
            clean = torch.stack([cleans[n] for n in lanes])
            x = advance(solver, x, sigma, sigma_next, clean, before=before, noise=noise)
            after |= zip(lanes, x.unbind(), strict=True)
        return [after[n] for n in range(len(seats))]

    def _level_before(self, seat: _Seat) -> float | None:
        """Return the level of the prediction before, where the lane has come from there."""
        position = seat.position
        if position == 0 or self._renoised(seat.lane, position) is not None:
            return None
        return self.sigmas[seat.first + position - 1]

    def _moved(self, seats: Sequence[_Seat], cleans: Sequence[Tensor]) -> list[float]:
        """Return the root mean squares by which the clean predictions moved; from 0 at first."""
        if not seats:
            return []
        blank = torch.zeros(self._shape)
        last = torch.stack([seat.cleans[-1] if seat.cleans else blank for seat in seats])
        means: list[float] = (torch.stack(list(cleans)) - last).square().mean((1, 2, 3)).tolist()
        return [math.sqrt(mean) for mean in means]

    def _report(
        self,
        seat: _Seat,
        levels: tuple[float, float],
        clean: Tensor,
        after: Tensor,
        moved: float,
        calls: int,
    ) -> Report:
        seat.cleans.append(clean)
        seat.images.append(after)
        self._renoise(seat)  # a later edit that was left in force has waited for its position
        step = seat.first + seat.position
        report: dict[str, object] = {
            "step": step,
            "sigma": levels[0],
            "sigma_next": levels[1],
            "noisy": after,
            "clean": clean,
            "change": moved,
            "calls": calls,
        }
        if step == self.steps:
            report["ended"] = f"All {self.steps} noise levels are done."
        return report

    # Where a lane begins ----------------------------------------------------------------------

    def _first(self, picture: Picture) -> int:
        """Return the step that a picture begins with: the last ones only, for a variation."""
        return min(self.steps - 1, self.steps - round(picture.strength * self.steps))

    def _begin(self, seat: _Seat) -> Tensor:
        """Return x at position 0: noise, around the given image where there is one."""
        picture = seat.picture
        noise = self._noise(seat, "begin", 0)
        if picture.toward is not None:
            other = replace(picture, seed=picture.toward)
            noise = slerp(noise, self._noise(seat, "begin", 0, other), picture.share)
        x = noise * self.sigmas[seat.first]
        if picture.image is not None:
            x = x + pixels(picture.image, self._shape, "image")
        return x

    def _kept(self, picture: Picture, clean: Tensor) -> Tensor:
        """Put the given image where the mask does not ask for a new one."""
        if picture.mask is None:
            return clean
        mask = pixels(picture.mask, self._shape[1:], "mask") > 0
        return torch.where(mask, clean, pixels(picture.image, self._shape, "image"))

    def _renoise(self, seat: _Seat) -> None:
        """Apply a `renoise` of the position where the lane stands."""
        position = seat.position
        image = self._renoised(seat.lane, position)
        if image is not None and seat.first + position < self.steps:
            noise = self._noise(seat, "renoise", position)
            level = self.sigmas[seat.first + position]
            seat.images[position] = pixels(image, self._shape, "renoise") + noise * level

    def _renoised(self, lane: Lane, position: int) -> object:
        """Return the image of the last `renoise` at a position."""
        images = [
            edits["renoise"] for at, edits in lane.edits if at == position if "renoise" in edits
        ]
        return images[-1] if images else None

    def _noise(
        self, seat: _Seat, use: str, position: int, picture: Picture | None = None
    ) -> Tensor:
        """Draw standard normal noise (C, H, W) that belongs to a place."""
        lane, seed = seat.lane, (picture or seat.picture).seed
        source = (lane.seed, lane.key) if seed is None else (seed, "")
        place = derive(*source, use, lane.round, lane.tries, position)
        return torch.randn(self._shape, generator=torch.Generator().manual_seed(place))

    # Edits ------------------------------------------------------------------------------------

    def _at(self, seat: _Seat, position: int) -> _Settings:
        """Return the settings at a position. Raises `EditError` for what is not known."""
        settings = replace(self._settings, label=seat.picture.label)
        for at, edits in seat.lane.edits:
            for name, value in edits.items():
                changed = self._edited(settings, name, value)
                settings = changed if at <= position else settings
        return settings

    def _edited(self, settings: _Settings, name: str, value: object) -> _Settings:
        if name == "guidance":
            return replace(settings, guidance=_number(value, EditError))
        if name == "label":
            return replace(settings, label=self._label(value))
        if name == "renoise":
            _as_edit(lambda: pixels(value, self._shape, "renoise"))
            return settings
        if name == "solver":
            return replace(settings, solver=_as_edit(lambda: solver_named(value)))
        raise EditError(f"Unknown edit {name!r} of Denoise. Known: {', '.join(KNOWN)}.")

    def _label(self, value: object) -> int | None:
        if value is None:
            return None
        classes = self.network.classes
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < classes:
            expected = f"from 0 to {classes - 1}" if classes else "left out: the model has none"
            raise EditError(f"label must be {expected}, got {value!r}.")
        return value


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Turn noise `a` towards `b` by a share of their angle; its size stays that of noise."""
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
        raise InputError(f"guided must be two noise levels, the lower first, got {low} and {high}.")
    return low, high


def _number(value: object, error: type[InputError] | type[EditError]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise error(f"guidance must be a finite number, got {value!r}. Take 1 for none.")
    return float(value)


def _as_edit(make: Callable[[], Made]) -> Made:
    """Tell what is wrong with an edit's value as an `EditError`."""
    try:
        return make()
    except (InputError, ItemError) as error:
        raise EditError(str(error)) from None


def _copied(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value.clone()
