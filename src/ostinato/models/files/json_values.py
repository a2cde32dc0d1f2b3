"""The JSON files beside a model's weights, their values read by type. Knows no networks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ostinato.errors import ModelError


@dataclass(frozen=True)
class Values:
    """What a JSON file holds, each value read as what it must be.

    `file` is what errors call the file, and `names` has the file's own names of keys that have
    other names here. Every reader raises `ModelError` with file, key, value and mend.
    """

    held: Mapping[str, Any]
    file: str = "config.json"
    names: Mapping[str, str] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.held

    def gives(self, name: str) -> bool:
        """Tell whether the file says anything but null."""
        return self.held.get(name) is not None

    def size(self, name: str, least: int = 1) -> int:
        """Return a whole number from `least` on."""
        value = self._value(name)
        if not _is_whole(value) or value < least:
            self._refuse(name, f"a whole number from {least} on")
        return int(value)

    def number(self, name: str) -> float:
        """Return a finite number from 0 on."""
        value = self._value(name)
        if not _is_whole(value) and not isinstance(value, float):
            self._refuse(name, "a number")
        if not math.isfinite(value) or value < 0:
            self._refuse(name, "a finite number from 0 on")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self._value(name)
        if not isinstance(value, bool):
            self._refuse(name, "true or false")
        return value

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._value(name)
        if not isinstance(value, str):
            self._refuse(name, "a text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self._value(name)
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            self._refuse(name, "a list of texts")
        return tuple(value)

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Return an object, empty where the file says null or nothing."""
        value = self.held.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self._refuse(name, "an object")
        return value

    def token(self, name: str) -> int | None:
        """Return a token id, or None where the file says null or nothing."""
        value = self.held.get(name)
        if value is not None and not _is_whole(value):
            self._refuse(name, "a whole number or null")
        return value

    def tokens(self, name: str) -> tuple[int, ...]:
        """Return token ids, which the file gives as nothing, one number or a list."""
        value = self.held.get(name)
        given = value if isinstance(value, list | tuple) else [] if value is None else [value]
        if not all(map(_is_whole, given)):
            self._refuse(name, "a whole number, or a list of them")
        return tuple(given)

    def _value(self, name: str) -> Any:
        if name not in self.held:
            raise ModelError(
                f"{self.file} must have {self._spelled(name)!r}, got none. {self._mend()}"
            )
        return self.held[name]

    def _spelled(self, name: str) -> str:
        return self.names.get(name, name)

    def _refuse(self, name: str, expected: str) -> NoReturn:
        shown = json.dumps(self.held[name], default=str)
        raise ModelError(
            f"{self._spelled(name)} in {self.file} must be {expected}, got {shown}. {self._mend()}"
        )

    def _mend(self) -> str:
        return f"Take the {Path(self.file).name} that belongs to the weights."


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise `ModelError` naming the file where it is missing or broken."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path} must exist, got no such file. "
            "Give a folder in the Hugging Face layout (config.json, tokenizer.json, *.safetensors)."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} must be readable JSON, got: {error}. Download the file anew."
        ) from error
    if not isinstance(values, dict):
        raise ModelError(
            f"{path} must hold a JSON object, got {type(values).__name__}. Download the file anew."
        )
    return values


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
