"""`ostinato sample`: draw with a model that was trained, step by step."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.exit_codes import Exit
from ostinato.cli.image_tokens import sample_image_tokens
from ostinato.cli.music import sample_music
from ostinato.cli.runs.recorded_command import begun_by
from ostinato.cli.runs.run_guard import refuse_another
from ostinato.cli.sample.image_checks import ImageChecks, check_options
from ostinato.cli.sample.image_steps import drawn, write
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.image import Denoiser, ImageRequest
    from ostinato.journal import JSON
    from ostinato.loop import Loop

ALL = 10_000  # checkpoints that --checkpoint-every keeps
NOT_OF_IMAGES = {"show_steps", "out", "run_name", "checkpoint_every", "as_json"}


@click.group()
def sample() -> None:
    """Draw with a model, step by step."""


sample.add_command(sample_image_tokens)
sample.add_command(sample_music)


@sample.command()
@click.argument("model", default="digits")
@click.option(
    "--label", "labels", multiple=True, help="A class, by its name or number; more: each."
)
@click.option("--count", type=click.IntRange(min=1), default=1, help="Images of each class.")
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True)
@click.option(
    "--solver",
    type=click.Choice(["ddpm", "ddim", "euler", "heun", "dpmpp_2m"]),
    default="dpmpp_2m",
    show_default=True,
)
@click.option("--guidance", type=float, default=1.0, show_default=True, help="1: none.")
@click.option(
    "--guidance-interval",
    type=float,
    nargs=2,
    default=(0.0, math.inf),
    metavar="LOW HIGH",
    help="The noise levels that are guidance_interval.  [all]",
)
@click.option("--prompt", "prompts", multiple=True, help="Words for a pipeline of diffusers.")
@click.option("--negative-prompt", help="Words for what is not to be seen, for a pipeline.")
@click.option("--height", type=click.IntRange(min=1), help="Pixels, for a pipeline.")
@click.option("--width", type=click.IntRange(min=1), help="Pixels, for a pipeline.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--interpolate-to", type=int, help="Turn the noise of --seed to this seed's, image by image."
)
@click.option(
    "--from", "source", type=click.Path(path_type=Path), help="Vary this image, or paint into it."
)
@click.option("--strength", type=float, help="How far --from is noised, above 0 to 1.  [0.5]")
@click.option(
    "--mask", type=click.Path(path_type=Path), help="Paint --from only where this image is white."
)
@click.option("--each", help="End an image by this, such as: Converges('change', 0.01)")
@check_options
@click.option("--show-steps", is_flag=True, help="Show each step: noisy above, clean below.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="A .png or .gif, or a folder of images."
)
@click.option("--run", "run_name", help="Journal it as a run; the same name goes on where it was.")
@click.option(
    "--checkpoint-every",
    type=click.IntRange(min=1),
    help="Steps after which the --run is saved each time, to branch from there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
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
    **checked: Any,
) -> None:
    """Draw images with MODEL: a folder of `ostinato train image`, the shipped `digits`, or the
    folder of a pipeline of diffusers."""
    from ostinato.cli.sample.pipeline import WORDS, given_options, pipeline_loop
    from ostinato.image import denoise_loop, load_denoiser
    from ostinato.image.pipelines import is_pipeline
    from ostinato.loop import parse

    target = _target(out)
    options = given_options(context)
    wanted = ImageChecks(**checked)
    order = _order(context.params)
    decode = is_pipeline(model) and (show_steps or target.suffix.lower() == ".gif")
    if decode:
        order["show_steps"] = True  # a pipeline's steps are decoded while it draws, or never
    settings = _run_settings(run_name, checkpoint_every, order)
    if each is not None:
        settings["each"] = parse(each)
    if is_pipeline(model):
        loop, asked = pipeline_loop(
            Path(model), options, wanted, count=count, decode=decode, **settings
        )
        _finish(loop, asked, run_name, target, show_steps=show_steps, as_json=as_json)
        return
    for name in WORDS & set(options):
        raise InputError(f"--{name} must come with the folder of a pipeline, got {model}.")
    network = load_denoiser(model)
    classes: list[int | None] = [_class(label, network) for label in labels] or [None]
    given = _given(network, source, strength, mask)
    pictures = _pictures(classes, count, seed, interpolate_to, given)
    checks = wanted.checks(network)
    loop = denoise_loop(
        pictures,
        model=network,
        checks=checks,
        on_stop=wanted.on_stop(checks),
        steps=steps,
        solver=solver,
        guidance=guidance,
        guidance_interval=guidance_interval,
        seed=seed,
        **settings,
    )
    _finish(loop, len(pictures), run_name, target, show_steps=show_steps, as_json=as_json)


def _finish(
    loop: Loop, asked: int, run_name: str | None, target: Path, *, show_steps: bool, as_json: bool
) -> None:
    """Run the loop, write what it drew and tell why each image stopped."""
    rows, seen = drawn(loop, run_name)
    if not rows:
        assert loop.stopped is not None
        click.echo(f"No image is done. {loop.stopped.sentence}", err=True)
        sys.exit(Exit.INTERRUPTED)
    refused = [row["stopped"]["sentence"] for row in rows if row["stopped"]["kind"] == "error"]
    if refused:
        raise InputError(refused[0])
    written = write(rows, seen, target, show_steps=show_steps)
    _tell(rows, written, as_json)
    if len(rows) < asked:
        click.echo("Run the same command again: it goes on.", err=True)
        sys.exit(Exit.INTERRUPTED)


# What is asked for -----------------------------------------------------------------------------


def _target(out: Path | None) -> Path:
    """Return where to write; without --out a file that does not exist yet."""
    if out is not None:
        known = ("", ".png", ".gif")
        if out.suffix.lower() not in known:
            raise InputError(f"--out must end in .png or .gif, or be a folder, got {out}.")
        if not out.suffix and out.is_file():
            raise InputError(f"--out must be a folder or end in .png or .gif, got the file {out}.")
        return out
    number = 1
    while (path := Path("sample.png" if number == 1 else f"sample-{number}.png")).exists():
        number += 1
    return path


def _order(options: Mapping[str, Any]) -> dict[str, JSON]:
    """Return what the images depend on, as it is recorded with a run."""
    order: dict[str, JSON] = {
        name: str(options[name]) for name in sorted(options) if name not in NOT_OF_IMAGES
    }
    for name in ("source", "mask"):
        path: Path | None = options[name]
        if path is not None and path.is_file():
            order[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return order


def _run_settings(
    run_name: str | None, checkpoint_every: int | None, order: dict[str, JSON]
) -> dict[str, Any]:
    """Return what a loop is told of its run. Refuses a run that was begun with another order."""
    from ostinato.loop import CheckpointSchedule

    if run_name is None:
        if checkpoint_every is not None:
            raise InputError(
                "--checkpoint-every must come with --run, what is to be saved. Give both."
            )
        return {}
    refuse_another(run_name, "order", order)
    spec = {"sample": "image", "order": order, **begun_by()}
    settings: dict[str, Any] = {"run": run_name, "spec": spec}
    if checkpoint_every is not None:
        settings["checkpoint"] = CheckpointSchedule(steps=checkpoint_every, keep=ALL)
    return settings


def _class(label: str, network: Denoiser) -> int:
    """Return the class of a name or number."""
    config = getattr(network, "config", None)
    names = list(getattr(config, "names", ()))
    if label in names:
        return names.index(label)
    if label.isdigit() and int(label) < network.classes:
        return int(label)
    if not network.classes:
        raise InputError(f"--label must be left out: the model knows no classes, got {label!r}.")
    known = ", ".join(names) or f"0 to {network.classes - 1}"
    raise InputError(f"--label must be one of {known}, got {label!r}.")


def _given(
    network: Denoiser, source: Path | None, strength: float | None, mask: Path | None
) -> dict[str, Any]:
    """Return the fields of a picture that is made from another."""
    from ostinato.media import image_io

    if source is None:
        for name, value in (("--strength", strength), ("--mask", mask)):
            if value is not None:
                raise InputError(f"{name} must come with --from, the image to change. Give it.")
        return {}
    size = network.size
    fields: dict[str, Any] = {
        "image": image_io.read(source, channels=network.channels, size=size),
        "strength": (1.0 if mask else 0.5) if strength is None else strength,
    }
    if mask is not None:
        fields["mask"] = (image_io.read(mask, channels=1, size=size)[0] > 0).float()
    return fields


def _pictures(
    classes: Sequence[int | None],
    count: int,
    seed: int,
    interpolate_to: int | None,
    given: dict[str, Any],
) -> list[ImageRequest]:
    """Return the pictures: seeds counted up from the first, or one seed turned to another."""
    from ostinato.image import ImageRequest

    if interpolate_to is None:
        turns: list[dict[str, Any]] = [{"seed": seed + n} for n in range(count)]
    else:
        shares = [n / max(1, count - 1) for n in range(count)]
        turns = [
            {"seed": seed, "interpolate_to": interpolate_to, "share": share} for share in shares
        ]
    return [ImageRequest(label=label, **turn, **given) for label in classes for turn in turns]


# What came of it -------------------------------------------------------------------------------


def _tell(rows: list[dict[str, Any]], written: Path, as_json: bool) -> None:
    told = [
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
        click.echo(json.dumps({"out": str(written), "images": told}))
        return
    reasons: dict[str, int] = defaultdict(int)
    for row in rows:
        reasons[row["stopped"]["sentence"]] += 1
    for sentence, count in sorted(reasons.items(), key=lambda pair: -pair[1])[:5]:
        click.echo(f"{count} of {len(rows)}: {sentence}")
    calls = sum(row["calls"] for row in told)
    click.echo(f"Wrote {written} ({calls:g} calls of the network).")
