"""`ostinato sample image` with a diffusers pipeline: its options as a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ostinato.cli.sample.image_checks import CHECK_OPTIONS, place_of
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.image.pipelines import SamplePipelineRun

PIPELINE_ONLY = {"prompt", "negative-prompt", "height", "width"}
COMMON = CHECK_OPTIONS | {
    *("count", "steps", "guidance", "seed", "each", "show-steps", "out", "json", "quiet"),
    *("caption", "scale", "pace"),
    *("run", "journal", "no-journal", "checkpoint-every"),
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


def pipeline_config(model: str, options: Mapping[str, Any], **common: Any) -> SamplePipelineRun:
    """Return the configuration; `common` are the fields that every run of images has.

    Options that are not typed keep the pipeline's own defaults, not those of our networks. Raises
    `InputError` for an option without effect on a pipeline.
    """
    from ostinato.image.pipelines import SamplePipelineRun, pipeline_digest

    for name in options:
        if name not in PIPELINE_ONLY | COMMON:
            known = ", ".join(f"--{each}" for each in sorted(PIPELINE_ONLY | COMMON))
            raise InputError(f"--{name} must be left out with a pipeline. Known: {known}.")
    return SamplePipelineRun(
        model=place_of(model),
        prompts=options.get("prompt", ()),
        negative_prompt=options.get("negative-prompt"),
        height=options.get("height"),
        width=options.get("width"),
        steps=options.get("steps"),
        guidance=options.get("guidance"),
        weights=pipeline_digest(model),
        **common,
    )
