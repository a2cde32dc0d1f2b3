from .families import PipelineFamily
from .folder import is_pipeline, load_pipeline
from .inputs import PipelineInputs
from .process import DenoisePipeline, pipeline_loop
from .sample_runs import SamplePipelineRun
from .sample_work import build_sample_pipeline, pipeline_digest

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
