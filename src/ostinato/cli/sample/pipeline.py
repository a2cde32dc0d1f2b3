"""`ostinato sample image` with the folder of a pipeline of diffusers: its options and its loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ostinato.cli.sample.image_checks import NAMES, ImageChecks
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.loop import Loop

WORDS = {"prompt", "negative-prompt", "height", "width"}
COMMON = {
    "count",
    "steps",
    "guidance",
    "seed",
    "each",
    "show-steps",
    "out",
    "run",
    "checkpoint-every",
}
COMMON |= {"json"} | NAMES


def given_options(context: click.Context) -> dict[str, Any]:
    """Return the options that were typed, by their names without the dashes."""
    return {
        parameter.opts[0].lstrip("-"): context.params[parameter.name]
        for parameter in context.command.params
        if isinstance(parameter, click.Option)
        and parameter.name is not None
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    }


def pipeline_loop(
    folder: Path,
    options: Mapping[str, Any],
    wanted: ImageChecks,
    *,
    count: int,
    decode: bool,
    **settings: Any,
) -> tuple[Loop, int]:
    """Return the loop, and how many images it draws; what is not typed is the pipeline's own.

    `settings` go to `pipeline_loop`.

    Raises `InputError` for an option that a pipeline has no use for.
    """
    from ostinato.image.pipelines import PipelineInputs, load_pipeline, pipeline_loop

    for name in options:
        if name not in WORDS | COMMON:
            known = ", ".join(f"--{each}" for each in sorted(WORDS | COMMON))
            raise InputError(f"--{name} must be left out with a pipeline. Known: {known}.")
    family = load_pipeline(folder)
    prompts = options.get("prompt", (None,))
    if family.worded and prompts == (None,):
        raise InputError("--prompt must be given: the pipeline draws what words say.")
    seed = options.get("seed", 0)
    items = [
        PipelineInputs(
            prompt=prompt,
            negative_prompt=options.get("negative-prompt"),
            height=options.get("height"),
            width=options.get("width"),
            seed=seed + n,
        )
        for prompt in prompts
        for n in range(count)
    ]
    checks = wanted.checks(None)
    loop = pipeline_loop(
        items,
        pipeline=family,
        steps=options.get("steps"),
        guidance=options.get("guidance"),
        seed=seed,
        decode=decode,
        checks=checks,
        on_stop=wanted.on_stop(checks),
        **settings,
    )
    return loop, len(items)
