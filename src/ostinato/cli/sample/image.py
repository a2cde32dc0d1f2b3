"""`ostinato sample` and `ostinato sample image`: denoise images step by step."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.options import json_option, run_option, seed_option
from ostinato.cli.run_loop import exit_interrupted, refuse_errors
from ostinato.cli.runs.run_guard import run_settings
from ostinato.cli.sample.image_checks import ImageChecks, check_options
from ostinato.cli.sample.image_steps import sample_images, write_images
from ostinato.cli.sample.image_tokens import image_tokens
from ostinato.cli.sample.music import music
from ostinato.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ostinato.image import Denoiser, ImageRequest
    from ostinato.journal import JSON
    from ostinato.loop import Loop

ALL = 10_000  # checkpoints that --checkpoint-every keeps: one for every step to branch from
NOT_INPUTS = {"show_steps", "out", "run_name", "checkpoint_every", "as_json"}
"""Parameters that the images do not depend on."""
REASONS = 5  # most frequent reasons that are printed


@click.group()
def sample() -> None:
    """Sample from a trained model, step by step."""


sample.add_command(image_tokens)
sample.add_command(music)


@sample.command()
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
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A .png, a .gif or a folder of images.  [default: a new sample.png]",
)
@run_option
@click.option(
    "--checkpoint-every",
    type=click.IntRange(min=1),
    help="Steps between checkpoints of --run, to branch from.",
)
@json_option
@click.pass_context
def image(
    context: click.Context,
    /,
    model: str,
    labels: tuple[str, ...],
    count: int,
    steps: int,
    solver: str,
    guidance: float,
    guidance_interval: tuple[float, float],
    prompts: tuple[str, ...],
    negative_prompt: str | None,
    height: int | None,
    width: int | None,
    seed: int,
    interpolate_to: int | None,
    source: Path | None,
    strength: float | None,
    mask: Path | None,
    each: str | None,
    show_steps: bool,
    out: Path | None,
    run_name: str | None,
    checkpoint_every: int | None,
    as_json: bool,
    **check_params: Any,
) -> None:
    """Generate images with MODEL: a folder of `ostinato train image`, the shipped `digits`, or the
    folder of a diffusers pipeline."""
    from ostinato.cli.sample.pipeline import PIPELINE_ONLY, open_pipeline_loop, typed_options
    from ostinato.image import denoise_loop, load_denoiser
    from ostinato.image.pipelines import is_pipeline
    from ostinato.loop import parse

    target = _target(out)
    options = typed_options(context)
    image_checks = ImageChecks(**check_params)
    inputs = _inputs(context.params)
    decode = is_pipeline(model) and (show_steps or target.suffix.lower() == ".gif")
    if decode:
        # An input of the run: latents of a pipeline are decoded while it runs, or never.
        inputs["show_steps"] = True
    settings = _run_settings(run_name, checkpoint_every, inputs)
    if each is not None:
        settings["each"] = parse(each)
    if is_pipeline(model):
        loop, total = open_pipeline_loop(
            Path(model), options, image_checks, count=count, decode=decode, **settings
        )
        _finish(loop, total, run_name, target, show_steps=show_steps, as_json=as_json)
        return
    for name in PIPELINE_ONLY & set(options):
        raise InputError(f"--{name} must come with the folder of a pipeline, got {model}.")
    network = load_denoiser(model)
    classes: list[int | None] = [_class(label, network) for label in labels] or [None]
    edit = _edit_fields(network, source, strength, mask)
    if interpolate_to is not None and count == 1:
        raise InputError(
            f"--interpolate-to must come with --count, got {interpolate_to} and one image. "
            "Add --count 8."
        )
    requests = _requests(classes, count, seed, interpolate_to, edit)
    checks = image_checks.checks(network)
    if "rounds" in options and not checks:
        raise InputError("--rounds must come with a check, got none. Add --until-passes.")
    loop = denoise_loop(
        requests,
        model=network,
        checks=checks,
        on_stop=image_checks.on_stop(checks),
        steps=steps,
        solver=solver,
        guidance=guidance,
        guidance_interval=guidance_interval,
        seed=seed,
        **settings,
    )
    _finish(loop, len(requests), run_name, target, show_steps=show_steps, as_json=as_json)


def _finish(
    loop: Loop, total: int, run_name: str | None, target: Path, *, show_steps: bool, as_json: bool
) -> None:
    """Run the loop, write the finished images, and say why each one stopped."""
    steps = show_steps or target.suffix.lower() == ".gif"
    rows, trace = sample_images(loop, run_name, steps=steps)
    if not rows:
        exit_interrupted(0, total, "images", loop.recorded_as)
    refuse_errors(rows)
    write_images(rows, trace, target, show_steps=show_steps)
    _report(rows, target, as_json)
    if len(rows) < total:
        exit_interrupted(len(rows), total, "images", loop.recorded_as)


# Inputs -----------------------------------------------------------------------------------------


def _target(out: Path | None) -> Path:
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


def _inputs(params: Mapping[str, Any]) -> dict[str, JSON]:
    """Return what the images depend on, as a run records it."""
    # As texts: JSON has neither paths nor the infinity of --guidance-interval.
    inputs: dict[str, JSON] = {
        name: str(params[name]) for name in sorted(params) if name not in NOT_INPUTS
    }
    for name in ("source", "mask"):
        path: Path | None = params[name]
        if path is not None and path.is_file():
            # By content, as another image may lie under the same name when the run resumes.
            inputs[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return inputs


def _run_settings(
    run_name: str | None, checkpoint_every: int | None, inputs: dict[str, JSON]
) -> dict[str, Any]:
    """Return the run's settings for a loop. Raises `InputError` for a run of other inputs."""
    from ostinato.loop import CheckpointSchedule

    if run_name is None and checkpoint_every is not None:
        raise InputError(
            f"--checkpoint-every must come with --run, got {checkpoint_every}. Give both."
        )
    settings = run_settings(run_name, "order", inputs, sample="image")
    if checkpoint_every is not None:
        settings["checkpoint"] = CheckpointSchedule(steps=checkpoint_every, keep=ALL)
    return settings


def _class(label: str, network: Denoiser) -> int:
    """Return the number of a class that is given by name or number."""
    names = list(getattr(getattr(network, "config", None), "names", ()))
    # Names first: a class may be called "3" and have another number.
    if label in names:
        return names.index(label)
    if label.isdigit() and int(label) < network.classes:
        return int(label)
    if not network.classes:
        raise InputError(f"--label must be left out: the model has no classes, got {label!r}.")
    known = ", ".join(names) or f"0 to {network.classes - 1}"
    raise InputError(f"--label must be one of {known}, got {label!r}.")


def _edit_fields(
    network: Denoiser, source: Path | None, strength: float | None, mask: Path | None
) -> dict[str, Any]:
    """Return the fields of an `ImageRequest` that changes another image; {} without one."""
    from ostinato.media import image_io

    if source is None:
        for name, value in (("--strength", strength), ("--mask", mask)):
            if value is not None:
                raise InputError(f"{name} must come with --from, the image to change. Give both.")
        return {}
    size = network.size
    fields: dict[str, Any] = {
        "image": image_io.read(source, channels=network.channels, size=size),
        "strength": (1.0 if mask else 0.5) if strength is None else strength,
    }
    if mask is not None:
        fields["mask"] = _mask(mask, size)
    return fields


def _mask(path: Path, size: int) -> Tensor:
    """Return a mask (H, W), 1 where the image is white; transparent parts are not."""
    from ostinato.media import image_io

    return (image_io.read(path, channels=1, size=size, background=0)[0] > 0).float()


def _requests(
    classes: Sequence[int | None],
    count: int,
    seed: int,
    interpolate_to: int | None,
    edit: dict[str, Any],
) -> list[ImageRequest]:
    """Return `count` requests per class: consecutive seeds, or a path from one seed to another."""
    from ostinato.image import ImageRequest

    if interpolate_to is None:
        noises: list[dict[str, Any]] = [{"seed": seed + n} for n in range(count)]
    else:
        shares = [n / max(1, count - 1) for n in range(count)]
        noises = [
            {"seed": seed, "interpolate_to": interpolate_to, "share": share} for share in shares
        ]
    return [ImageRequest(label=label, **noise, **edit) for label in classes for noise in noises]


# Outputs ----------------------------------------------------------------------------------------


def _report(rows: list[dict[str, Any]], target: Path, as_json: bool) -> None:
    images = [
        {
            "key": row["key"],
            "steps": row["length"],
            "calls": row["spent"].get("calls", 0),
            "accepted": row["accepted"],
            "stopped": row["stopped"],
        }
        for row in rows
    ]
    if as_json:
        click.echo(json.dumps({"out": str(target), "images": images}))
        return
    reasons = Counter(row["stopped"]["sentence"] for row in rows)
    for sentence, count in reasons.most_common(REASONS):
        click.echo(f"{count} of {len(rows)}: {sentence}")
    calls = sum(image["calls"] for image in images)
    click.echo(f"Wrote {target} ({calls:g} calls of the network).")
