"""The steps of images, as a sheet of noisy and clean ones or as a GIF. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ostinato.journal import StepRecord, tensor_of
from ostinato.media import Cell

COLUMNS = 10
"""Steps that a sheet shows of an image: the first, the last and some between."""


class ShownStep(NamedTuple):
    """A step: its images (C, H, W), each with the lines to write under it.

    `noisy` is None for a pipeline, whose latents are no images; `clean` is then a latent until it
    is decoded.
    """

    noisy: Tensor | None
    noisy_lines: tuple[str, ...]
    clean: Tensor
    clean_lines: tuple[str, ...]

    @property
    def moving(self) -> Tensor:
        """The image that a GIF shows: the noisy one where there is one."""
        return self.clean if self.noisy is None else self.noisy

    @property
    def moving_line(self) -> str:
        """The words about that image."""
        return ", ".join(self.clean_lines if self.noisy is None else self.noisy_lines)

    def decoded(self, decode: Callable[[Tensor], Tensor]) -> ShownStep:
        """Return the step with its latent as an image."""
        return self._replace(clean=decode(self.clean))


Trace = dict[str, list[ShownStep]]
"""By item: every step of its image."""


def trace_of(history: Iterable[StepRecord]) -> Trace:
    """Return the steps of a recorded run. Raises `RunError` where it does not hold the tensors."""
    trace: Trace = {}
    for record in history:
        lanes: Any = record.report.get("lanes", {})
        for key, lane in lanes.items():
            add_step(trace, key, lane["position"], lane["report"])
    return trace


def add_step(trace: Trace, key: str, position: int, report: Any) -> None:
    """Add a step of an image; drop the steps that the image was taken back behind."""
    steps = trace.setdefault(key, [])
    del steps[position - 1 :]
    step = f"step {report['step']}"
    clean = tensor_of(report["clean"]).float()
    if "sigma_next" not in report:  # a pipeline: it reports latents
        steps.append(ShownStep(None, (), clean, (step, f"sigma {_short(report['sigma'])}")))
        return
    # Scaled to variance 1, as a variance-preserving process shows it: noise of sigma 80 would
    # otherwise leave no image to see.
    noisy = tensor_of(report["noisy"]).float() / (1 + report["sigma_next"] ** 2) ** 0.5
    above = (step, f"sigma {_short(report['sigma_next'])}")
    below = (f"at sigma {_short(report['sigma'])}", f"change {report['change']:.2f}")
    steps.append(ShownStep(noisy, above, clean, below))


def _short(sigma: float) -> str:
    return f"{sigma:.0f}" if sigma >= 100 else f"{sigma:.2g}"


def spread(steps: Sequence[ShownStep]) -> list[ShownStep]:
    """Return at most `COLUMNS` of the steps, evenly spread from the first to the last."""
    last = len(steps) - 1
    if last < COLUMNS:
        return list(steps)
    return [steps[round(n * last / (COLUMNS - 1))] for n in range(COLUMNS)]


def strips(steps: Sequence[ShownStep], name: Sequence[str] = ()) -> list[list[Cell]]:
    """Return the rows of a sheet: an image's noisy states, where it has some, and below them the
    clean predictions. `name` is a line above those of each step, if there is one."""
    rows: list[list[Cell]] = []
    if all(step.noisy is not None for step in steps):
        rows.append([(step.noisy, (*name, *step.noisy_lines)) for step in steps])
    rows.append([(step.clean, (*name, *step.clean_lines)) for step in steps])
    return rows


def frames(every: Sequence[Sequence[ShownStep]]) -> list[list[tuple[Tensor, str]]]:
    """Return the images for every step, each with a line; images that ended early stay."""
    last = max(len(steps) for steps in every)
    shown = []
    for n in range(last):
        at = [steps[min(n, len(steps) - 1)] for steps in every]
        # The last frame, which is held, shows the results.
        shown.append(
            [(step.clean if n == last - 1 else step.moving, step.moving_line) for step in at]
        )
    return shown
