"""Text-to-image families: Stable Diffusion, Stable Diffusion 3 and Flux. Knows no lane."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato.errors import ItemError
from ostinato.image.pipelines.families import (
    Latent,
    PipelineFamily,
    TextEmbedding,
    Unconditional,
    pair,
    require_config,
)
from ostinato.image.pipelines.inputs import PipelineInputs
from ostinato.image.pipelines.scheduler_state import SchedulerCalls


class StableDiffusion(Latent):
    """A `UNet2DConditionModel` on latents, with one text encoder: Stable Diffusion 1 and 2."""

    layout = "Stable Diffusion (text_encoder, tokenizer, unet: UNet2DConditionModel, vae)"
    # Its call has eta = 0 where a scheduler's own default may be another (TCD: 0.3).
    scheduler_calls = SchedulerCalls(scales_input=True, options={"eta": 0.0})
    scheduler_reads = ("order", "init_noise_sigma")
    usual_scheduler = "DDIMScheduler"

    @staticmethod
    def fits(components: Mapping[str, str]) -> bool:
        """Return whether there is a UNet2DConditionModel with one text encoder and a decoder."""
        parts = {"text_encoder", "tokenizer", "vae", "scheduler"}
        unet = components.get("unet") == "UNet2DConditionModel"
        return unet and parts <= set(components) and "text_encoder_2" not in components

    @staticmethod
    def class_name(saved: str) -> str:
        """Return the one class of this layout."""
        return "StableDiffusionPipeline"

    def check(self) -> None:
        """Refuse networks that need more than a latent and a prompt, such as inpainting."""
        kinds = ("class_embed_type", "addition_embed_type", "time_cond_proj_dim")
        require_config(self.network, dict.fromkeys(kinds))
        require_config(self.network, {"in_channels": self.pipeline.vae.config.latent_channels})

    def latent_shape(self, inputs: PipelineInputs) -> tuple[int, int, int]:
        """Return (C, H, W); sides are multiples of what network and decoder take."""
        config = self.network.config
        # 8 whatever the decoder: the pipeline's own call refuses other sides.
        return (config.in_channels, *self.latent_size(inputs, pair(config.sample_size), 8))

    def initial_latent(self, scheduler: Any, noise: Tensor) -> Tensor:
        """Return the noise at the scheduler's first noise level."""
        latent: Tensor = noise * scheduler.init_noise_sigma
        return latent

    def encode_alone(self, text: str) -> TextEmbedding:
        """Return `states` (1, T, C) of the text encoder."""
        # 1 image, and without the negative prompt: that is a text of its own here.
        states, _ = self.pipeline.encode_prompt(text, self.device, 1, False)
        return {"states": states}

    def predict(self, x: Tensor, t: Tensor, embedding: TextEmbedding, guidance: Tensor) -> Tensor:
        """Run the network on latents."""
        out: Tensor = self.network(
            x, t, encoder_hidden_states=embedding["states"], return_dict=False
        )[0]
        return out


class StableDiffusion3(Latent):
    """A `SD3Transformer2DModel` on latents, with up to three text encoders (flow matching)."""

    layout = "Stable Diffusion 3 (text encoders, transformer: SD3Transformer2DModel, vae)"
    optional = ("text_encoder_3", "tokenizer_3")

    @staticmethod
    def fits(components: Mapping[str, str]) -> bool:
        """Return whether there is a transformer of that class, with its two CLIP encoders."""
        parts = {"text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae", "scheduler"}
        return components.get("transformer") == "SD3Transformer2DModel" and parts <= set(components)

    @staticmethod
    def class_name(saved: str) -> str:
        """Return the one class of this layout."""
        return "StableDiffusion3Pipeline"

    def latent_shape(self, inputs: PipelineInputs) -> tuple[int, int, int]:
        """Return (C, H, W); sides are multiples of what network and decoder take."""
        config = self.network.config
        unit = self.factor * config.patch_size
        return (config.in_channels, *self.latent_size(inputs, pair(config.sample_size), unit))

    def set_timesteps(self, scheduler: Any, steps: int, shape: tuple[int, int, int]) -> None:
        """Prepare the scheduler; the shift of its noise levels may depend on the size."""
        shifts: dict[str, Any] = {}
        if scheduler.config.get("use_dynamic_shifting"):
            patch = self.network.config.patch_size
            # 1.16 is the fallback of this pipeline's own call, 1.15 that of Flux.
            shifts["mu"] = noise_shift(scheduler, (shape[1] // patch) * (shape[2] // patch), 1.16)
        scheduler.set_timesteps(steps, device=self.device, **shifts)

    def encode_alone(self, text: str) -> TextEmbedding:
        """Return `states` (1, T, C) and `pooled` (1, C) of the text encoders."""
        states, _, pooled, _ = self.pipeline.encode_prompt(
            text, None, None, device=self.device, do_classifier_free_guidance=False
        )
        return {"states": states, "pooled": pooled}

    def predict(self, x: Tensor, t: Tensor, embedding: TextEmbedding, guidance: Tensor) -> Tensor:
        """Run the network on latents."""
        out: Tensor = self.network(
            hidden_states=x,
            timestep=t,
            encoder_hidden_states=embedding["states"],
            pooled_projections=embedding["pooled"],
            return_dict=False,
        )[0]
        return out


class Flux(Latent):
    """A `FluxTransformer2DModel` on packed latents, with CLIP and T5 (flow matching).

    A distilled network (`guidance_embeds`) takes the guidance as an input and has no negative
    prompt. In others the guidance is off at its default of 1.
    """

    layout = "Flux (text encoders, transformer: FluxTransformer2DModel, vae)"

    def __init__(self, pipeline: Any) -> None:
        self.scheduler_calls = SchedulerCalls(pack=packed, unpack=unpacked)
        super().__init__(pipeline)

    @staticmethod
    def fits(components: Mapping[str, str]) -> bool:
        """Return whether there is a transformer of that class, with its two encoders."""
        parts = {"text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae", "scheduler"}
        return components.get("transformer") == "FluxTransformer2DModel" and parts <= set(
            components
        )

    @staticmethod
    def class_name(saved: str) -> str:
        """Return the one class of this layout."""
        return "FluxPipeline"

    def default_guidance(self, parameters: Mapping[str, inspect.Parameter]) -> float:
        """Return the default of the parameter that this network uses."""
        name = "guidance_scale" if self._distilled else "true_cfg_scale"
        return float(parameters[name].default)

    @property
    def _distilled(self) -> bool:
        return bool(self.network.config.guidance_embeds)

    def uses_guidance(self, guidance: float) -> bool:
        """Return whether the network also runs on the negative prompt."""
        return guidance > 1 and not self._distilled

    def check_item(self, inputs: PipelineInputs) -> None:
        """Refuse a negative prompt where the network is distilled."""
        super().check_item(inputs)
        if self._distilled and inputs.negative_prompt is not None:
            raise ItemError(
                "This pipeline takes no negative_prompt: its guidance is an input of the network. "
                "Leave it out."
            )

    def latent_shape(self, inputs: PipelineInputs) -> tuple[int, int, int]:
        """Return (C, H, W) of the latents before they are packed."""
        side: int = self.pipeline.default_sample_size
        size = self.latent_size(inputs, (side, side), 2 * self.factor)
        return (self.network.config.in_channels // 4, *size)

    def set_timesteps(self, scheduler: Any, steps: int, shape: tuple[int, int, int]) -> None:
        """Prepare the scheduler; the shift of its noise levels depends on the size."""
        sigmas = np.linspace(1.0, 1 / steps, steps)
        own = bool(scheduler.config.get("use_flow_sigmas"))  # it computes its levels itself
        levels: dict[str, Any] = {"num_inference_steps": steps} if own else {"sigmas": sigmas}
        mu = noise_shift(scheduler, (shape[1] // 2) * (shape[2] // 2), 1.15)
        scheduler.set_timesteps(device=self.device, mu=mu, **levels)
        scheduler.set_begin_index(0)  # else the scheduler searches its step by timestep

    def encode_alone(self, text: str) -> TextEmbedding:
        """Return `states` (1, T, C) of T5 and `pooled` (1, C) of CLIP."""
        states, pooled, _ = self.pipeline.encode_prompt(text, device=self.device)
        return {"states": states, "pooled": pooled}

    def predict(self, x: Tensor, t: Tensor, embedding: TextEmbedding, guidance: Tensor) -> Tensor:
        """Run the network on latents packed in squares of 2 x 2, with their positions."""
        H, W = x.shape[2:]
        positions = torch.zeros(H // 2, W // 2, 3, device=x.device, dtype=x.dtype)
        positions[..., 1] += torch.arange(H // 2, device=x.device)[:, None]
        positions[..., 2] += torch.arange(W // 2, device=x.device)[None, :]
        out: Tensor = self.network(
            hidden_states=packed(x),
            timestep=t.to(x.dtype) / 1000,  # the network takes it in [0, 1]
            guidance=guidance if self._distilled else None,
            pooled_projections=embedding["pooled"],
            encoder_hidden_states=embedding["states"],
            # Text tokens have no position.
            txt_ids=torch.zeros(embedding["states"].shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=positions.view(-1, 3),
            return_dict=False,
        )[0]
        return unpacked(out, x)


FAMILIES: tuple[type[PipelineFamily], ...] = (
    Unconditional,
    StableDiffusion,
    StableDiffusion3,
    Flux,
)


def packed(latent: Tensor) -> Tensor:
    """Return latents (B, C, H, W) in squares of 2 x 2: (B, T, 4 C)."""
    B, C, H, W = latent.shape
    squares = latent.view(B, C, H // 2, 2, W // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(B, (H // 2) * (W // 2), C * 4)


def unpacked(squares: Tensor, like: Tensor) -> Tensor:
    """Return squares (B, T, 4 C) as latents of the shape of `like` (B, C, H, W)."""
    B, C, H, W = like.shape
    rows = squares.view(B, H // 2, W // 2, C, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return rows.reshape(B, C, H, W)


def noise_shift(scheduler: Any, tokens: int, max_shift: float) -> float:
    """Return the shift of the noise levels for a number of image tokens.

    Esser et al. 2024, section 5.3.2. `max_shift` is used where the scheduler's config has none.
    """
    config = scheduler.config
    least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", max_shift)
    slope = (high - low) / (most - least)
    return float(tokens * slope + (low - slope * least))
