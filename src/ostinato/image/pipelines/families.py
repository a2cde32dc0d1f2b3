"""What a pipeline's layout tells: how words are encoded, noise is predicted, latents are decoded.

Each family is a thin adaptor of the pipeline's own components and of its own `encode_prompt`; the
order of the products is that of its call, so that a lane goes the same way.
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
from ostinato.image.pipelines.scheduler_state import flows

TextEmbedding = Mapping[str, Tensor]
"""Encoded words, each tensor with one row: what the network takes beside image and time."""


class PipelineFamily(ABC):
    """A pipeline's components, as a lane process needs them. Latents are (C, H, W)."""

    layout: ClassVar[str]
    worded: ClassVar[bool] = True
    """Whether it takes a prompt."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Components that a folder may lack, though its pipeline's class asks for them."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
        self.network.eval()
        self.dtype: torch.dtype = self.network.dtype
        self.device: torch.device = self.network.device
        parameters = inspect.signature(type(pipeline).__call__).parameters
        self.steps: int = parameters["num_inference_steps"].default
        self.guidance = self.own_guidance(parameters)
        self._encoded: dict[str, TextEmbedding] = {}
        self.check()
        scheduler = pipeline.scheduler
        if not (hasattr(scheduler, "alphas_cumprod") or flows(scheduler)):
            raise ModelError(
                f"The scheduler must tell its noise levels, got {type(scheduler).__name__}. Give "
                "the pipeline another, such as DDIMScheduler, and save it again."
            )

    @staticmethod
    @abstractmethod
    def fits(components: Mapping[str, str]) -> bool:
        """Tell whether these components (name to class) are of the layout."""

    @staticmethod
    @abstractmethod
    def class_name(told: str) -> str:
        """Return the class that loads it; `told` is the one that the folder names."""

    @abstractmethod
    def latent_shape(self, wanted: PipelineInputs) -> tuple[int, int, int]:
        """Return (C, H, W). Raises `ItemError` for a size that does not go."""

    @abstractmethod
    def predict(self, x: Tensor, t: Tensor, words: TextEmbedding, guidance: Tensor) -> Tensor:
        """Run the network on x (B, C, H, W), t (B,), words with B rows and guidance (B,)."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Return the picture (channels, height, width) in [-1, 1] of a latent (C, H, W)."""

    @abstractmethod
    def encode_image(self, image: Tensor) -> Tensor:
        """Return the latent (C, H, W) of a picture (channels, height, width) in [-1, 1]."""

    @abstractmethod
    def image_shape(self, latent: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return (channels, height, width) of the picture of a latent of this shape."""

    def own_guidance(self, parameters: Mapping[str, inspect.Parameter]) -> float:
        """Return the guidance that the pipeline's call has by default."""
        return float(parameters["guidance_scale"].default)

    def check(self) -> None:
        """Raise `ModelError` where the network takes more than this layout gives."""
        return None

    def uses_guidance(self, guidance: float) -> bool:
        """Tell whether the network runs on the negative prompt also."""
        return guidance > 1

    def set_timesteps(self, scheduler: Any, steps: int, shape: tuple[int, int, int]) -> None:
        """Prepare a scheduler for so many steps."""
        scheduler.set_timesteps(steps, device=self.device)

    def begin(self, scheduler: Any, noise: Tensor) -> Tensor:
        """Return the noisy latent that a picture begins from, for standard normal noise."""
        return noise

    def encode(self, text: str) -> TextEmbedding:
        """Return the words of a text, always computed alone."""
        if text not in self._encoded:
            self._encoded[text] = self.encode_alone(text)
            if len(self._encoded) > 256:
                del self._encoded[next(iter(self._encoded))]
        return self._encoded[text]

    def encode_alone(self, text: str) -> TextEmbedding:
        """Run the text encoders on one text."""
        return {}

    def check_item(self, wanted: PipelineInputs) -> None:
        """Raise `ItemError` where the picture wants what this pipeline does not have."""
        if self.worded and wanted.prompt is None:
            raise ItemError("This pipeline needs a prompt, got none. Give the item a `prompt`.")
        for name in () if self.worded else ("prompt", "negative_prompt", "guidance"):
            if getattr(wanted, name) is not None:
                raise ItemError(
                    f"This pipeline takes no {name}: it makes images without words. Leave it out."
                )


class Unconditional(PipelineFamily):
    """A `UNet2DModel` on pixels, as DDPM and DDIM use it."""

    layout = "unconditional (scheduler, unet: UNet2DModel)"
    worded = False

    @staticmethod
    def fits(components: Mapping[str, str]) -> bool:
        """Tell whether there is a UNet2DModel and nothing that would read or decode."""
        return components.get("unet") == "UNet2DModel" and set(components) == {"unet", "scheduler"}

    @staticmethod
    def class_name(told: str) -> str:
        """Return the class that loads it: DDIM where the folder says so."""
        return "DDIMPipeline" if told == "DDIMPipeline" else "DDPMPipeline"

    def own_guidance(self, parameters: Mapping[str, inspect.Parameter]) -> float:
        """Return 1: no guidance."""
        return 1.0

    def check(self) -> None:
        """Refuse a network that wants a class."""
        refuse(self.network, {"class_embed_type": None, "num_class_embeds": None})

    def latent_shape(self, wanted: PipelineInputs) -> tuple[int, int, int]:
        """Return the channels and the size of the pixels."""
        size = pair(self.network.config.sample_size)
        given = (wanted.height or size[0], wanted.width or size[1])
        if given != size:
            raise ItemError(
                f"This pipeline makes images of {size[0]} x {size[1]} pixels, got {given[0]} x "
                f"{given[1]}. Leave `height` and `width` out."
            )
        return (self.network.config.in_channels, *size)

    def predict(self, x: Tensor, t: Tensor, words: TextEmbedding, guidance: Tensor) -> Tensor:
        """Run the network."""
        out: Tensor = self.network(x, t).sample
        return out

    def decode(self, latent: Tensor) -> Tensor:
        """Return the pixels."""
        return latent.clamp(-1, 1)

    def encode_image(self, image: Tensor) -> Tensor:
        """Return the pixels."""
        return image

    def image_shape(self, latent: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the same shape."""
        return latent

    def set_timesteps(self, scheduler: Any, steps: int, shape: tuple[int, int, int]) -> None:
        """Prepare the scheduler, on the processor as its pipeline does."""
        scheduler.set_timesteps(steps)


class Latent(PipelineFamily):
    """What works on the latents of an autoencoder."""

    @property
    def factor(self) -> int:
        """How many pixels a side one place of a latent is."""
        factor: int = self.pipeline.vae_scale_factor
        return factor

    def cut(self, wanted: PipelineInputs, default: tuple[int, int], unit: int) -> tuple[int, int]:
        """Return height and width of the latents, for sides that are multiples of `unit`."""
        sides = (
            wanted.height or default[0] * self.factor,
            wanted.width or default[1] * self.factor,
        )
        if any(side % unit for side in sides):
            raise ItemError(
                f"height and width must be multiples of {unit}, got {sides[0]} x {sides[1]}."
            )
        return sides[0] // self.factor, sides[1] // self.factor

    def decode(self, latent: Tensor) -> Tensor:
        """Run the decoder on one latent; what a safety checker refuses comes out black."""
        vae = self.pipeline.vae
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        scaled = latent[None] / vae.config.scaling_factor + shift
        image: Any = vae.decode(scaled.to(vae.dtype), return_dict=False)[0]
        if getattr(self.pipeline, "safety_checker", None) is not None:
            image, _ = self.pipeline.run_safety_checker(image, self.device, image.dtype)
        picture: Tensor = image[0].clamp(-1, 1).float()
        return picture

    def encode_image(self, image: Tensor) -> Tensor:
        """Run the encoder on one picture; of what it says, the mean is taken."""
        vae = self.pipeline.vae
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        mean = vae.encode(image[None].to(vae.dtype)).latent_dist.mode()
        latent: Tensor = ((mean - shift) * vae.config.scaling_factor)[0]
        return latent

    def image_shape(self, latent: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the channels of the decoder, and sides as many times as long."""
        channels: int = self.pipeline.vae.config.out_channels
        return channels, latent[1] * self.factor, latent[2] * self.factor


def pair(size: Any) -> tuple[int, int]:
    """Return height and width of a size that may be one number."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def refuse(network: Any, wanted: Mapping[str, object]) -> None:
    """Raise `ModelError` where a network's settings are others."""
    for name, value in wanted.items():
        got = getattr(network.config, name, None)
        if got != value:
            raise ModelError(
                f"{type(network).__name__}.{name} must be {value} to be stepped, got {got}. Its "
                "network takes more than an image, a time and words: use another checkpoint."
            )
