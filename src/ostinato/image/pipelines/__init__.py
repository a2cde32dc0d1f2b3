"""Pipelines of `diffusers`, out of a local folder, denoised step by step. The extra `diffusers`."""

from ostinato.image.pipelines.drawing import draw_pipeline
from ostinato.image.pipelines.families import Family
from ostinato.image.pipelines.folder import is_pipeline, load_pipeline
from ostinato.image.pipelines.process import DenoisePipeline
from ostinato.image.pipelines.prompted import Prompted

__all__ = [
    "DenoisePipeline",
    "Family",
    "Prompted",
    "draw_pipeline",
    "is_pipeline",
    "load_pipeline",
]
