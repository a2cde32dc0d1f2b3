"""`ostinato train image-tokens` and `ostinato sample image-tokens`: images as rows of tokens."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ostinato.cli.exit_codes import Exit
from ostinato.cli.rows import rows_of
from ostinato.cli.runs.recorded_command import begun_by
from ostinato.cli.runs.run_guard import refuse_another
from ostinato.cli.train.image import IMAGE_OPTIONS
from ostinato.cli.train.shared import (
    begun_folder,
    begun_steps,
    condition_of,
    config_options,
    drive,
    journal_at,
    name_of,
    require_folder,
    run_of,
    run_options,
    steps_of,
)
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.image import Images
    from ostinato.image.tokens import VQ, CodeSettings, ImageTokenModel
    from ostinato.journal import JSON, Journal
    from ostinato.train import TrainingConfig

OPTIONS = {
    name: (kind, "Seed of the order, the networks, the noise and what is held out.")
    if name == "seed"
    else (kind, text)
    for name, (kind, text) in IMAGE_OPTIONS.items()
    if name != "sample_every"
}


@click.command("image-tokens")
@click.argument("sources", nargs=-1, required=True, metavar="FOLDER|digits|IDX-FILE…")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Write it there.")
@click.option(
    "--method",
    type=click.Choice(["row", "pixels", "unmask", "coarse"]),
    default="row",
    show_default=True,
    help="Code after code, pixel after pixel, the surest codes first, or out of noise.",
)
@click.option("--size", type=int, help="Scale to this side, 8 to 64; else as the images are.")
@click.option("--gray/--color", default=None, help="One channel or three.")
@click.option("--hold-out", type=float, default=0.1, show_default=True, help="Share to validate.")
@click.option("--levels", type=int, help="Of a pixel, of --method pixels. [default: 8]")
@click.option("--codec-steps", type=int, help="Steps of the autoencoder. [default: 400]")
@click.option(
    "--codec",
    "codec_folder",
    type=click.Path(path_type=Path),
    help="Take the autoencoder of this model, which was trained on such images before.",
)
@click.option("--layers", type=int, default=4, show_default=True)
@click.option("--width", type=int, default=96, show_default=True)
@click.option("--heads", type=int, default=3, show_default=True)
@click.option(
    "--attribute-dropout", type=float, default=0.2, show_default=True, help="Share of words unsaid."
)
@run_options
@config_options(OPTIONS)
def train_image_tokens(
    sources: tuple[str, ...],
    out: Path,
    method: Literal["row", "pixels", "unmask", "coarse"],
    size: int | None,
    gray: bool | None,
    hold_out: float,
    levels: int | None,
    codec_steps: int | None,
    codec_folder: Path | None,
    layers: int,
    width: int,
    heads: int,
    attribute_dropout: float,
    until: str | None,
    epochs: float | None,
    patience: int | None,
    checkpoint_every: int,
    fresh: bool,
    journal: Path | None,
    run_name: str | None,
    **given: Any,
) -> None:
    """Learn to draw images token by token: first codes of images, then rows of codes.

    SOURCES are a FOLDER of images, `digits`, or IDX files. The words of an image are its class and
    what is measured of it: slanted or upright, thick or thin, large or small. The options of the
    training, from --until on, are those of the rows of codes.
    """
    from ostinato.image import hold_out as held
    from ostinato.image import read_images
    from ostinato.image.tokens import (
        CODES_RECIPE,
        RECIPE,
        Attributes,
        PixelQuantizer,
        new_image_token_model,
        task_of,
    )
    from ostinato.train import Training

    require_folder(out)
    _require_fitting(method, size, levels, codec_steps, codec_folder, attribute_dropout)
    levels, codec_steps = levels or 8, codec_steps or CODES_RECIPE.steps
    given["batch_tokens"] = given.pop("batch_size")
    config = dataclasses.replace(RECIPE, **{k: v for k, v in given.items() if v is not None})
    condition_of(config.steps, until, epochs, patience)  # refused before any work
    images = read_images(sources, size=size, gray=gray)
    train, valid = held(images, hold_out, seed=config.seed)
    attributes = Attributes.of(train)
    with journal_at(journal) as opened:
        codec = (
            PixelQuantizer(channels=images.channels, size=images.size, levels=levels)
            if method == "pixels"
            else _known_codes(codec_folder, images)
            if codec_folder is not None
            else _codes(
                opened,
                begun_folder(opened, run_name, out),
                (train, valid),
                codec_steps,
                config,
                checkpoint_every,
                fresh,
            )
        )
        model = new_image_token_model(
            method, codec, attributes, layers=layers, width=width, heads=heads, seed=config.seed
        )
        task = task_of(model, train, valid, attribute_dropout=attribute_dropout)
        if given["steps"] is None:
            planned = begun_steps(journal, name_of(run_name, out), fresh)
            if planned is None and epochs is not None:
                planned = steps_of(epochs, task.lengths, config)
            config = dataclasses.replace(config, steps=planned or config.steps)
        process = Training(model.network, task, config)
        shape = (method, hold_out, levels, layers, width, heads, attribute_dropout)
        settings = repr((images.fingerprint(), *shape, codec.fingerprint()))
        run = run_of(
            opened, "image-tokens", settings, dataclasses.asdict(config), out, fresh, run_name
        )

        def save() -> None:
            model.network.eval()
            with process.best_weights():
                model.save(out)

        drive(
            process,
            run,
            condition_of(config.steps, until, epochs, patience),
            checkpoint_every,
            counts=(len(train), len(valid)),
            show=lambda step: None,
            save=save,
            out=out,
        )


def _require_fitting(
    method: str,
    size: int | None,
    levels: int | None,
    codec_steps: int | None,
    codec_folder: Path | None,
    attribute_dropout: float,
) -> None:
    """Raise `InputError` for a value out of its range, or one that the method has no use for."""
    if size is not None and not 8 <= size <= 64:
        raise InputError(f"--size must be 8 to 64, got {size}. Give a side such as 28.")
    if not 0 <= attribute_dropout < 1:
        raise InputError(
            f"--attribute-dropout must be in [0, 1), got {attribute_dropout}. Give a share such as 0.2."
        )
    if levels is not None and method != "pixels":
        raise InputError(
            f"--levels must be left out of --method {method}, got {levels}: it has codes."
        )
    if levels is not None and not 2 <= levels <= 256:
        raise InputError(f"--levels must be 2 to 256, got {levels}. Give few, such as 4.")
    if codec_steps is not None and codec_steps < 1:
        raise InputError(f"--codec-steps must be at least 1, got {codec_steps}. Give more.")
    for name, value in {"--codec": codec_folder, "--codec-steps": codec_steps}.items():
        if method == "pixels" and value is not None:
            raise InputError(
                f"{name} must be left out of --method pixels, got {value}: it has no autoencoder."
            )
    if codec_folder is not None and codec_steps is not None:
        raise InputError(
            f"--codec-steps must be left out with --codec, got {codec_steps}: that autoencoder is "
            "trained already."
        )


def _known_codes(folder: Path, images: Images) -> VQ:
    """Read the autoencoder of another model. Raises `InputError` where it is of other images."""
    from ostinato.image.tokens import VQ

    codec = VQ.load(folder / "codes" if (folder / "codes").is_dir() else folder)
    c = codec.config
    if (c.channels, c.size) != (images.channels, images.size):
        raise InputError(
            f"--codec must be of images of {images.channels} channels and {images.size} pixels, "
            f"got {c.channels} and {c.size}. Give --size and --gray or --color as it was trained."
        )
    return codec


def _codes(
    journal: Journal,
    out: Path,
    images: tuple[Images, Images],
    steps: int,
    config: TrainingConfig,
    checkpoint_every: int,
    fresh: bool,
) -> VQ:
    """Train the autoencoder, or go on with its run; return it with its best weights."""
    from ostinato.image.tokens import CODES_RECIPE, VQ, ReconstructionTask, VQConfig
    from ostinato.train import Training

    shape = VQConfig.for_images(images[0].channels, images[0].size)
    network = VQ(shape, seed=config.seed)
    plan = dataclasses.replace(CODES_RECIPE, steps=steps, seed=config.seed)
    process = Training(network, ReconstructionTask(*images), plan)
    settings = repr((images[0].fingerprint(), images[1].fingerprint(), shape))
    named = out.with_name(f"{out.resolve().name}-codes")
    run = run_of(journal, "image-tokens", settings, dataclasses.asdict(plan), named, fresh)

    def save() -> None:
        network.eval()
        with process.best_weights():
            network.save(out / "codes")

    drive(
        process,
        run,
        condition_of(steps, None, None, None),
        checkpoint_every,
        counts=(len(images[0]), len(images[1])),
        show=lambda step: None,
        save=save,
        out=out / "codes",
    )
    return VQ.load(out / "codes")


@click.command("image-tokens")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--prompt", multiple=True, help='Such as "a slanted seven"; more: each.')
@click.option("--count", type=click.IntRange(min=1), default=1, help="Images of each prompt.")
@click.option("--temperature", type=float, help="Above 0; else what is best for its method.")
@click.option(
    "--guidance",
    type=float,
    help="Of unmask and coarse; 1: none; else what is best for its method.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Of unmask. [default: 12]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A .png to write.")
@click.option("--run", "run_name", help="Journal it as a run; the same name goes on where it was.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def sample_image_tokens(
    folder: Path,
    prompt: tuple[str, ...],
    count: int,
    temperature: float | None,
    guidance: float | None,
    steps: int | None,
    seed: int,
    out: Path,
    run_name: str | None,
    as_json: bool,
) -> None:
    """Draw with FOLDER, made by `ostinato train image-tokens`: a row of images for each prompt."""
    from ostinato.image.tokens import TUNED, UNMASK_STEPS, image_token_loop, load_image_token_model
    from ostinato.media import save, tiled

    if out.suffix.lower() != ".png":
        raise InputError(f"--out must be a .png file, got {out}. Name one, such as drawn.png.")
    if out.is_dir():
        raise InputError(f"--out must be a file, got the folder {out}. Name a file in it.")
    model = load_image_token_model(folder)
    prompts = [one for one in prompt or ("",) for _ in range(count)]
    if steps is not None and model.method != "unmask":
        raise InputError(
            f"--steps is for drawings of --method unmask, got one of {model.method}, whose steps are "
            "given. Leave it out."
        )
    given = {"temperature": temperature, "guidance": guidance}
    settings = dataclasses.replace(
        TUNED[model.method], **{name: value for name, value in given.items() if value is not None}
    )
    loop = image_token_loop(
        prompts,
        model=model,
        settings=settings,
        steps=steps,
        seed=seed,
        **_run_settings(run_name, folder, prompts, steps or UNMASK_STEPS, settings, seed),
    )
    rows = rows_of(loop, run_name)
    if len(rows) < len(prompts):
        click.echo(f"{len(rows)} of {len(prompts)} images are done.", err=True)
        if run_name is not None:
            click.echo("Run the same command again: it goes on.", err=True)
        sys.exit(Exit.INTERRUPTED)
    images = [_clean(model, row["output"]) for row in rows]
    grid = [images[at : at + count] for at in range(0, len(images), count)]
    side = images[0].size(-1)
    written = save(tiled(grid), out, side=side)
    if as_json:
        told = [
            {"prompt": w, "codes": str(r["output"])} for w, r in zip(prompts, rows, strict=True)
        ]
        click.echo(json.dumps({"written": str(written), "images": told}))
    else:
        click.echo(f"Wrote {written}: {len(images)} images, each of {model.codec.positions} codes.")


def _run_settings(
    run_name: str | None,
    folder: Path,
    prompts: Sequence[str],
    steps: int,
    settings: CodeSettings,
    seed: int,
) -> dict[str, Any]:
    """Return what a loop is told of its run. Refuses a run that was begun with another order."""
    if run_name is None:
        return {}
    order: dict[str, JSON] = {
        "folder": str(folder),
        "prompts": list(prompts),
        "steps": steps,
        "settings": str(settings),
        "seed": seed,
    }
    refuse_another(run_name, "order", order)
    return {"run": run_name, "spec": {"sample": "image-tokens", "order": order, **begun_by()}}


def _clean(model: ImageTokenModel, output: object) -> Any:
    """Return the image (C, S, S) of a row of codes in [-1, 1]."""
    return model.picture(output).float() / 127.5 - 1
