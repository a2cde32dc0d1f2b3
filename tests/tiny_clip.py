"""A tiny CLIP model of random weights, in the layout of `transformers`, built offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_pipelines import LONGEST, clip_tokenizer

SIDE = 32


def tiny_clip(folder: Path) -> Path:
    """Write model, tokenizer and image processor into a folder; return it."""
    shape = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4}
    words = {"vocab_size": 514, "max_position_embeddings": LONGEST, "eos_token_id": 513}
    config = transformers.CLIPConfig(
        text_config={**shape, **words, "bos_token_id": 512},
        vision_config={**shape, "image_size": SIDE, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = transformers.CLIPModel(config)
    model.save_pretrained(folder)
    clip_tokenizer(folder).save_pretrained(folder)
    crop = {"height": SIDE, "width": SIDE}
    name = "CLIPImageProcessorPil" if hasattr(transformers, "CLIPImageProcessorPil") else None
    processor: Any = getattr(transformers, name or "CLIPImageProcessor")
    processor(size={"shortest_edge": SIDE}, crop_size=crop).save_pretrained(folder)
    return folder
