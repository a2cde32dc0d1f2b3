from .autoencoder import Autoencoder, AutoencoderConfig, ReconstructionTask, halvings_for
from .checks import ClassifiedAs, Sharpness
from .classifier import Classifier, ClassifierConfig, load_classifier, save_classifier
from .clip import ClipModel, ClipScore, load_clip
from .config import (
    RECIPE,
    ImageChecks,
    ImageSamplingRun,
    ImageSetRun,
    ImagesRun,
    ImageTrainingRun,
    SampleImageRun,
    SourceImage,
    image_places,
)
from .dataset import Images, hold_out, read_images
from .denoise import Denoise, slerp
from .fixed_batches import (
    BLOCK,
    Denoiser,
    ImageNetwork,
    fixed_batches,
    is_batch_invariant,
    remembered_self_test,
)
from .image_request import ImageRequest, is_whole, pixels
from .image_work import ImageWork
from .one_step import OneStep
from .quality import PrecisionRecall, diversity, frechet_distance, precision_recall
from .sampling import Renoise, denoise_loop, sample_images
from .sampling_run import (
    build_sample_image,
    classifier_digest,
    denoiser_digest,
    image_checks,
    image_loop_arguments,
    noise_requests,
    shown_as,
)
from .solvers import SOLVERS, Solver, jump_sigmas, karras_sigmas, linear_betas, vp_sigmas
from .training import ImageTask, NoiseLevels, PerImageTask, preview, shape_for
from .training_run import prepare_image_training, read_classed_images, read_image_set
from .unet import UNet, UNetConfig, load_denoiser, save_denoiser

__all__ = [
    "BLOCK",
    "RECIPE",
    "SOLVERS",
    "Autoencoder",
    "AutoencoderConfig",
    "ClassifiedAs",
    "Classifier",
    "ClassifierConfig",
    "ClipModel",
    "ClipScore",
    "Denoise",
    "Denoiser",
    "ImageChecks",
    "ImageNetwork",
    "ImageRequest",
    "ImageSamplingRun",
    "ImageSetRun",
    "ImageTask",
    "ImageTrainingRun",
    "ImageWork",
    "Images",
    "ImagesRun",
    "NoiseLevels",
    "OneStep",
    "PerImageTask",
    "PrecisionRecall",
    "ReconstructionTask",
    "Renoise",
    "SampleImageRun",
    "Sharpness",
    "Solver",
    "SourceImage",
    "UNet",
    "UNetConfig",
    "build_sample_image",
    "classifier_digest",
    "denoise_loop",
    "denoiser_digest",
    "diversity",
    "fixed_batches",
    "frechet_distance",
    "halvings_for",
    "hold_out",
    "image_checks",
    "image_loop_arguments",
    "image_places",
    "is_batch_invariant",
    "is_whole",
    "jump_sigmas",
    "karras_sigmas",
    "linear_betas",
    "load_classifier",
    "load_clip",
    "load_denoiser",
    "noise_requests",
    "pixels",
    "precision_recall",
    "prepare_image_training",
    "preview",
    "read_classed_images",
    "read_image_set",
    "read_images",
    "remembered_self_test",
    "sample_images",
    "save_classifier",
    "save_denoiser",
    "shape_for",
    "shown_as",
    "slerp",
    "vp_sigmas",
]
