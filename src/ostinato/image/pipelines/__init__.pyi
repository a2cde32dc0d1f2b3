from .config import SamplePipelineRun
from .families import PipelineFamily
from .folder import is_pipeline, load_pipeline
from .inputs import PipelineInputs
from .process import DenoisePipeline, pipeline_loop
from .sampling_run import build_sample_pipeline, pipeline_digest

__all__ = [
    "DenoisePipeline",
    "PipelineFamily",
    "PipelineInputs",
    "SamplePipelineRun",
    "build_sample_pipeline",
    "is_pipeline",
    "load_pipeline",
    "pipeline_digest",
    "pipeline_loop",
]
