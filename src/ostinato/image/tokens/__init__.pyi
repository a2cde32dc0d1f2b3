from .attributes import Attributes
from .config import (
    CODES_RECIPE,
    RECIPE,
    CodecTrainingRun,
    ImageTokenTrainingRun,
    Method,
    SampleImageTokensRun,
)
from .discrete_diffusion import DiscreteDiffusion
from .masked_codes import CodeSettings
from .model import (
    TUNED,
    UNMASK_STEPS,
    ImageTokenModel,
    image_token_loop,
    load_image_token_model,
    new_image_token_model,
    task_of,
)
from .network import CodeConfig, CodeNetwork
from .pixel_quantizer import Codec, PixelQuantizer
from .prompt import ImagePrompt
from .sampling_run import (
    ImageTokensWork,
    build_sample_image_tokens,
    image_token_digest,
    with_defaults,
)
from .tasks import DiffusionTask, RowTask, UnmaskTask
from .training_run import (
    build_image_token_training,
    prepare_codec_training,
    prepare_image_token_training,
)
from .unmask import UnmaskCodes
from .vq import VQ, VQConfig

__all__ = [
    "CODES_RECIPE",
    "RECIPE",
    "TUNED",
    "UNMASK_STEPS",
    "VQ",
    "Attributes",
    "CodeConfig",
    "CodeNetwork",
    "CodeSettings",
    "Codec",
    "CodecTrainingRun",
    "DiffusionTask",
    "DiscreteDiffusion",
    "ImagePrompt",
    "ImageTokenModel",
    "ImageTokenTrainingRun",
    "ImageTokensWork",
    "Method",
    "PixelQuantizer",
    "RowTask",
    "SampleImageTokensRun",
    "UnmaskCodes",
    "UnmaskTask",
    "VQConfig",
    "build_image_token_training",
    "build_sample_image_tokens",
    "image_token_digest",
    "image_token_loop",
    "load_image_token_model",
    "new_image_token_model",
    "prepare_codec_training",
    "prepare_image_token_training",
    "task_of",
    "with_defaults",
]
