from .conditions import PosteriorCollapse
from .config import RECIPE, SampleVaeRun, Shown, VaeTrainingRun
from .decoding import DecodePoints, Point
from .model import VAE, VAEConfig, load_vae
from .prior import Prior
from .sampling_run import build_sample_vae, vae_digest
from .task import VaeTask
from .training_run import prepare_vae_training, rescue

__all__ = [
    "RECIPE",
    "VAE",
    "DecodePoints",
    "Point",
    "PosteriorCollapse",
    "Prior",
    "SampleVaeRun",
    "Shown",
    "VAEConfig",
    "VaeTask",
    "VaeTrainingRun",
    "build_sample_vae",
    "load_vae",
    "prepare_vae_training",
    "rescue",
    "vae_digest",
]
