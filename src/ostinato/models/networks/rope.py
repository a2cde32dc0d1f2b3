"""The scaling of rotary positions in `config.json`, checked. Knows no tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ostinato.errors import ModelError, UnknownLayout

ROPE_TYPES: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}
"""The kinds that our network supports, with the parameters of each, all above 0."""


def rope_type(scaling: Mapping[str, Any] | None) -> str:
    """Return the kind of position scaling; older files name it `type` instead of `rope_type`."""
    if not scaling:
        return "default"
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if not isinstance(kind, str):
        raise ModelError(f"rope_type must be a text, got {kind!r}. Fix config.json.")
    return kind


def check_rope(scaling: Mapping[str, Any] | None) -> None:
    """Refuse a kind that our network does not support, and missing or wrong parameters."""
    kind = rope_type(scaling)
    if kind not in ROPE_TYPES:
        raise UnknownLayout(
            f"rope_type must be one of {', '.join(ROPE_TYPES)}, got {kind!r}. "
            "Use a checkpoint with one of these, or a server that runs this one."
        )
    for name in ROPE_TYPES[kind]:
        value = (scaling or {}).get(name)
        if not _is_positive(value):
            raise ModelError(
                f"{name} must be a number above 0 with {kind!r} position scaling, got {value!r}. "
                "Use the config.json that belongs to the weights."
            )
    if scaling and kind == "llama3" and scaling["high_freq_factor"] <= scaling["low_freq_factor"]:
        raise ModelError(
            f"high_freq_factor must be above low_freq_factor ({scaling['low_freq_factor']}), got "
            f"{scaling['high_freq_factor']}. Use the config.json that belongs to the weights."
        )


def _is_positive(value: object) -> bool:
    # JSON's true is an integer in Python.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value > 0
