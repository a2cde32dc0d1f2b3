"""How the makers of a model recommend to sample from it, as its own files say."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from ostinato.arguments import SAMPLING_RANGES
from ostinato.errors import ModelError
from ostinato.models.catalog import LLAMA, split_adapter
from ostinato.models.files.json_values import read_json

RECOMMENDED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""The settings that a model's files can recommend."""

FILE = "generation_config.json"

_GGUF = {
    "temperature": "temp",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}


def recommended_sampling(name: str, without: Container[str] = ()) -> dict[str, float]:
    """Return the settings that a model's files recommend, of `RECOMMENDED`; empty for none.

    They are in `generation_config.json` of a folder, where `do_sample` false means temperature 0,
    and in a GGUF file's `general.sampling` keys. Settings that are in `without` are passed by.
    Raises `ModelError` where there is no such model, or a value is out of its range.
    """
    from ostinato.models.load import find_model

    path = find_model(split_adapter(name)[0].removeprefix(LLAMA))
    found, source = _of_gguf(path) if path.is_file() else _of_folder(path)
    settings = {}
    for key, value in found.items():
        if value is not None and key not in without:
            settings[key] = _checked(key, value, source)
    return settings


def recommendation(settings: Mapping[str, float]) -> str:
    """Return the sentence that says what a model recommends; empty for nothing."""
    told = ", ".join(f"{name} {value:g}" for name, value in settings.items())
    return f"Sampling as the model recommends: {told}." if told else ""


def _of_folder(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / FILE
    values = read_json(path) if path.is_file() else {}
    found = {name: values.get(name) for name in RECOMMENDED}
    if values.get("do_sample") is False:
        return {"temperature": 0, "repetition_penalty": found["repetition_penalty"]}, str(path)
    return found, str(path)


def _of_gguf(path: Path) -> tuple[dict[str, Any], str]:
    from ostinato.models.files.gguf import GGUFModel

    found = GGUFModel(path).sampling()
    # They are held in 32 bits: 0.6 would be 0.6000000238.
    rounded = {key: float(f"{v:.6g}") if isinstance(v, float) else v for key, v in found.items()}
    return {name: rounded[key] for name, key in _GGUF.items()}, f"{path} (general.sampling)"


def _checked(name: str, value: Any, source: str) -> float:
    allowed = SAMPLING_RANGES[name]
    if allowed.whole and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not allowed.includes(value):
        raise ModelError(
            f"{name} in {source} must be {allowed.expected}, got {value!r}. Correct it there, or "
            f"give --{name.replace('_', '-')}."
        )
    number: float = value
    return number
