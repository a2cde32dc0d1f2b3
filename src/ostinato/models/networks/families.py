"""The families of decoder that our one network can be. Knows no tensors.

A family says what the sizes of a `config.json` leave open: which norm, which positions, what is
gated, and how the file's own names and silences are to be read. What no family here describes goes
through `transformers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ACTIVATIONS = ("gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")


@dataclass(frozen=True, kw_only=True)
class DecoderFamily:
    """What tells one family of decoder from another.

    `architecture` is the class of `transformers`. `defaults` are what that class takes where
    `config.json` is silent, `requires` the values without which the network is another one, and
    `names` the file's names of fields that have other names here.
    """

    architecture: str
    norm: Literal["rms", "layer"] = "rms"
    positions: Literal["rotary", "learned"] = "rotary"
    gated: bool = True
    qk_norm: bool = False
    windowed: bool = False
    fused: bool = False  # queries, keys and values in one matrix, stored transposed
    defaults: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


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
