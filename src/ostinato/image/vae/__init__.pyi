from .config import RECIPE, SampleVaeRun, Shown, VaeTrainingRun
from .decoding import DecodePoints, Point
from .model import VAE, VAEConfig
from .sampling_run import build_sample_vae, vae_digest
from .training_run import VaeTask, prepare_vae_training

__all__ = [
    "RECIPE",
    "VAE",
    "DecodePoints",
    "Point",
    "SampleVaeRun",
    "Shown",
    "VAEConfig",
    "VaeTask",
    "VaeTrainingRun",
    "build_sample_vae",
    "prepare_vae_training",
    "vae_digest",
]
