"""Tiny pipelines of `diffusers` for tests: real layouts, random weights, built offline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LONGEST = 16  # tokens of a prompt


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """Make a tokenizer of single bytes: its two files, then the class that reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": LONGEST}), "utf-8"
    )
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def t5_tokenizer() -> T5Tokenizer:
    """Make a tokenizer of single letters."""
    letters = "▁abcdefghijklmnopqrstuvwxyz,."
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0)]
    vocabulary += [(letter, -3.0) for letter in letters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=LONGEST)


def text_encoder(projection: int | None = None) -> Any:
    """Make a CLIP text encoder, with a projection of its pooled output on request."""
    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LONGEST,
        projection_dim=projection or 32,
        bos_token_id=512,
        eos_token_id=513,
    )
    kind: Any = CLIPTextModelWithProjection if projection else CLIPTextModel
    return kind(config).eval()


def t5_encoder(width: int = 32) -> Any:
    """Make a T5 text encoder."""
    config = T5Config(
        vocab_size=40, d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4, dropout_rate=0.0
    )
    encoder: Any = T5EncoderModel(config)
    return encoder.eval()


def autoencoder(channels: int, shift: float | None = None) -> Any:
    """Make an autoencoder that halves the sides."""
    decoder: Any = AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        sample_size=16,
        scaling_factor=0.5,
        shift_factor=shift,
        use_quant_conv=shift is None,
        use_post_quant_conv=shift is None,
    )
    return decoder.eval()


def unconditional(folder: Path, scheduler: str = "ddpm") -> Path:
    """Save a pipeline of a UNet2DModel of 8 x 8 gray pixels."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    ).eval()
    if scheduler == "ddpm":
        DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)
    else:
        DDIMPipeline(unet, DDIMScheduler()).save_pretrained(folder)
    return folder


def stable_diffusion(folder: Path, scheduler: Any = None) -> Path:
    """Save a pipeline of the Stable Diffusion layout: latents of 8 x 8, images of 16 x 16."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    ).eval()
    StableDiffusionPipeline(
        vae=autoencoder(4),
        text_encoder=text_encoder(),
        tokenizer=clip_tokenizer(folder / "tokenizer"),
        unet=unet,
        scheduler=scheduler or PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def stable_diffusion_3(folder: Path, *, t5: bool = True) -> Path:
    """Save a pipeline of the Stable Diffusion 3 layout; `t5` False: without its third encoder."""
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=64,
        caption_projection_dim=16,
        pooled_projection_dim=48,
        pos_embed_max_size=16,
    ).eval()
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(4, 0.1),
        text_encoder=text_encoder(24),
        tokenizer=clip_tokenizer(folder / "tokenizer"),
        text_encoder_2=text_encoder(24),
        tokenizer_2=clip_tokenizer(folder / "tokenizer_2"),
        text_encoder_3=t5_encoder(64) if t5 else None,
        tokenizer_3=t5_tokenizer() if t5 else None,
    ).save_pretrained(folder)
    return folder


def flux(folder: Path, *, distilled: bool = True) -> Path:
    """Save a pipeline of the Flux layout; `distilled`: the guidance is an input of the network."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=distilled,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder(4, 0.1),
        text_encoder=text_encoder(),
        tokenizer=clip_tokenizer(folder / "tokenizer"),
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "ddpm": unconditional,
    "ddim": lambda folder: unconditional(folder, "ddim"),
    "stable_diffusion": stable_diffusion,
    "stable_diffusion_3": stable_diffusion_3,
    "flux": flux,
}
