"""Make the figures of docs/images.md with the shipped denoiser and classifier.

    python -m recipes.docs_figures docs/images

A test compares the result with the committed files. After a change to a model or a solver, run it,
look at the figures and commit them.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ostinato.image import ClassifiedAs, ImageRequest, Renoise, denoise_loop, load_classifier
from ostinato.loop import Converges, LaneResult, LaneStep
from ostinato.media import Cell, in_grid, sheet, tiled, to_bytes

SCALE = 3  # pixels along a side of an image's pixel
SURE = 0.9  # the probability at which a digit passes


def sampled(requests: Sequence[ImageRequest], **settings: Any) -> list[LaneResult]:
    """Sample images with `digits`; return their results in order."""
    results = [one for step in denoise_loop(requests, **settings) for one in step.results]
    return sorted(results, key=lambda result: result.index)


def lane_steps(requests: Sequence[ImageRequest], **settings: Any) -> list[list[LaneStep]]:
    """Sample images; return the steps of each, with those that were taken back."""
    steps: dict[str, list[LaneStep]] = defaultdict(list)
    indices: dict[str, int] = {}
    for step in denoise_loop(requests, **settings):
        for key, lane in step.lanes.items():
            steps[key].append(lane)
        indices |= {one.key: one.index for one in step.results}
    return [steps[key] for key in sorted(indices, key=lambda key: indices[key])]


def shown(report: Mapping[str, Any]) -> Tensor:
    """Return the noisy image scaled to a variance of about 1, so that its noise can be shown."""
    noisy: Tensor = report["noisy"] / (1 + report["sigma_next"] ** 2) ** 0.5
    return noisy


# The figures ----------------------------------------------------------------------------------


def seven() -> Image.Image:
    """Ten steps of a seven: the noisy image above, the clean prediction below."""
    (steps,) = lane_steps([ImageRequest(label=7, seed=0)], steps=10)
    reports: list[Any] = [step.report for step in steps]
    above: list[Cell] = [
        (shown(each), (f"step {each['step']}", f"sigma {each['sigma_next']:.2g}"))
        for each in reports
    ]
    below: list[Cell] = [
        (each["clean"], (f"at sigma {each['sigma']:.2g}", f"change {each['change']:.2f}"))
        for each in reports
    ]
    return sheet([above, below], scale=SCALE)


def digits() -> Image.Image:
    """Ten images of each class, ten calls of the network each."""
    requests = [ImageRequest(label=n % 10, seed=n) for n in range(100)]
    images = [one.output for one in sampled(requests, steps=10)]
    grid = to_bytes(tiled(in_grid(images, 10)))[0].contiguous().numpy()
    page = Image.fromarray(grid)
    return page.resize((2 * page.width, 2 * page.height), Image.Resampling.NEAREST)


def guidance() -> Image.Image:
    """The same noise with increasing guidance."""
    rows: list[list[Cell]] = []
    for strength in (1.0, 2.0, 4.0):
        requests = [ImageRequest(label=n, seed=30 + n) for n in range(10)]
        images = [one.output for one in sampled(requests, steps=12, guidance=strength)]
        lines = [f"guidance {strength:g}", *[""] * 9]
        rows.append([(image, (line,)) for image, line in zip(images, lines, strict=True)])
    return sheet(rows, scale=2)


def converges() -> Image.Image:
    """Clean predictions of three digits; those after the stop are pale."""
    requests = [ImageRequest(label=n, seed=n) for n in (2, 5, 8)]
    settings: dict[str, Any] = {"steps": 20, "solver": "euler"}
    stop = Converges("change", 0.0095, over=3)
    lengths = [one.length for one in sampled(requests, each=stop, **settings)]
    rows: list[list[Cell]] = []
    for length, steps in zip(lengths, lane_steps(requests, **settings), strict=True):
        cells: list[Cell] = []
        for step in steps[5:]:
            report: Any = step.report
            before_stop = step.position <= length
            line = f"{report['change']:.3f}" + (" stop" if step.position == length else "")
            cells.append((report["clean"] if before_stop else _pale(report["clean"]), (line,)))
        rows.append(cells)
    return sheet(rows, scale=2)


def _pale(image: Tensor) -> Tensor:
    return 0.7 + image.clamp(-1, 1) * 0.3


def renoise() -> Image.Image:
    """Digits that a classifier does not recognize, and the same after each backtrack."""
    check = ClassifiedAs(classifier=load_classifier(), least=SURE)
    # Of these, the first four that pass after one to four backtracks are shown.
    requests = [ImageRequest(label=n % 10, seed=n) for n in range(60)]
    attempts = lane_steps(
        requests, checks=[check], on_stop=Renoise(share=0.4, rounds=3), steps=10, solver="euler"
    )
    rows: list[list[Cell]] = []
    for request, steps in zip(requests, attempts, strict=True):
        ends: list[Any] = [step for step in steps if step.stopped is not None]
        passed = ends[-1].stopped.good
        if not passed or not 2 <= len(ends) <= 5:
            continue
        rows.append([_attempt(check, request, end) for end in ends])
    return sheet(rows[:4], scale=SCALE)


def _attempt(check: ClassifiedAs, request: ImageRequest, end: LaneStep) -> Cell:
    """Return the cell of an attempt: the image, its probability, and what follows."""
    report: Any = end.report
    action: Any = end.action
    score = check.judge(report["clean"], {"label": request.label}).score
    back = getattr(action, "to", None)
    outcome = (
        "passed" if score >= SURE else "start over" if back is None else f"back to step {back}"
    )
    return report["clean"], (f"a {request.label}: {score:.0%}", outcome)


def variation() -> Image.Image:
    """A digit, and its variations with increasing strength."""
    first = _first(3, 5)
    strengths = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
    requests = [ImageRequest(label=3, image=first, strength=each, seed=1) for each in strengths]
    images = [one.output for one in sampled(requests, steps=20)]
    cells: list[Cell] = [(first, ("the image",))]
    cells += [(y, (f"strength {s}",)) for y, s in zip(images, strengths, strict=True)]
    return sheet([cells], scale=SCALE)


def inpainting() -> Image.Image:
    """The lower half of a digit, sampled again as several classes."""
    first = _first(9, 2)
    mask = torch.zeros(28, 28)
    mask[14:] = 1
    labels = (9, 9, 7, 4, 8, 0)
    requests = [
        ImageRequest(label=label, image=first, mask=mask, seed=seed)
        for seed, label in enumerate(labels)
    ]
    images = [one.output for one in sampled(requests, steps=20)]
    masked = torch.where(mask > 0, torch.zeros(()), first)
    cells: list[Cell] = [(first, ("the image",)), (masked, ("gray: masked",))]
    cells += [(y, (f"as a {label}",)) for y, label in zip(images, labels, strict=True)]
    return sheet([cells], scale=SCALE)


def interpolation() -> Image.Image:
    """From the noise of one seed to that of another, in two classes."""
    shares = [n / 7 for n in range(8)]
    rows: list[list[Cell]] = []
    for label, (seed, toward) in ((2, (12, 82)), (5, (15, 55))):
        requests = [
            ImageRequest(label=label, seed=seed, interpolate_to=toward, share=share)
            for share in shares
        ]
        images = [one.output for one in sampled(requests, steps=20)]
        rows.append([(y, (f"{share:.2f}",)) for y, share in zip(images, shares, strict=True)])
    return sheet(rows, scale=SCALE)


def _first(label: int, seed: int) -> Tensor:
    (result,) = sampled([ImageRequest(label=label, seed=seed)], steps=20)
    image: Tensor = result.output
    return image


FIGURES: Mapping[str, Callable[[], Image.Image]] = {
    make.__name__: make
    for make in (
        seven,
        digits,
        guidance,
        converges,
        renoise,
        variation,
        inpainting,
        interpolation,
    )
}


def main(folder: Path) -> None:
    """Write all figures."""
    for name, make in FIGURES.items():
        make().save(folder / f"{name}.png", optimize=True)
        print(folder / f"{name}.png", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
