"""What a network of ours looks like, as `config.json` says it. Knows no tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ostinato.errors import ModelError, UnknownLayout
from ostinato.models.families import ACTIVATIONS, FAMILIES, Family

ROPE_TYPES = ("default", "linear", "llama3")
SLIDING = "sliding_attention"
LAYER_TYPES = ("full_attention", SLIDING)


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """The shape of a decoder-only transformer, under the names of the Hugging Face layout.

    `model_type` names the family (`ostinato.models.families`). `rope_scaling` is None, or a
    mapping with `rope_type` "linear" or "llama3" and its numbers. `rms_norm_eps` is added under
    the root of either kind of norm. `output_bias` is that of attention's last product: where None,
    `attention_bias`. A layer sees `sliding_window` positions, itself included, where `layer_types`
    says so (empty: all layers).
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    model_type: str = "llama"
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: Mapping[str, Any] | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    output_bias: bool | None = None
    mlp_bias: bool = False
    sliding_window: int | None = None
    layer_types: tuple[str, ...] = ()
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: tuple[int, ...] = field(default=())
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        family = self.family
        if self.num_attention_heads % self.num_key_value_heads:
            raise ModelError(
                f"num_attention_heads must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads}), got {self.num_attention_heads}. Mend config.json."
            )
        if family.positions == "rotary" and self.head_dim % 2:
            raise ModelError(
                f"head_dim must be even, got {self.head_dim}. Rotary positions turn pairs."
            )
        if self.hidden_act not in ACTIVATIONS:
            raise UnknownLayout(
                f"hidden_act must be one of {', '.join(ACTIVATIONS)}, got {self.hidden_act!r}. "
                "Take a checkpoint with one of these, or a server that runs this one."
            )
        kind = rope_type(self.rope_scaling)
        if kind not in ROPE_TYPES:
            raise UnknownLayout(
                f"rope_type must be one of {', '.join(ROPE_TYPES)}, got {kind!r}. "
                "Use a checkpoint with one of these, or a server that runs this one."
            )
        if self.layer_types and (
            len(self.layer_types) != self.num_hidden_layers
            or not set(self.layer_types) <= set(LAYER_TYPES)
        ):
            raise UnknownLayout(
                f"layer_types must say {' or '.join(LAYER_TYPES)} for each of the "
                f"{self.num_hidden_layers} layers, got {list(self.layer_types)}. Mend config.json."
            )

    @property
    def family(self) -> Family:
        """The family that `model_type` names."""
        if self.model_type not in FAMILIES:
            raise UnknownLayout(
                f"model_type must be one of {', '.join(FAMILIES)}, got {self.model_type!r}. "
                "Take a checkpoint of one of these layouts."
            )
        return FAMILIES[self.model_type]

    @property
    def windows(self) -> tuple[int | None, ...]:
        """How many positions each layer sees, itself included; None where it sees all."""
        window = self.sliding_window
        if window is not None and window >= self.max_position_embeddings:
            window = None
        types = self.layer_types or (SLIDING,) * self.num_hidden_layers
        return tuple(window if kind == SLIDING else None for kind in types)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LlamaConfig:
        """Read the contents of a `config.json`; transformers 5's `rope_parameters` as well.

        Raises `UnknownLayout` for a network that is not one of ours.
        """
        kind = values.get("model_type", "llama")
        if kind not in FAMILIES:
            raise UnknownLayout(
                f"model_type must be one of {', '.join(FAMILIES)}, got {kind!r}. "
                "Take a checkpoint of one of these layouts."
            )
        _check_required(values, FAMILIES[kind])
        try:
            return cls(model_type=kind, **_fields(_translated(values, FAMILIES[kind])))
        except KeyError as missing:
            raise ModelError(
                f"config.json must have {missing.args[0]!r}, got none. "
                "Take the config.json that belongs to the weights."
            ) from None

    @classmethod
    def from_folder(cls, folder: Path) -> LlamaConfig:
        """Read `config.json` of a folder."""
        path = folder / "config.json"
        return cls.from_dict(read_json(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of a `config.json` that transformers 4 and 5 both read."""
        ends = list(self.eos_token_id)
        family = self.family
        values: dict[str, Any] = {
            "architectures": [family.architecture],
            "model_type": self.model_type,
            **{name: getattr(self, name) for name in _written(family)},
            "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        }
        if family.positions == "rotary":
            scaling = self.rope_scaling
            values["rope_theta"] = self.rope_theta
            values["rope_scaling"] = None if scaling is None else dict(scaling)
        if family.windowed:
            values["sliding_window"] = self.sliding_window
        if "use_sliding_window" in family.defaults:
            windowed = self.sliding_window is not None
            values["use_sliding_window"] = windowed
            if windowed:
                values["layer_types"] = list(self.layer_types) or [SLIDING] * len(self.windows)
        return {family.names.get(name, name): value for name, value in values.items()}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise `ModelError` naming the file where it is missing or broken."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path} must exist, got no such file. "
            "Give a folder in the Hugging Face layout (config.json, tokenizer.json, *.safetensors)."
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} must be readable JSON, got: {error}. Download the file anew."
        ) from error
    if not isinstance(values, dict):
        raise ModelError(
            f"{path} must hold a JSON object, got {type(values).__name__}. Download the file anew."
        )
    return values


def rope_type(scaling: Mapping[str, Any] | None) -> str:
    """Return the kind of position scaling; older files say `type` for `rope_type`."""
    if not scaling:
        return "default"
    return str(scaling.get("rope_type", scaling.get("type", "default")))


def as_ids(value: Any) -> tuple[int, ...]:
    """Return token ids given as nothing, one number or a list."""
    if value is None:
        return ()
    return tuple(int(i) for i in value) if isinstance(value, list | tuple) else (int(value),)


_ALWAYS = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "initializer_range",
    "bos_token_id",
    "pad_token_id",
]


def _written(family: Family) -> list[str]:
    """Return the fields that this family's `config.json` holds under one name or another."""
    names = list(_ALWAYS)
    if not family.fused:
        names += ["num_key_value_heads", "head_dim"]
    if "attention_bias" not in family.defaults:
        names += ["attention_bias"]
    if family.architecture == "LlamaForCausalLM":
        names += ["mlp_bias"]
    return names


def _check_required(values: Mapping[str, Any], family: Family) -> None:
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    partial = rope.get("partial_rotary_factor", values.get("partial_rotary_factor"))
    wrong = {
        name: values[name]
        for name, wanted in family.requires.items()
        if values.get(name, wanted) != wanted
    }
    if partial not in (None, 1, 1.0):
        wrong["partial_rotary_factor"] = partial
    if values.get("quantization_config"):
        wrong["quantization_config"] = values["quantization_config"].get("quant_method")
    for name, value in wrong.items():
        raise UnknownLayout(
            f"{name} must be {family.requires.get(name, 'left out')}, got {value!r}. "
            "Take a checkpoint without it."
        )


def _translated(values: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Return the values under our names, with what the family takes where the file is silent."""
    ours = {name: values[theirs] for name, theirs in family.names.items() if theirs in values}
    return {**family.defaults, **values, **ours}


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    rope = dict(values.get("rope_parameters") or values.get("rope_scaling") or {})
    theta = rope.pop("rope_theta", values.get("rope_theta", 10_000.0))
    heads, size = int(values["num_attention_heads"]), int(values["hidden_size"])
    inner = values["intermediate_size"]
    fields: dict[str, Any] = {
        "vocab_size": int(values["vocab_size"]),
        "hidden_size": size,
        "intermediate_size": 4 * size if inner is None else int(inner),
        "num_hidden_layers": int(values["num_hidden_layers"]),
        "num_attention_heads": heads,
        "num_key_value_heads": int(values.get("num_key_value_heads") or heads),
        "head_dim": int(values.get("head_dim") or size // heads),
        "rope_theta": float(theta),
        "rope_scaling": rope if rope_type(rope) != "default" else None,
        "eos_token_id": as_ids(values.get("eos_token_id")),
        **_window_fields(values),
    }
    optional = (
        "hidden_act max_position_embeddings rms_norm_eps tie_word_embeddings attention_bias "
        "output_bias mlp_bias initializer_range bos_token_id pad_token_id"
    )
    fields.update({name: values[name] for name in optional.split() if name in values})
    return fields


def _window_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Read which layers see how far; a file of Qwen also says whether it means it."""
    window = values.get("sliding_window")
    if not window or not FAMILIES[values.get("model_type", "llama")].windowed:
        return {}
    if not values.get("use_sliding_window", True):
        return {}
    types = values.get("layer_types")
    if types is None and values.get("max_window_layers") is not None:
        full = int(values["max_window_layers"])
        layers = int(values["num_hidden_layers"])
        types = [LAYER_TYPES[i >= full] for i in range(layers)]
    return {"sliding_window": int(window), "layer_types": tuple(types or ())}
