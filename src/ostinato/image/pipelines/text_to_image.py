"""The layouts that draw what words say: Stable Diffusion, Stable Diffusion 3 and Flux."""

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
    refuse,
)
from ostinato.image.pipelines.inputs import PipelineInputs


class StableDiffusion(Latent):
    """A `UNet2DConditionModel` on latents, with one text encoder: Stable Diffusion 1 and 2."""

    layout = "Stable Diffusion (text_encoder, tokenizer, unet: UNet2DConditionModel, vae)"

    @staticmethod
    def fits(components: Mapping[str, str]) -> bool:
        """Tell whether there is a UNet2DConditionModel with one text encoder and a decoder."""
        parts = {"text_encoder", "tokenizer", "vae", "scheduler"}
        unet = components.get("unet") == "UNet2DConditionModel"
        return unet and parts <= set(components) and "text_encoder_2" not in components

    @staticmethod
    def class_name(told: str) -> str:
        """Return the class that loads it."""
        return "StableDiffusionPipeline"

    def check(self) -> None:
        """Refuse networks that take more than an image and words."""
        kinds = ("class_embed_type", "addition_embed_type", "time_cond_proj_dim")
        refuse(self.network, dict.fromkeys(kinds))
        refuse(self.network, {"in_channels": self.pipeline.vae.config.latent_channels})

    def latent_shape(self, wanted: PipelineInputs) -> tuple[int, int, int]:
        """Return channels, height and width of the latents."""
        config = self.network.config
        return (config.in_channels, *self.cut(wanted, pair(config.sample_size), 8))

    def begin(self, scheduler: Any, noise: Tensor) -> Tensor:
        """Return the noise, as large as the scheduler begins with."""
        begun: Tensor = noise * scheduler.init_noise_sigma
        return begun

    def encode_alone(self, text: str) -> TextEmbedding:
        """Run the text encoder."""
        words, _ = self.pipeline.encode_prompt(text, self.device, 1, False)
        return {"words": words}

    def predict(self, x: Tensor, t: Tensor, words: TextEmbedding, guidance: Tensor) -> Tensor:
        """Run the network."""
        out: Tensor = self.network(x, t, encoder_hidden_states=words["words"], return_dict=False)[0]
        return out


class StableDiffusion3(Latent):
    """A `SD3Transformer2DModel` on latents, with up to three text encoders (flow matching)."""

    layout = "Stable Diffusion 3 (text encoders, transformer: SD3Transformer2DModel, vae)"
    optional = ("text_encoder_3", "tokenizer_3")

    @staticmethod
    def fits(components: Mapping[str, str]) -> bool:
        """Tell whether there is a transformer of that kind, with its two CLIP encoders."""
        parts = {"text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae", "scheduler"}
        return components.get("transformer") == "SD3Transformer2DModel" and parts <= set(components)

    @staticmethod
    def class_name(told: str) -> str:
        """Return the class that loads it."""
        return "StableDiffusion3Pipeline"

    def latent_shape(self, wanted: PipelineInputs) -> tuple[int, int, int]:
        """Return channels, height and width of the latents."""
        config = self.network.config
        unit = self.factor * config.patch_size
        return (config.in_channels, *self.cut(wanted, pair(config.sample_size), unit))

    def set_timesteps(self, scheduler: Any, steps: int, shape: tuple[int, int, int]) -> None:
        """Prepare the scheduler; the shift of the noise levels may depend on the size."""
        more: dict[str, Any] = {}
        if scheduler.config.get("use_dynamic_shifting"):
            patch = self.network.config.patch_size
            more["mu"] = shift(scheduler, (shape[1] // patch) * (shape[2] // patch), 1.16)
        scheduler.set_timesteps(steps, device=self.device, **more)

    def encode_alone(self, text: str) -> TextEmbedding:
        """Run the text encoders."""
        words, _, pooled, _ = self.pipeline.encode_prompt(
            text, None, None, device=self.device, do_classifier_free_guidance=False
        )
        return {"words": words, "pooled": pooled}

    def predict(self, x: Tensor, t: Tensor, words: TextEmbedding, guidance: Tensor) -> Tensor:
        """Run the network."""
        out: Tensor = self.network(
            hidden_states=x,
            timestep=t,
            encoder_hidden_states=words["words"],
            pooled_projections=words["pooled"],
            return_dict=False,
        )[0]
        return out


class Flux(Latent):
    """A `FluxTransformer2DModel` on packed latents, with CLIP and T5 (flow matching).

    Where the guidance is an input of the network (`guidance_embeds`), there is no negative prompt;
    else the guidance is off at its default of 1.
    """

    layout = "Flux (text encoders, transformer: FluxTransformer2DModel, vae)"

    @staticmethod
    def fits(components: Mapping[str, str]) -> bool:
        """Tell whether there is a transformer of that kind, with its two encoders."""
        parts = {"text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae", "scheduler"}
        return components.get("transformer") == "FluxTransformer2DModel" and parts <= set(
            components
        )

    @staticmethod
    def class_name(told: str) -> str:
        """Return the class that loads it."""
        return "FluxPipeline"

    def own_guidance(self, parameters: Mapping[str, inspect.Parameter]) -> float:
        """Return the guidance by default: of the network's input, else none."""
        name = "guidance_scale" if self._distilled else "true_cfg_scale"
        return float(parameters[name].default)

    @property
    def _distilled(self) -> bool:
        return bool(self.network.config.guidance_embeds)

    def uses_guidance(self, guidance: float) -> bool:
        """Tell whether the network runs on the negative prompt also."""
        return guidance > 1 and not self._distilled

    def check_item(self, wanted: PipelineInputs) -> None:
        """Refuse a negative prompt where the guidance is an input."""
        super().check_item(wanted)
        if self._distilled and wanted.negative_prompt is not None:
            raise ItemError(
                "This pipeline takes no negative_prompt: its guidance is an input of the network. "
                "Leave it out."
            )

    def latent_shape(self, wanted: PipelineInputs) -> tuple[int, int, int]:
        """Return channels, height and width of the latents, before they are packed."""
        side: int = self.pipeline.default_sample_size
        size = self.cut(wanted, (side, side), 2 * self.factor)
        return (self.network.config.in_channels // 4, *size)

    def set_timesteps(self, scheduler: Any, steps: int, shape: tuple[int, int, int]) -> None:
        """Prepare the scheduler; the shift of the noise levels depends on the size."""
        sigmas = np.linspace(1.0, 1 / steps, steps)
        own = bool(scheduler.config.get("use_flow_sigmas"))
        given: dict[str, Any] = {"num_inference_steps": steps} if own else {"sigmas": sigmas}
        mu = shift(scheduler, (shape[1] // 2) * (shape[2] // 2), 1.15)
        scheduler.set_timesteps(device=self.device, mu=mu, **given)
        scheduler.set_begin_index(0)

    def encode_alone(self, text: str) -> TextEmbedding:
        """Run the text encoders."""
        words, pooled, _ = self.pipeline.encode_prompt(text, device=self.device)
        return {"words": words, "pooled": pooled}

    def predict(self, x: Tensor, t: Tensor, words: TextEmbedding, guidance: Tensor) -> Tensor:
        """Run the network on latents packed in squares of 2 x 2."""
        B, C, H, W = x.shape
        packed = x.view(B, C, H // 2, 2, W // 2, 2).permute(0, 2, 4, 1, 3, 5)
        places = torch.zeros(H // 2, W // 2, 3, device=x.device, dtype=x.dtype)
        places[..., 1] += torch.arange(H // 2, device=x.device)[:, None]
        places[..., 2] += torch.arange(W // 2, device=x.device)[None, :]
        out: Tensor = self.network(
            hidden_states=packed.reshape(B, (H // 2) * (W // 2), C * 4),
            timestep=t.to(x.dtype) / 1000,
            guidance=guidance if self._distilled else None,
            pooled_projections=words["pooled"],
            encoder_hidden_states=words["words"],
            txt_ids=torch.zeros(words["words"].shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=places.view(-1, 3),
            return_dict=False,
        )[0]
        out = out.view(B, H // 2, W // 2, C, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return out.reshape(B, C, H, W)


FAMILIES: tuple[type[PipelineFamily], ...] = (
    Unconditional,
    StableDiffusion,
    StableDiffusion3,
    Flux,
)


def shift(scheduler: Any, places: int, top: float) -> float:
    """Return the shift of the noise levels for a number of places (Esser et al. 2024, 5.3.2)."""
    config = scheduler.config
    least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", top)
    slope = (high - low) / (most - least)
    return float(places * slope + (low - slope * least))
