"""`ostinato sample image-tokens`: generate images token by token."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.arguments import counted
from ostinato.cli.following import View, view_options
from ostinato.cli.options import flag_of, seed_option
from ostinato.cli.presenters import drive
from ostinato.cli.recording import Recording, recording_options
from ostinato.cli.run_loop import Exit, exit_interrupted, refuse_errors, results_of
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.image.tokens import SampleImageTokensRun
    from ostinato.journal import RunSource


def spelled(name: str) -> str:
    """Return how a field is called on the command line."""
    names = {
        "model": "FOLDER",
        "prompts": "--prompt",
        "weights": "FOLDER (its files have changed)",
    }
    return names.get(name) or flag_of(name)


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
@view_options
@recording_options(spelled)
def image_tokens(
    recording: Recording,
    folder: Path,
    prompt: tuple[str, ...],
    out: Path,
    view: View,
    **settings: Any,
) -> None:
    """Generate images with FOLDER (of `ostinato train image-tokens`), a row for each prompt."""
    from ostinato.image.tokens import SampleImageTokensRun, image_token_digest, with_defaults

    if out.is_dir():
        raise InputError(f"--out must be a file, got the folder {out}. Name a file in it.")
    config = SampleImageTokensRun(
        model=str(folder.absolute()),
        out=out,
        prompts=prompt or ("",),  # without one, any image
        weights=image_token_digest(folder),
        **settings,
    )
    config = with_defaults(config)
    sys.exit(drive(config, recording, view, spelled))


def present(config: SampleImageTokensRun, run: RunSource | None, view: View) -> Exit:
    """Sample the images, and write them when all are done."""
    from ostinato.image.tokens import ImageTokensWork
    from ostinato.runs import build_config

    work = build_config(config, run=run)
    assert isinstance(work, ImageTokensWork)
    count = len(work.prompts)
    results = results_of(work, count, view)
    if len(results) < count:
        exit_interrupted(len(results), count, "images", work.loop.recorded_as)
    refuse_errors(results)
    work.finish()
    if not view.as_json:
        codes = work.model.codec.positions
        click.echo(f"Wrote {config.out}: {counted(count, 'images')} of {codes} codes each.")
        return Exit.DONE
    summary = [
        {"prompt": text, "codes": str(result.output)}
        for text, result in zip(work.prompts, results, strict=True)
    ]
    click.echo(json.dumps({"written": str(config.out), "images": summary}))
    return Exit.DONE
