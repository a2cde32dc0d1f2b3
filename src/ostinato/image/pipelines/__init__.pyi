from .families import PipelineFamily
from .folder import is_pipeline, load_pipeline
from .inputs import PipelineInputs
from .process import DenoisePipeline, pipeline_loop

__all__ = [
    "DenoisePipeline",
    "PipelineFamily",
    "PipelineInputs",
    "is_pipeline",
    "load_pipeline",
    "pipeline_loop",
]
