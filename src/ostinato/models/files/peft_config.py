"""PEFT's `adapter_config.json` of a LoRA: which layers it adapts, with which rank and scale.

A setting that changes what an adapter computes is either understood here or refused by its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import regex

from ostinato.arguments import reason
from ostinato.errors import ModelError
from ostinato.models.files.json_values import Values, read_json

DEFAULTS = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "use_rslora": False}
"""What PEFT takes where a file has no such key."""
UNDERSTOOD = {
    *DEFAULTS,
    *("peft_type", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("rank_pattern", "alpha_pattern", "init_lora_weights", "bias"),
}
WITHOUT_EFFECT = {
    # Where the adapter comes from, and how it was trained.
    *("task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping"),
    *("peft_version", "runtime_config", "ensure_weight_tying", "megatron_core"),
    # Of layers that store their weights transposed; PEFT ignores it for any other.
    "fan_in_fan_out",
    # Details of settings that are refused where they are on.
    *("qalora_group_size", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
}
INITS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
"""Initializations that leave the base's weights alone. Others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA)
take away from them what A and B start with, so that the adapter means nothing beside the base."""
MERGE = "Merge the adapter with peft (merge_and_unload) and load the merged folder."
NOT_MERGEABLE = ("alora_invocation_tokens",)
TIMEOUT = 1.0  # seconds for one pattern of a file from outside; names of layers are short


@dataclass(frozen=True)
class PeftConfig:
    """A LoRA's configuration. Raises `ModelError` where PEFT would compute something else than we.

    Names of layers are full, such as `model.layers.0.self_attn.q_proj`.
    """

    values: Values

    @classmethod
    def from_folder(cls, folder: Path) -> PeftConfig:
        """Read and check `adapter_config.json`."""
        path = folder / "adapter_config.json"
        raw = {name: value for name, value in read_json(path).items() if value is not None}
        _check(raw, path)
        return cls(Values({**DEFAULTS, **raw}, str(path)))

    @property
    def dropout(self) -> float:
        """The probability of dropping an input of A while it trains."""
        return self.values.number("lora_dropout")

    def rank(self, name: str) -> int:
        """Return the rank of a layer's update."""
        patterns = Values(self.values.mapping("rank_pattern"), f"rank_pattern in {self._file}")
        key = self._key(patterns, name)
        return self.values.size("r") if key is None else patterns.size(key)

    def scale(self, name: str) -> float:
        """Return the factor of a layer's update `B A`."""
        patterns = Values(self.values.mapping("alpha_pattern"), f"alpha_pattern in {self._file}")
        key = self._key(patterns, name)
        alpha = self.values.number("lora_alpha") if key is None else patterns.number(key)
        rank = self.rank(name)
        # rsLoRA (Kalajdzievski, 2023) divides by the root of the rank.
        return alpha / (math.sqrt(rank) if self.values.flag("use_rslora") else rank)

    def is_target(self, name: str) -> bool:
        """Return whether a linear layer is adapted, by the rules of PEFT."""
        excluded, targets = self.values.raw.get("exclude_modules"), self._targets
        if excluded and self._matches_any(excluded, "exclude_modules", name):
            return False
        if isinstance(targets, str) and targets.lower() == "all-linear":
            return True
        return self._matches_any(targets, "target_modules", name) and self._is_in_layers(name)

    @cached_property
    def _targets(self) -> str | tuple[str, ...]:
        targets = self.values.raw.get("target_modules")
        return targets if isinstance(targets, str) else self.values.texts("target_modules")

    @property
    def _file(self) -> str:
        return self.values.file

    def _matches_any(self, expected: object, key: str, name: str) -> bool:
        """Return whether a pattern matches the whole name, or a listed name is its end."""
        if isinstance(expected, str):
            return self._matches(expected, key, name)
        return any(name == one or name.endswith(f".{one}") for one in self.values.texts(key))

    def _is_in_layers(self, name: str) -> bool:
        layers = self.values.raw.get("layers_to_transform")
        if layers is None or layers == []:
            return True
        chosen = self.values.tokens("layers_to_transform")
        lists = self.values.raw.get("layers_pattern") or r"[^.]*"
        for pattern in [lists] if isinstance(lists, str) else self.values.texts("layers_pattern"):
            numbered = rf"(?:.*?\.)??(?:{pattern})\.(?P<layer>\d+)\..*"
            if found := self._matched(numbered, "layers_pattern", name):
                return int(found["layer"]) in chosen
        return False

    def _key(self, patterns: Values, name: str) -> str | None:
        """Return the first key that matches the name, or its end after a dot."""
        found = (key for key in patterns.raw if self._matches(rf"(.*\.)?({key})", key, name))
        return next(found, None)

    def _matches(self, pattern: str, key: str, name: str) -> bool:
        return self._matched(pattern, key, name) is not None

    def _matched(self, pattern: str, key: str, name: str) -> regex.Match[str] | None:
        try:
            return regex.fullmatch(pattern, name, timeout=TIMEOUT)
        except (regex.error, TimeoutError) as error:
            raise ModelError(
                f"{key} in {self._file} must be a pattern that takes little time, got "
                f"{reason(error)}. List the names of the layers instead."
            ) from None


def _check(raw: Mapping[str, Any], path: Path) -> None:
    if (kind := raw.get("peft_type")) != "LORA":
        raise ModelError(
            f"peft_type in {path} must be 'LORA', got {kind!r}. Use a LoRA, or merge the adapter "
            "with peft (merge_and_unload) and load the merged folder."
        )
    if not raw.get("target_modules"):
        raise ModelError(f"{path} must have 'target_modules', got none. Save the adapter again.")
    init = raw.get("init_lora_weights")
    if (init.lower() if isinstance(init, str) else init) not in INITS:
        raise _refused("init_lora_weights", "one that leaves the base's weights alone", init, path)
    if raw.get("bias", "none") != "none":
        raise _refused("bias", "'none'", raw["bias"], path)
    # Also those of a later PEFT: what is not known may change what the adapter computes.
    for key in sorted(raw.keys() - UNDERSTOOD - WITHOUT_EFFECT):
        if raw[key]:
            raise _refused(key, "unset", raw[key], path)


def _refused(key: str, expected: str, value: object, path: Path) -> ModelError:
    fix = "Use it with peft: it cannot be merged." if key in NOT_MERGEABLE else MERGE
    return ModelError(f"{key} in {path} must be {expected}, got {value!r}. {fix}")
