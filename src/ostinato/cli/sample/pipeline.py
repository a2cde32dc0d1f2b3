"""`ostinato sample image` with a diffusers pipeline: its options and its loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ostinato.cli.sample.image_checks import CHECK_OPTIONS, ImageChecks
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.loop import Loop

PIPELINE_ONLY = {"prompt", "negative-prompt", "height", "width"}
COMMON = CHECK_OPTIONS | {
    *("count", "steps", "guidance", "seed", "each"),
    *("show-steps", "out", "run", "checkpoint-every", "json"),
}


def typed_options(context: click.Context) -> dict[str, Any]:
    """Return the options that were typed, by their names without the dashes."""
    return {
        parameter.opts[0].lstrip("-"): context.params[parameter.name]
        for parameter in context.command.params
        if isinstance(parameter, click.Option)
        and parameter.name is not None
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    }


def open_pipeline_loop(
    folder: Path,
    options: Mapping[str, Any],
    image_checks: ImageChecks,
    *,
    count: int,
    decode: bool,
    **settings: Any,
) -> tuple[Loop, int]:
    """Return the loop and the number of its images; `settings` go to `pipeline_loop`.

    Options that are not typed keep the pipeline's own defaults, not those of our networks. Raises
    `InputError` for an option without effect on a pipeline.
    """
    from ostinato.image.pipelines import PipelineInputs, load_pipeline, pipeline_loop

    for name in options:
        if name not in PIPELINE_ONLY | COMMON:
            known = ", ".join(f"--{each}" for each in sorted(PIPELINE_ONLY | COMMON))
            raise InputError(f"--{name} must be left out with a pipeline. Known: {known}.")
    pipeline = load_pipeline(folder)
    for name, variant in pipeline.variants.items():
        click.echo(f"The weights of {name} are those of the variant {variant}.", err=True)
    if pipeline.text_to_image and "prompt" not in options:
        raise InputError("--prompt must be given for a text-to-image pipeline, got none.")
    seed = options.get("seed", 0)
    items = [
        PipelineInputs(
            prompt=prompt,
            negative_prompt=options.get("negative-prompt"),
            height=options.get("height"),
            width=options.get("width"),
            seed=seed + n,  # consecutive seeds, the same for every prompt
        )
        for prompt in options.get("prompt", (None,))
        for n in range(count)
    ]
    checks = image_checks.checks(None)
    loop = pipeline_loop(
        items,
        pipeline=pipeline,
        steps=options.get("steps"),
        guidance=options.get("guidance"),
        seed=seed,
        decode=decode,
        checks=checks,
        on_stop=image_checks.on_stop(checks),
        **settings,
    )
    return loop, len(items)
