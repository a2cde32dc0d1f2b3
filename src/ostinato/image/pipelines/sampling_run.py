"""Builds runs of pipelines from their configurations."""

from __future__ import annotations

from pathlib import Path

from ostinato.errors import InputError
from ostinato.image import ImageWork, image_checks, image_loop_arguments, shown_as
from ostinato.image.pipelines.config import SamplePipelineRun
from ostinato.image.pipelines.folder import load_pipeline, part_names
from ostinato.image.pipelines.inputs import PipelineInputs
from ostinato.image.pipelines.process import pipeline_loop
from ostinato.journal import RunSource, require_unchanged
from ostinato.models import folder_digest


def build_sample_pipeline(config: SamplePipelineRun, *, run: RunSource | None = None) -> ImageWork:
    """Build the run that samples images with a pipeline."""
    require_unchanged("The pipeline's files", config.weights, pipeline_digest(config.model))
    pipeline = load_pipeline(config.model)
    if pipeline.text_to_image and not config.prompts:
        raise InputError(
            'A text-to-image pipeline must be given a prompt, got none. Add --prompt "a cat".'
        )
    items = [
        PipelineInputs(
            prompt=prompt,
            negative_prompt=config.negative_prompt,
            height=config.height,
            width=config.width,
            seed=config.seed + n,  # consecutive seeds, the same for every prompt
        )
        for prompt in config.prompts or (None,)
        for n in range(config.count)
    ]
    loop = pipeline_loop(
        items,
        pipeline=pipeline,
        steps=config.steps,
        guidance=config.guidance,
        seed=config.seed,
        **image_loop_arguments(config, image_checks(config.checks, None), run),
    )
    return ImageWork(
        loop=loop,
        out=config.out,
        count=len(items),
        **shown_as(config, [item.prompt or f"seed {item.seed}" for item in items]),
        decode=pipeline.decode,
        notes=tuple(
            f"The weights of {name} are those of the variant {variant}."
            for name, variant in pipeline.variants.items()
        ),
    )


def pipeline_digest(folder: str | Path) -> str:
    """Return a hash of the files of a pipeline's components; other files do not count.

    Raises `ModelError` for a folder that is no whole pipeline.
    """
    return folder_digest(folder, part_names(folder))
