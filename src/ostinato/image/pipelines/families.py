"""Families of pipelines: how each encodes prompts, predicts noise and decodes latents.

A family is a thin adapter of the pipeline's own components and of its `encode_prompt`. It computes
in the order of the pipeline's own call, so that a lane yields the same image. Knows no lane.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ostinato.errors import ItemError, ModelError
from ostinato.image.pipelines.inputs import PipelineInputs
from ostinato.image.pipelines.scheduler_check import check_scheduler
from ostinato.image.pipelines.scheduler_state import SchedulerCalls

TextEmbedding = Mapping[str, Tensor]
"""An encoded prompt: what the network takes beside image and time; each tensor has one row."""

CACHED_TEXTS = 256  # their embeddings are kept: a prompt is needed at every step


class PipelineFamily(ABC):
    """A pipeline's components, as a lane process needs them.

    Latents are (C, H, W), images (channels, height, width) in [-1, 1].
    """

    layout: ClassVar[str]
    """What `fits` looks for, for messages."""
    text_to_image: ClassVar[bool] = True
    """Whether it takes a prompt."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Components that a folder may lack, although its pipeline's class requires them."""
    scheduler_calls: SchedulerCalls = SchedulerCalls()
    """How the pipeline's own call uses its scheduler."""
    scheduler_reads: ClassVar[tuple[str, ...]] = ("order",)
    """Attributes of the scheduler that the pipeline's own call reads."""
    usual_scheduler: ClassVar[str] = "FlowMatchEulerDiscreteScheduler"
    """One that works, for messages."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        # U-Net pipelines and transformer pipelines name their network differently.
        self.network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
        self.network.eval()
        self.dtype: torch.dtype = self.network.dtype
        self.device: torch.device = self.network.device
        # The defaults of the call are those that a user of the pipeline would get.
        parameters = inspect.signature(type(pipeline).__call__).parameters
        self.steps: int = parameters["num_inference_steps"].default
        self.guidance = self.default_guidance(parameters)
        self.variants: dict[str, str] = {}  # of components whose weights were read from one
        self._encoded: dict[str, TextEmbedding] = {}
        self.check()
        check_scheduler(self)

    @staticmethod
    @abstractmethod
    def fits(components: Mapping[str, str]) -> bool:
        """Return whether these components (name to class) have the layout."""

    @staticmethod
    @abstractmethod
    def class_name(saved: str) -> str:
        """Return the class that loads the folder; `saved` is the one that the folder names."""

    @abstractmethod
    def latent_shape(self, inputs: PipelineInputs) -> tuple[int, int, int]:
        """Return (C, H, W) of an item. Raises `ItemError` for an impossible size."""

    @abstractmethod
    def predict(self, x: Tensor, t: Tensor, embedding: TextEmbedding, guidance: Tensor) -> Tensor:
        """Run the network on x (B, C, H, W), t (B,), an embedding of B rows, guidance (B,)."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Return the image of a latent (C, H, W), clamped to [-1, 1]."""

    @abstractmethod
    def encode_image(self, image: Tensor) -> Tensor:
        """Return the latent (C, H, W) of an image, the same each time: nothing is sampled."""

    @abstractmethod
    def image_shape(self, latent: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return (channels, height, width) of the image of a latent of this shape."""

    def default_guidance(self, parameters: Mapping[str, inspect.Parameter]) -> float:
        """Return the default guidance of the pipeline's call, given its parameters."""
        return float(parameters["guidance_scale"].default)

    def check(self) -> None:
        """Raise `ModelError` where the network needs inputs that this family does not give."""
        return

    def uses_guidance(self, guidance: float) -> bool:
        """Return whether the network also runs on the negative prompt."""
        return guidance > 1

    def set_timesteps(self, scheduler: Any, steps: int, shape: tuple[int, int, int]) -> None:
        """Prepare a scheduler for a number of steps and latents of a shape."""
        scheduler.set_timesteps(steps, device=self.device)

    def initial_latent(self, scheduler: Any, noise: Tensor) -> Tensor:
        """Return the latent that an image starts from, given standard normal noise."""
        return noise

    def encode(self, text: str) -> TextEmbedding:
        """Return the embedding of a text.

        A text is always encoded alone, so that its bits do not depend on other prompts.
        """
        if text not in self._encoded:
            self._encoded[text] = self.encode_alone(text)
            if len(self._encoded) > CACHED_TEXTS:
                del self._encoded[next(iter(self._encoded))]  # the oldest
        return self._encoded[text]

    def encode_alone(self, text: str) -> TextEmbedding:
        """Run the text encoders on one text; nothing where there are none."""
        return {}

    def check_item(self, inputs: PipelineInputs) -> None:
        """Raise `ItemError` where an item needs what this pipeline does not have."""
        if self.text_to_image and inputs.prompt is None:
            raise ItemError("This pipeline needs a prompt, got none. Give the item a `prompt`.")
        for name in () if self.text_to_image else ("prompt", "negative_prompt", "guidance"):
            if getattr(inputs, name) is not None:
                raise ItemError(
                    f"This pipeline takes no {name}: it is unconditional. Leave it out."
                )


class Unconditional(PipelineFamily):
    """A `UNet2DModel` on pixels, as DDPM and DDIM use it."""

    layout = "unconditional (scheduler, unet: UNet2DModel)"
    text_to_image = False
    scheduler_reads = ()
    usual_scheduler = "DDPMScheduler"

    @staticmethod
    def fits(components: Mapping[str, str]) -> bool:
        """Return whether there is a UNet2DModel, and no encoder or decoder."""
        return components.get("unet") == "UNet2DModel" and set(components) == {"unet", "scheduler"}

    @staticmethod
    def class_name(saved: str) -> str:
        """Return DDIM's where the folder says so, else DDPM's."""
        return "DDIMPipeline" if saved == "DDIMPipeline" else "DDPMPipeline"

    def default_guidance(self, parameters: Mapping[str, inspect.Parameter]) -> float:
        """Return 1: no guidance."""
        return 1.0

    def check(self) -> None:
        """Refuse a class-conditional network: items have no class."""
        require_config(self.network, {"class_embed_type": None, "num_class_embeds": None})

    def latent_shape(self, inputs: PipelineInputs) -> tuple[int, int, int]:
        """Return channels and size of the pixels; the network has one size."""
        size = pair(self.network.config.sample_size)
        requested = (inputs.height or size[0], inputs.width or size[1])
        if requested != size:
            raise ItemError(
                f"This pipeline makes images of {size[0]} x {size[1]} pixels, got {requested[0]} x "
                f"{requested[1]}. Leave `height` and `width` out."
            )
        return (self.network.config.in_channels, *size)

    def predict(self, x: Tensor, t: Tensor, embedding: TextEmbedding, guidance: Tensor) -> Tensor:
        """Run the network on pixels."""
        out: Tensor = self.network(x, t).sample
        return out

    def decode(self, latent: Tensor) -> Tensor:
        """Return the pixels, clamped to [-1, 1]."""
        return latent.clamp(-1, 1)

    def encode_image(self, image: Tensor) -> Tensor:
        """Return the image: pixels are the latents."""
        return image

    def image_shape(self, latent: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the same shape: pixels are the latents."""
        return latent

    def set_timesteps(self, scheduler: Any, steps: int, shape: tuple[int, int, int]) -> None:
        """Prepare the scheduler, on the CPU as the pipeline does."""
        scheduler.set_timesteps(steps)


class Latent(PipelineFamily):
    """Families that work on the latents of an autoencoder."""

    @property
    def factor(self) -> int:
        """The pixels along a side for one position of a latent."""
        factor: int = self.pipeline.vae_scale_factor
        return factor

    def latent_size(
        self, inputs: PipelineInputs, default: tuple[int, int], unit: int
    ) -> tuple[int, int]:
        """Return (H, W) of an item's latents; its sides must be multiples of `unit` pixels."""
        sides = (
            inputs.height or default[0] * self.factor,
            inputs.width or default[1] * self.factor,
        )
        if any(side % unit for side in sides):
            raise ItemError(
                f"height and width must be multiples of {unit}, got {sides[0]} x {sides[1]}."
            )
        return sides[0] // self.factor, sides[1] // self.factor

    def decode(self, latent: Tensor) -> Tensor:
        """Run the decoder on one latent; an image that a safety checker refuses is black."""
        vae = self.pipeline.vae
        shift = getattr(vae.config, "shift_factor", None) or 0.0  # Stable Diffusion 1 and 2: none
        scaled = latent[None] / vae.config.scaling_factor + shift  # (1, C, H, W)
        decoded: Any = vae.decode(scaled.to(vae.dtype), return_dict=False)[0]
        if getattr(self.pipeline, "safety_checker", None) is not None:
            decoded, _ = self.pipeline.run_safety_checker(decoded, self.device, decoded.dtype)
        image: Tensor = decoded[0].clamp(-1, 1).float()
        return image

    def encode_image(self, image: Tensor) -> Tensor:
        """Run the encoder on one image; the latent is the mean of its distribution."""
        vae = self.pipeline.vae
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        mean = vae.encode(image[None].to(vae.dtype)).latent_dist.mode()
        latent: Tensor = ((mean - shift) * vae.config.scaling_factor)[0]
        return latent

    def image_shape(self, latent: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the channels of the decoder, and the sides of the latent times `factor`."""
        channels: int = self.pipeline.vae.config.out_channels
        return channels, latent[1] * self.factor, latent[2] * self.factor


def pair(size: Any) -> tuple[int, int]:
    """Return (height, width) of a size in a config, which may be one number."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def require_config(network: Any, expected: Mapping[str, object]) -> None:
    """Raise `ModelError` where a network's config has other values."""
    for name, value in expected.items():
        got = getattr(network.config, name, None)
        if got != value:
            raise ModelError(
                f"{type(network).__name__}.{name} must be {value}, got {got}. The network needs "
                "more inputs than an image, a time and a prompt: use another checkpoint."
            )
