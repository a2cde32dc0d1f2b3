"""Images, denoised step by step."""

from ostinato.image.checks import Recognised, Sharp
from ostinato.image.classifier import (
    Classifier,
    ClassifierConfig,
    load_classifier,
    save_classifier,
)
from ostinato.image.clip import Clip, Depicts, load_clip
from ostinato.image.data import Images, hold_out, read_images
from ostinato.image.denoise import Denoise
from ostinato.image.drawing import draw
from ostinato.image.picture import Picture
from ostinato.image.renoise import Renoise
from ostinato.image.solvers import (
    SOLVERS,
    Solver,
    jump_sigmas,
    karras_sigmas,
    linear_betas,
    vp_sigmas,
)
from ostinato.image.unet import UNet, UNetConfig, load_denoiser, save_denoiser

__all__ = [
    "SOLVERS",
    "Classifier",
    "ClassifierConfig",
    "Clip",
    "Denoise",
    "Depicts",
    "Images",
    "Picture",
    "Recognised",
    "Renoise",
    "Sharp",
    "Solver",
    "UNet",
    "UNetConfig",
    "draw",
    "hold_out",
    "jump_sigmas",
    "karras_sigmas",
    "linear_betas",
    "load_classifier",
    "load_clip",
    "load_denoiser",
    "read_images",
    "save_classifier",
    "save_denoiser",
    "vp_sigmas",
]
