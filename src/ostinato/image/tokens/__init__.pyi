from .attributes import Attributes
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
from .tasks import CODES_RECIPE, RECIPE, DiffusionTask, ReconstructionTask, RowTask, UnmaskTask
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
    "DiffusionTask",
    "DiscreteDiffusion",
    "ImagePrompt",
    "ImageTokenModel",
    "PixelQuantizer",
    "ReconstructionTask",
    "RowTask",
    "UnmaskCodes",
    "UnmaskTask",
    "VQConfig",
    "image_token_loop",
    "load_image_token_model",
    "new_image_token_model",
    "task_of",
]
