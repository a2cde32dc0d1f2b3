"""`ostinato sample image-tokens`: generate images token by token."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ostinato.arguments import counted, require
from ostinato.cli.options import json_option, run_option, seed_option
from ostinato.cli.run_loop import exit_interrupted, rows_of
from ostinato.cli.runs.run_guard import run_settings
from ostinato.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ostinato.image.tokens import ImageTokenModel
    from ostinato.journal import JSON


@click.command("image-tokens")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--prompt", multiple=True, help='Prompt, such as "a slanted seven"; repeatable.')
@click.option("--count", type=click.IntRange(min=1), default=1, help="Images per prompt.")
@click.option(
    "--temperature", type=float, help="Sampling temperature, above 0.  [default: the method's]"
)
@click.option(
    "--guidance",
    type=float,
    help="Classifier-free guidance for unmask and coarse; 1: none.  [default: the method's]",
)
@click.option("--steps", type=click.IntRange(min=1), help="Steps, for unmask.  [default: 12]")
@seed_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .png to write.")
@run_option
@json_option
def image_tokens(
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
    """Generate images with FOLDER (of `ostinato train image-tokens`), a row for each prompt."""
    from ostinato.image.tokens import TUNED, UNMASK_STEPS, image_token_loop, load_image_token_model
    from ostinato.media import gutter_of, save, tiled

    require(out.suffix.lower() == ".png", "--out", "a .png file", str(out), "Name one: digits.png.")
    if out.is_dir():
        raise InputError(f"--out must be a file, got the folder {out}. Name a file in it.")
    model = load_image_token_model(folder)
    prompts = [one for one in prompt or ("",) for _ in range(count)]  # without one, any image
    if steps is not None and model.method != "unmask":
        raise InputError(
            f"--steps must come with a model of --method unmask, got {model.method}, whose steps "
            "are fixed. Leave it out."
        )
    typed = {"temperature": temperature, "guidance": guidance}
    settings = dataclasses.replace(
        TUNED[model.method], **{name: value for name, value in typed.items() if value is not None}
    )
    inputs: dict[str, JSON] = {
        "folder": str(folder),
        "prompts": list(prompts),
        "steps": steps or UNMASK_STEPS,
        "settings": str(settings),
        "seed": seed,
    }
    loop = image_token_loop(
        prompts,
        model=model,
        settings=settings,
        steps=steps,
        seed=seed,
        **run_settings(run_name, "order", inputs, sample="image-tokens"),
    )
    rows = rows_of(loop)
    if len(rows) < len(prompts):
        exit_interrupted(len(rows), len(prompts), "images", loop.recorded_as)
    images = [_pixels(model, row["output"]) for row in rows]
    grid = [images[at : at + count] for at in range(0, len(images), count)]  # a row per prompt
    side = images[0].size(-1)
    written = save(tiled(grid, gutter=gutter_of(side)), out, side=side)
    if not as_json:
        click.echo(
            f"Wrote {written}: {counted(len(images), 'images')} of "
            f"{model.codec.positions} codes each."
        )
        return
    summary = [
        {"prompt": text, "codes": str(row["output"])}
        for text, row in zip(prompts, rows, strict=True)
    ]
    click.echo(json.dumps({"written": str(written), "images": summary}))


def _pixels(model: ImageTokenModel, output: object) -> Tensor:
    """Return the image (C, S, S) in [-1, 1] of a row of codes."""
    return model.image(output).float() / 127.5 - 1
