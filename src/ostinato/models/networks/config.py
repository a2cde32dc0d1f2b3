"""The configuration of our decoder, read from and written to `config.json`. Knows no tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ostinato.arguments import require_types
from ostinato.errors import ModelError, UnknownLayout
from ostinato.models.files.json_values import Values, read_json
from ostinato.models.networks.families import ACTIVATIONS, FAMILIES, DecoderFamily
from ostinato.models.networks.rope import check_rope, rope_type

SLIDING = "sliding_attention"
LAYER_TYPES = ("full_attention", SLIDING)


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """The shape of a decoder-only transformer, under the names of the Hugging Face layout.

    `model_type` names the family (`ostinato.models.networks.families`). `rope_scaling` is None, or
    a mapping with `rope_type` "linear" or "llama3" and its parameters. `rms_norm_eps` belongs to
    either kind of norm. `output_bias` is that of attention's output projection; None means the same
    as `attention_bias`. Layers that `layer_types` names (empty: all layers) attend to
    `sliding_window` positions, their own included.
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
        require_types(self)
        family = self.family
        if self.num_attention_heads % self.num_key_value_heads:
            raise ModelError(
                f"num_attention_heads must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads}), got {self.num_attention_heads}. Fix config.json."
            )
        if family.positions == "rotary" and self.head_dim % 2:
            raise ModelError(
                f"head_dim must be even, got {self.head_dim}. Rotary positions rotate pairs, so "
                "choose an even size."
            )
        if self.hidden_act not in ACTIVATIONS:
            raise UnknownLayout(
                f"hidden_act must be one of {', '.join(ACTIVATIONS)}, got {self.hidden_act!r}. "
                "Use a checkpoint with one of these, or a server that runs this one."
            )
        check_rope(self.rope_scaling)
        if self.rope_theta <= 0:
            raise ModelError(f"rope_theta must be above 0, got {self.rope_theta}. Fix config.json.")
        if self.layer_types and (
            len(self.layer_types) != self.num_hidden_layers
            or not set(self.layer_types) <= set(LAYER_TYPES)
        ):
            raise UnknownLayout(
                f"layer_types must name {' or '.join(LAYER_TYPES)} for each of the "
                f"{self.num_hidden_layers} layers, got {list(self.layer_types)}. Fix config.json."
            )

    @property
    def family(self) -> DecoderFamily:
        """The family that `model_type` names. Raises `UnknownLayout` for any other."""
        return _family(self.model_type)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The window of each layer in positions, its own included; None where it sees all."""
        window = self.sliding_window
        # A window of the whole context is none: attention then takes the faster causal kernel.
        if window is not None and window >= self.max_position_embeddings:
            window = None
        types = self.layer_types or (SLIDING,) * self.num_hidden_layers
        return tuple(window if kind == SLIDING else None for kind in types)

    @classmethod
    def from_scratch(
        cls,
        *,
        vocab_size: int,
        width: int,
        layers: int,
        heads: int,
        context: int,
        model_type: str = "llama",
        tied: bool = False,
        eos_token_id: int | None = None,
    ) -> LlamaConfig:
        """Return the shape of a small network to train; each head has keys of its own.

        The feed-forward has 8/3 of the width, rounded up to 32: SwiGLU has three matrices, and so
        as many weights as two of four times the width (Shazeer, 2020, section 3).
        """
        return cls.from_dict(
            {
                "model_type": model_type,
                "vocab_size": vocab_size,
                "hidden_size": width,
                "intermediate_size": -(-width * 8 // 3 // 32) * 32,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "num_key_value_heads": heads,
                "head_dim": width // heads,
                "max_position_embeddings": context,
                "tie_word_embeddings": tied,
                "eos_token_id": eos_token_id,
            }
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str = "config.json") -> LlamaConfig:
        """Read the contents of a `config.json`, with `rope_parameters` (transformers 5) or without.

        `file` is its name in messages. Raises `UnknownLayout` for a network that is not supported,
        `ModelError` for a value of a wrong type or range.
        """
        kind = Values({"model_type": "llama", **values}, file).text("model_type")
        family = _family(kind)
        _check_required(Values(values, file), family)
        ours = Values(_translated(values, family), file, family.names)
        return cls(model_type=kind, **_fields(ours))

    @classmethod
    def from_folder(cls, folder: Path) -> LlamaConfig:
        """Read the `config.json` of a folder. Raises as `from_dict`."""
        path = folder / "config.json"
        return cls.from_dict(read_json(path), str(path))

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
        if "use_sliding_window" in family.defaults:  # Qwen has a switch beside the size
            windowed = self.sliding_window is not None
            values["use_sliding_window"] = windowed
            if windowed:
                values["layer_types"] = list(self.layer_types) or [SLIDING] * len(self.windows)
        return {family.names.get(name, name): value for name, value in values.items()}


def _family(model_type: str) -> DecoderFamily:
    if model_type not in FAMILIES:
        raise UnknownLayout(
            f"model_type must be one of {', '.join(FAMILIES)}, got {model_type!r}. "
            "Use a checkpoint of one of these layouts."
        )
    return FAMILIES[model_type]


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


def _written(family: DecoderFamily) -> list[str]:
    """Return the fields that this family's `config.json` has, under our names."""
    names = list(_ALWAYS)
    if not family.fused:
        names += ["num_key_value_heads", "head_dim"]
    if "attention_bias" not in family.defaults:
        names += ["attention_bias"]
    if family.architecture == "LlamaForCausalLM":
        names += ["mlp_bias"]
    return names


def _check_required(values: Values, family: DecoderFamily) -> None:
    """Refuse settings that make it another network than ours, such as quantized weights."""
    raw = values.raw
    partial = _rope(values).get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    wrong = {
        name: raw[name]
        for name, required in family.requires.items()
        if raw.get(name, required) != required
    }
    if partial not in (None, 1, 1.0):  # 1: all of a head is rotated, as here
        wrong["partial_rotary_factor"] = partial
    quantization = values.mapping("quantization_config")
    if quantization:
        wrong["quantization_config"] = quantization.get("quant_method")
    for name, value in wrong.items():
        raise UnknownLayout(
            f"{name} must be {family.requires.get(name, 'left out')}, got {value!r}. "
            "Use a checkpoint without it."
        )


def _rope(values: Values) -> Mapping[str, Any]:
    """Return the settings of rotary positions, under their newer or their older name."""
    return values.mapping("rope_parameters") or values.mapping("rope_scaling")


def _translated(values: Mapping[str, Any], family: DecoderFamily) -> dict[str, Any]:
    """Return the values under our names, with the family's defaults for missing ones."""
    ours = {name: values[theirs] for name, theirs in family.names.items() if theirs in values}
    return {**family.defaults, **values, **ours}


_OPTIONAL: Mapping[str, Callable[[Values, str], Any]] = {
    "hidden_act": Values.text,
    "max_position_embeddings": Values.size,
    "rms_norm_eps": Values.number,
    "tie_word_embeddings": Values.flag,
    "attention_bias": Values.flag,
    "output_bias": Values.flag,
    "mlp_bias": Values.flag,
    "initializer_range": Values.number,
    "bos_token_id": Values.token,
    "pad_token_id": Values.token,
}


def _fields(values: Values) -> dict[str, Any]:
    heads, size = values.size("num_attention_heads"), values.size("hidden_size")

    def size_or(name: str, otherwise: int) -> int:
        return values.size(name) if values.has_value(name) else otherwise

    fields: dict[str, Any] = {
        "vocab_size": values.size("vocab_size"),
        "hidden_size": size,
        "intermediate_size": _inner(values, size),
        "num_hidden_layers": values.size("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": size_or("num_key_value_heads", heads),
        "head_dim": size_or("head_dim", size // heads),
        "eos_token_id": values.tokens("eos_token_id"),
        **_rope_fields(values),
        **_window_fields(values),
    }
    fields.update({name: read(values, name) for name, read in _OPTIONAL.items() if name in values})
    return fields


def _inner(values: Values, size: int) -> int:
    """Return the width of the feed-forward; GPT-2 files omit it for four times the size."""
    family = FAMILIES[values.raw.get("model_type", "llama")]
    if "intermediate_size" in family.defaults and not values.has_value("intermediate_size"):
        return 4 * size
    return values.size("intermediate_size")


def _rope_fields(values: Values) -> dict[str, Any]:
    """Read the settings of rotary positions; newer files have the base in the same object."""
    scaling = dict(_rope(values))
    theta = {"rope_theta": scaling.pop("rope_theta", values.raw.get("rope_theta", 10_000.0))}
    # A scaling of the kind "default" is none.
    return {
        "rope_theta": Values(theta, values.file).number("rope_theta"),
        "rope_scaling": scaling if rope_type(scaling) != "default" else None,
    }


def _window_fields(values: Values) -> dict[str, Any]:
    """Read which layers have a window; Qwen files also have a switch for it."""
    windowed = FAMILIES[values.raw.get("model_type", "llama")].windowed
    if not windowed or not values.has_value("sliding_window"):
        return {}
    if "use_sliding_window" in values and not values.flag("use_sliding_window"):
        return {}
    window = values.size("sliding_window", least=0)
    if not window:
        return {}
    types: tuple[str, ...] = ()
    if values.has_value("layer_types"):
        types = values.texts("layer_types")
    elif values.has_value("max_window_layers"):  # as transformers: later layers have the window
        full = values.size("max_window_layers", least=0)
        types = tuple(LAYER_TYPES[i >= full] for i in range(values.size("num_hidden_layers")))
    return {"sliding_window": window, "layer_types": types}
