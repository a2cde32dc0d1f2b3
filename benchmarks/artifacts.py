"""What the journal takes for images, beside their PNG, and what a checkpoint of them takes.

    python -m benchmarks.artifacts [--repeats 5] [--json]

For photographs of SIDE pixels a side, of scikit-learn's samples: `SIDE.image_bytes` is what the
journal keeps of one, `SIDE.png_bytes` Pillow's PNG; `SIDE.write_us` is the time from a result to
the disk, of which `SIDE.text_us` is that of a result without an image, and `SIDE.read_us` the time
to read the tensor. `float_bytes` is kept of a float32 image of 64 x 64 after denoising, of
`raw_bytes`. `checkpoint_bytes` is the last checkpoint of two images of 64 x 64 after 50 steps,
`past_bytes` what their steps hold until then.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ostinato.image import denoise_loop
from ostinato.journal import Journal, Run, tensor_of
from ostinato.loop import CheckpointSchedule

SIDES = (64, 256, 512)
STEPS = 50


class Blur(torch.nn.Module):
    """A denoiser of 64 x 64 in color that costs next to nothing."""

    classes, channels, size = 0, 3, 64
    sigma_min, sigma_max = 0.05, 10.0

    def forward(
        self, x: torch.Tensor, sigma: torch.Tensor, label: torch.Tensor | None
    ) -> torch.Tensor:
        """Return a blurred image (B, 3, 64, 64)."""
        return torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1).clamp(-1, 1)


def photos() -> list[Image.Image]:
    """Return the photographs."""
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(each) for each in load_sample_images().images]


def microseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e6


def of_pixels(side: int, repeats: int, folder: Path) -> dict[str, float]:
    """Measure photographs of a size."""
    found: dict[str, list[float]] = {}
    with Journal(folder / f"{side}.db") as journal:
        run = journal.create("a", kind="Benchmark")
        for photo in photos():
            square = photo.crop((0, 0, 427, 427)).resize((side, side), Image.Resampling.LANCZOS)
            png = io.BytesIO()
            square.save(png, "PNG")
            found.setdefault("png_bytes", []).append(len(png.getvalue()))
            pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)
            for repeat in range(repeats):
                measure_one(run, journal, pixels + repeat, found)
        found["image_bytes"] = [float(row.bytes) for row in run.artifacts()]
    names = ("image_bytes", "png_bytes", "write_us", "text_us", "read_us")
    return {f"{side}.{name}": statistics.median(found[name]) for name in names}


def measure_one(
    run: Run, journal: Journal, pixels: torch.Tensor, found: dict[str, list[float]]
) -> None:
    """Write a result with an image and one without, and read the image."""
    key = str(time.time_ns())
    with journal.drive(run) as session:

        def written(key: str, row: dict[str, object]) -> None:
            session.result(key, row)
            session.flush()

        written(f"{key} first", {"accepted": True})
        text = microseconds(lambda: written(f"{key} text", {"accepted": True}))
        write = microseconds(lambda: written(key, {"accepted": True, "output": pixels}))
    row = run.result(key)
    assert row is not None
    read = microseconds(lambda: tensor_of(row["output"]))
    for name, value in (("text_us", text), ("write_us", write), ("read_us", read)):
        found.setdefault(name, []).append(value)


def of_denoising(folder: Path) -> dict[str, float]:
    """Measure the tensors and the checkpoint of two images while they are denoised."""
    with Journal(folder / "denoise.db") as journal:
        schedule = CheckpointSchedule(steps=1, keep=1)
        requests = [None, None]
        denoise_loop(
            requests, model=Blur(), steps=STEPS, run="a", journal=journal, checkpoint=schedule
        ).run()
        run = journal.get("a")
        rows = [row for row in run.artifacts() if row.artifact.dtype == "float32"]
        last = run.checkpoints()[-2]
    raw = 4.0 * 3 * 64 * 64
    return {
        "raw_bytes": raw,
        "float_bytes": statistics.median(row.bytes for row in rows),
        "checkpoint_bytes": float(last.bytes),
        "past_bytes": raw * 2 * len(requests) * last.tick,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.artifacts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=5, help="images of each photograph")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES:
            figures |= of_pixels(side, options.repeats, Path(folder))
        figures |= of_denoising(Path(folder))
    print(f"{platform.machine()}, Python {platform.python_version()}")
    for name, value in figures.items():
        print(f"{name:20} {value:12.0f}")
    if options.json:
        print(json.dumps({name: round(value) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
