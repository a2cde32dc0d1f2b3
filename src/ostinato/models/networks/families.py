"""The families of decoders that our one network supports. Knows no tensors.

A family settles what the sizes in a `config.json` leave open: the norm, the positions, the gate,
and the file's own names and defaults. Other families are loaded through `transformers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ACTIVATIONS = ("gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")


@dataclass(frozen=True, kw_only=True)
class DecoderFamily:
    """What distinguishes a family of decoders.

    `architecture` is the class of `transformers`, and `defaults` its values for keys missing in
    `config.json`. `requires` has values of settings that our network does not vary. `names` maps
    our fields to the file's keys where they differ.
    """

    architecture: str
    norm: Literal["rms", "layer"] = "rms"
    positions: Literal["rotary", "learned"] = "rotary"
    gated: bool = True
    qk_norm: bool = False
    windowed: bool = False
    fused: bool = False  # files join queries, keys and values in one matrix, transposed
    defaults: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


# Papers: GPT-2 (Radford et al., 2019), Llama 2 (Touvron et al., 2023), Mistral 7B (Jiang et al.,
# 2023), Qwen2 (Yang et al., 2024), Qwen3 (Yang et al., 2025).
FAMILIES: Mapping[str, DecoderFamily] = {
    "gpt2": DecoderFamily(
        architecture="GPT2LMHeadModel",
        norm="layer",
        positions="learned",
        gated=False,
        fused=True,
        defaults={
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "hidden_act": "gelu_new",
            "max_position_embeddings": 1024,
            "rms_norm_eps": 1e-5,
            "intermediate_size": None,
        },
        requires={
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        names={
            "hidden_size": "n_embd",
            "intermediate_size": "n_inner",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
            "rms_norm_eps": "layer_norm_epsilon",
            "hidden_act": "activation_function",
        },
    ),
    "llama": DecoderFamily(architecture="LlamaForCausalLM"),
    "mistral": DecoderFamily(
        architecture="MistralForCausalLM",
        windowed=True,
        defaults={"sliding_window": 4096, "max_position_embeddings": 131_072},
    ),
    "qwen2": DecoderFamily(
        architecture="Qwen2ForCausalLM",
        windowed=True,
        defaults={
            "attention_bias": True,
            "output_bias": False,
            "max_position_embeddings": 32_768,
            "use_sliding_window": False,
            "sliding_window": 4096,
            "max_window_layers": 28,
        },
    ),
    "qwen3": DecoderFamily(
        architecture="Qwen3ForCausalLM",
        qk_norm=True,
        windowed=True,
        defaults={
            "head_dim": 128,
            "max_position_embeddings": 32_768,
            "use_sliding_window": False,
            "sliding_window": 4096,
            "max_window_layers": 28,
        },
    ),
}
