"""Planted collapses of a duel: whether each is seen soon, and what a duel makes of it by itself.

    python -m benchmarks.collapse [--seeds 10] [--kinds late one-image] [--json]

The images are scikit-learn's 1,797 digits of 8 x 8 pixels, the networks are small. Each kind of
`PLANTED` has settings that truly collapse. A judge, a classifier trained here, says so and when,
from other samples, in other features and by other figures than those that the conditions see:
samples collapsed where more than a quarter of them have a near duplicate among its features (in a
healthy duel a hundredth, after the start), where at most three of ten classes are made, or where
their recall (Kynkäänniemi et al. 2019) was at least 0.1 and is at most 0.02. A collapse begins with
the first look from which all looks of `LASTS` steps say that.

For every seed, three duels run:

- the planted one to its end, with the conditions of `ostinato train gan` only watching: it is
  detected where they fire up to `SOON` steps after its beginning, or `EARLY` before, where they see
  it come sooner than the judge; `steps_median` are these steps;
- the same one acting by itself, as `ostinato train gan` does: it recovered where it ends with at
  least eight classes, few duplicates and a recall above 0.02;
- a healthy one with the defaults: a false alarm is any condition that fires.

With several kinds, `detected_of_10` and `recovered_of_10` are those of the worst one. They count
of as many as there are seeds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ostinato.adversarial import (
    Discriminator,
    Duel,
    DuelConfig,
    Generator,
    duel_failure,
    gan_for,
    rescue,
)
from ostinato.image import (
    Classifier,
    ClassifierConfig,
    Images,
    hold_out,
    precision_recall,
    read_images,
)
from ostinato.loop import Loop, Steps
from ostinato.train import Training, TrainingConfig
from recipes.digit_measures import ClassificationTask

STEPS = 300  # of a duel; an acting one may take three times as many, with those it takes again
LOOK = 10  # steps between two looks of the judge
LASTS, SOON, EARLY = 100, 200, 50
SAMPLES = 200  # of a look
NEAR = 1 / 3  # of the usual distance of real images to the nearest: nearer is a duplicate
MADE = 0.1  # of a class's due share of the samples
HELD, LOST = 0.1, 0.02  # recall of samples of some variety, and of none
NEVER = 10**9

PLANTED: Mapping[str, dict[str, Any]] = {
    # The generator runs ahead of its discriminator from the start: one image a class.
    "one-image": {"loss": "hinge", "lr": 5e-2, "discriminator_lr": 2e-3, "beta1": 0.9},
    # With a gradient penalty it learns fast at first; then each class shrinks to a few images.
    "late": {"loss": "non-saturating", "lr": 5e-2, "discriminator_lr": 1e-3},
}


@dataclass(frozen=True)
class Figures:
    """What the judge sees of samples: the share of near duplicates, the classes made, recall."""

    duplicates: float
    classes: int
    recall: float

    @property
    def alike(self) -> bool:
        """Whether samples are alike at first sight."""
        return self.duplicates > 0.25 or self.classes <= 3

    @property
    def healthy(self) -> bool:
        """Whether samples are as different as those of a healthy duel."""
        return self.duplicates < 0.2 and self.classes >= 8 and self.recall > LOST


class Judge:
    """Looks at samples by a classifier that no condition knows."""

    def __init__(self, seen: Images, held: Images, steps: int = 600) -> None:
        torch.manual_seed(0)
        config = ClassifierConfig(names=seen.names, size=seen.size, widths=(16, 32))
        self.classifier = Classifier(config)
        training = TrainingConfig(steps=steps, batch_tokens=64, lr=3e-3)
        task = ClassificationTask(seen)
        Loop(Training(self.classifier, task, training), until=Steps(steps)).run()
        self.classifier.eval()
        self._near = NEAR * float(self._nearest(held.clean()).median())
        self._real = held.clean()

    @torch.no_grad()
    def _nearest(self, images: Tensor) -> Tensor:
        features = self.classifier.features(images)
        return torch.cdist(features, features).fill_diagonal_(torch.inf).min(1).values

    @torch.no_grad()
    def look(self, images: Tensor) -> Figures:
        """Return the figures of samples."""
        found = torch.bincount(self.classifier(images).argmax(1), minlength=10)
        made = int((found >= MADE * len(images) / 10).sum())
        features = self.classifier.features
        recall = precision_recall(features(self._real), features(images)).recall
        alike = float((self._nearest(images) < self._near).float().mean())
        return Figures(alike, made, recall)


@dataclass(frozen=True)
class Course:
    """A duel's figures by step, and the step at which a condition fired, if any."""

    looks: Mapping[int, Figures]
    fired: int | None

    @property
    def begins(self) -> int | None:
        """The step from which on the samples stay collapsed."""
        steps, count = sorted(self.looks), LASTS // LOOK
        for index, step in enumerate(steps):
            coming = steps[index : index + count]
            if len(coming) == count and all(map(self._collapsed, coming)):
                return step
        return None

    def _collapsed(self, step: int) -> bool:
        """Return whether samples are alike, or have lost the variety that they had."""
        now = self.looks[step]
        held = max(look.recall for at, look in self.looks.items() if at <= step)
        return now.alike or (held >= HELD and now.recall <= LOST)

    @property
    def delay(self) -> int | None:
        """The steps from the beginning of the collapse to its detection, if both took place."""
        if self.begins is None or self.fired is None:
            return None
        return self.fired - self.begins


def duel_of(seen: Images, held: Images, seed: int, **change: Any) -> Duel:
    """Return a small duel with the defaults, and what is changed."""
    shape = replace(gan_for(seen, width=12, latent=8), features=64)
    config = DuelConfig(
        **{"steps": STEPS, "batch_images": 32, "seed": seed, "valid_every": NEVER, **change},
        sample_every=0,
    )
    networks = Generator(shape, seed=seed), Discriminator(shape, seed=seed + 1000)
    return Duel(*networks, seen, held, config)


def watched(duel: Duel, judge: Judge, steps: int = STEPS) -> Course:
    """Run a duel to its end, looking at it; the conditions of a training only watch."""
    condition = duel_failure()
    state, fired = condition.initial_state(), list[int]()
    looks: dict[int, Figures] = {}
    for step in Loop(duel, until=Steps(steps)):
        state, stopped = condition.observe(state, step)
        if stopped is not None:
            fired.append(step.position)
        if step.position % LOOK == 0:
            looks[step.position] = judge.look(duel.samples(SAMPLES, "judge")[0])
    return Course(looks, fired[0] if fired else None)


def acting(duel: Duel, judge: Judge, steps: int = 3 * STEPS) -> Figures:
    """Run a duel that acts by itself; return what the judge sees at its end."""
    Loop(duel, until=Steps(steps) | duel_failure(), on_stop=rescue(duel.config)).run()
    return judge.look(duel.samples(SAMPLES, "judge")[0])


@dataclass(frozen=True)
class Trial:
    """What became of a planted collapse."""

    course: Course
    end: Figures

    @property
    def detected(self) -> bool:
        """Whether a condition fired when the collapse began, or soon after."""
        return self.course.delay is not None and -EARLY <= self.course.delay <= SOON


def trials(kind: str, seen: Images, held: Images, judge: Judge, seeds: int) -> Iterator[Trial]:
    """Plant a collapse with each seed; print and yield what became of it."""
    for seed in range(seeds):
        course = watched(duel_of(seen, held, seed, **PLANTED[kind]), judge)
        end = acting(duel_of(seen, held, seed, **PLANTED[kind]), judge)
        print(
            f"{kind} {seed}: collapses at {course.begins}, detected at {course.fired}; acting by "
            f"itself it ends with {end.classes} classes, {end.duplicates:.0%} duplicates, recall "
            f"{end.recall:.2f}",
            flush=True,
        )
        yield Trial(course, end)


def healthy(seen: Images, held: Images, judge: Judge, seeds: int) -> list[Course]:
    """Run duels with the defaults."""
    courses = []
    for seed in range(seeds):
        courses.append(course := watched(duel_of(seen, held, seed), judge))
        last = course.looks[max(course.looks)]
        print(
            f"healthy {seed}: a condition fired at {course.fired}; it ends with {last.classes} "
            f"classes, {last.duplicates:.0%} duplicates, recall {last.recall:.2f}",
            flush=True,
        )
    return courses


def summary(found: Mapping[str, Sequence[Trial]], courses: Sequence[Course]) -> dict[str, float]:
    """Return the figures of all kinds, and of each."""
    kinds = {
        kind: {
            "detected_of_10": sum(one.detected for one in each),
            "steps_median": _median([one.course.delay for one in each]),
            "recovered_of_10": sum(one.end.healthy for one in each),
        }
        for kind, each in found.items()
    }
    delays = [one.course.delay for each in found.values() for one in each]
    return {
        "detected_of_10": min(each["detected_of_10"] for each in kinds.values()),
        "false_alarms_of_10": sum(course.fired is not None for course in courses),
        "steps_median": _median(delays),
        "recovered_of_10": min(each["recovered_of_10"] for each in kinds.values()),
        **{f"{kind}.{name}": value for kind, each in kinds.items() for name, value in each.items()},
    }


def _median(delays: Sequence[int | None]) -> float:
    known = [delay for delay in delays if delay is not None]
    return statistics.median(known) if known else float(NEVER)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.collapse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=10, help="duels of each kind")
    parser.add_argument("--kinds", nargs="+", default=list(PLANTED), choices=list(PLANTED))
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {platform.processor()}, torch {torch.__version__}")
    seen, held = hold_out(read_images(["digits-8x8"]), 0.25)
    judge = Judge(seen, held)
    courses = healthy(seen, held, judge, options.seeds)
    found = {kind: list(trials(kind, seen, held, judge, options.seeds)) for kind in options.kinds}
    flat = summary(found, courses)
    for name, value in flat.items():
        print(f"{name:28} {value:g}")
    if options.json:
        print(json.dumps(flat))


if __name__ == "__main__":
    main()
