"""`ostinato sample image`: denoise images step by step."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.arguments import counted
from ostinato.cli.following import View, view_options
from ostinato.cli.options import flag_of, seed_option
from ostinato.cli.presenters import drive
from ostinato.cli.recording import Recording, recording_options
from ostinato.cli.run_loop import Exit, exit_interrupted, refuse_errors, results_of
from ostinato.cli.sample.image_checks import check_options, checks_of, place_of
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.image import ImageSamplingRun, ImageWork, SampleImageRun, SourceImage
    from ostinato.journal import RunSource
    from ostinato.loop import LaneResult

REASONS = 5  # most frequent reasons that are printed


_SPELLED = {
    "labels": "--label",
    "prompts": "--prompt",
    "source": "--from",
    "source.content": "--from (its pixels)",
    "source.strength": "--strength",
    "source.mask_content": "--mask (its pixels)",
    "weights": "model (its files have changed)",
    "model": "model",
    "checks.classifier_weights": "--classifier (its files have changed)",
    "checks.clip_weights": "--clip-model (its files have changed)",
}


def spelled(name: str) -> str:
    """Return how a field is called on the command line."""
    return _SPELLED.get(name) or flag_of(name.removeprefix("checks."))


@click.command()
@click.argument("model", default="digits")
@click.option("--label", "labels", multiple=True, help="Class, by name or number; repeatable.")
@click.option("--count", type=click.IntRange(min=1), default=1, help="Images per class or prompt.")
@click.option("--steps", type=click.IntRange(min=1), default=20, help="Denoising steps.")
@click.option(
    "--solver",
    type=click.Choice(["ddpm", "ddim", "euler", "heun", "dpmpp_2m"]),
    default="dpmpp_2m",
    help="Sampler.",
)
@click.option("--guidance", type=float, default=1.0, help="Classifier-free guidance; 1: none.")
@click.option(
    "--guidance-interval",
    type=float,
    nargs=2,
    default=(0.0, math.inf),
    show_default=False,
    metavar="LOW HIGH",
    help="Noise levels (sigma) at which guidance applies.  [default: all]",
)
@click.option("--prompt", "prompts", multiple=True, help="Prompt, for a pipeline; repeatable.")
@click.option("--negative-prompt", help="Negative prompt, for a pipeline.")
@click.option("--height", type=click.IntRange(min=1), help="Height in pixels, for a pipeline.")
@click.option("--width", type=click.IntRange(min=1), help="Width in pixels, for a pipeline.")
@seed_option
@click.option(
    "--interpolate-to",
    type=int,
    help="Seed to interpolate to: noise from --seed to this over --count.",
)
@click.option(
    "--from", "source", type=click.Path(path_type=Path), help="Image to vary or to inpaint."
)
@click.option(
    "--strength",
    type=float,
    help="Noise added to --from, above 0 to 1.  [default: 0.5; 1 with --mask]",
)
@click.option(
    "--mask", type=click.Path(path_type=Path), help="Inpaint --from where this image is white."
)
@click.option("--each", help="Stop condition of each image, such as: Converges('change', 0.01)")
@check_options
@click.option("--show-steps", is_flag=True, help="Write each step: noisy above, clean below.")
@click.option("--caption", is_flag=True, help="Write class, seed and step below each image.")
@click.option(
    "--scale",
    metavar="N",
    type=click.IntRange(min=1),
    help="Enlarge images N times.  [default: large enough to see]",
)
@click.option(
    "--pace", metavar="SECONDS", type=float, help="Seconds per step in a .gif.  [default: 0.3]"
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A .png, a .gif or a folder of images.  [default: a new sample.png]",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(min=1),
    help="Steps between checkpoints, to branch from.",
)
@view_options
@recording_options(spelled)
def image(
    recording: Recording,
    model: str,
    count: int,
    seed: int,
    each: str | None,
    show_steps: bool,
    caption: bool,
    scale: int | None,
    pace: float | None,
    out: Path | None,
    checkpoint_every: int | None,
    view: View,
    **params: Any,
) -> None:
    """Generate images with MODEL: a folder of `ostinato train image`, the shipped `digits`, or the
    folder of a diffusers pipeline."""
    from ostinato.cli.sample.pipeline import pipeline_config, typed_options
    from ostinato.image.pipelines import is_pipeline

    if recording.off and checkpoint_every is not None:
        raise InputError(
            "--checkpoint-every must be given without --no-journal, got both. Leave one out."
        )
    pipeline = is_pipeline(model)
    checks = checks_of(params)
    common = {
        "out": target_of(out),
        "show_steps": show_steps,
        "caption": caption,
        "scale": scale,
        "pace": pace,
        "count": count,
        "seed": seed,
        "each": each,
        "checks": checks.config(pipeline=pipeline),
        "checkpoint_every": checkpoint_every,
    }
    options = typed_options(click.get_current_context())
    config: ImageSamplingRun
    if pipeline:
        config = pipeline_config(model, options, **common)
    else:
        config = _denoiser_config(model, options, params, **common)
    sys.exit(drive(config, recording, view, spelled))


def present(config: ImageSamplingRun, run: RunSource | None, view: View) -> Exit:
    """Sample the images, write those that are done, and say why each one stopped."""
    from ostinato.image import ImageWork
    from ostinato.runs import build_config

    work = build_config(config, run=run)
    assert isinstance(work, ImageWork)
    for note in work.notes:
        view.say(note)
    results = results_of(work, work.count, view)
    if not results:
        exit_interrupted(0, work.count, "images", work.loop.recorded_as)
    refuse_errors(results)
    work.finish()
    if view.says:
        _show(work)
    _report(results, config.out, view)
    if len(results) < work.count:
        exit_interrupted(len(results), work.count, "images", work.loop.recorded_as)
    return Exit.DONE


# Options ----------------------------------------------------------------------------------------


def target_of(out: Path | None) -> Path:
    """Return the path to write; without --out that of a file that does not exist yet."""
    if out is not None:
        if out.suffix.lower() not in ("", ".png", ".gif"):
            raise InputError(f"--out must end in .png or .gif, or be a folder, got {out}.")
        if not out.suffix and out.is_file():
            raise InputError(f"--out must be a folder or end in .png or .gif, got the file {out}.")
        return out
    number = 1
    while (path := Path("sample.png" if number == 1 else f"sample-{number}.png")).exists():
        number += 1
    return path


def _denoiser_config(
    model: str, options: Mapping[str, Any], params: Mapping[str, Any], **common: Any
) -> SampleImageRun:
    """Return the configuration for a denoiser; `common` are the fields that pipelines have too."""
    from ostinato.cli.sample.pipeline import PIPELINE_ONLY
    from ostinato.image import SampleImageRun, denoiser_digest

    for name in PIPELINE_ONLY & set(options):
        raise InputError(f"--{name} must come with the folder of a pipeline, got {model}.")
    to = params["interpolate_to"]
    require_path(to, common["count"])
    low, high = params["guidance_interval"]
    return SampleImageRun(
        model=place_of(model),
        labels=params["labels"],
        steps=params["steps"],
        solver=params["solver"],
        guidance=params["guidance"],
        guidance_interval=(low, None if math.isinf(high) else high),
        interpolate_to=to,
        source=_source(params["source"], params["strength"], params["mask"]),
        weights=denoiser_digest(model),
        **common,
    )


def _source(source: Path | None, strength: float | None, mask: Path | None) -> SourceImage | None:
    """Return the image to change; None without one."""
    from ostinato.image import SourceImage

    if source is None:
        for name, value in (("--strength", strength), ("--mask", mask)):
            if value is not None:
                raise InputError(f"{name} must come with --from, the image to change. Give both.")
        return None
    return SourceImage(
        path=source.absolute(),
        content=_content(source),
        strength=strength,
        mask=None if mask is None else mask.absolute(),
        mask_content="" if mask is None else _content(mask),
    )


def _content(path: Path) -> str:
    """Return the hash of a file; a missing one is refused where it is read."""
    from ostinato.models import file_hash

    return file_hash(path) if path.is_file() else ""


def require_path(to: int | None, count: int) -> None:
    """Refuse to interpolate where there is one image."""
    if to is not None and count == 1:
        raise InputError(
            f"--interpolate-to must come with --count, got {to} and one image. Add --count 8."
        )


# Outputs ----------------------------------------------------------------------------------------


def _show(work: ImageWork) -> None:
    """Print the images where the terminal shows colors and is wide enough."""
    from ostinato.media import image_io

    if _shows_color() and (grid := work.grid()).size(2) <= os.get_terminal_size().columns:
        click.echo(image_io.for_terminal(grid))


def _shows_color() -> bool:
    """Return whether the output is a terminal of 24-bit color (COLORTERM, no-color.org)."""
    colors = os.environ.get("COLORTERM", "") in ("truecolor", "24bit")
    return sys.stdout.isatty() and colors and not os.environ.get("NO_COLOR")


def _report(results: Sequence[LaneResult], target: Path, view: View) -> None:
    images: list[dict[str, Any]] = [
        {
            "key": result.key,
            "steps": result.length,
            "calls": result.spent.get("calls", 0),
            "accepted": result.accepted,
            "stopped": result.stopped.to_json(),
        }
        for result in results
    ]
    if view.as_json:
        click.echo(json.dumps({"out": str(target), "images": images}))
        return
    reasons = Counter(result.stopped.sentence for result in results)
    for sentence, count in reasons.most_common(0 if view.quiet else REASONS):
        click.echo(f"{count} of {len(results)}: {sentence}")
    calls = sum(image["calls"] for image in images)
    click.echo(f"Wrote {target} ({counted(calls, 'calls', 'g')} of the network).")
