"""Typed values from the JSON files of a model. Knows no networks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ostinato.errors import ModelError
from ostinato.text_files import read_object


@dataclass(frozen=True)
class Values:
    """The values of a JSON object, read by type.

    `file` is the name of the file in messages. `names` maps our keys to the file's own where they
    differ. Every reader raises `ModelError` with file, key and value.
    """

    raw: Mapping[str, Any]
    file: str = "config.json"
    names: Mapping[str, str] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.raw

    def has_value(self, name: str) -> bool:
        """Return whether the file has a value other than null."""
        return self.raw.get(name) is not None

    def size(self, name: str, least: int = 1) -> int:
        """Return an integer, at least `least`."""
        value = self._value(name)
        if not _is_whole(value) or value < least:
            self._refuse(name, f"a whole number, at least {least}")
        return int(value)

    def number(self, name: str) -> float:
        """Return a finite number, 0 or more."""
        value = self._value(name)
        if not _is_whole(value) and not isinstance(value, float):
            self._refuse(name, "a number")
        if not math.isfinite(value) or value < 0:
            self._refuse(name, "a finite number, 0 or more")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a boolean."""
        value = self._value(name)
        if not isinstance(value, bool):
            self._refuse(name, "true or false")
        return value

    def text(self, name: str) -> str:
        """Return a string."""
        value = self._value(name)
        if not isinstance(value, str):
            self._refuse(name, "a text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings, as a tuple."""
        value = self._value(name)
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            self._refuse(name, "a list of texts")
        return tuple(value)

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Return an object; empty where the file has null or no such key."""
        value = self.raw.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self._refuse(name, "an object")
        return value

    def token(self, name: str) -> int | None:
        """Return a token id; None where the file has null or no such key."""
        value = self.raw.get(name)
        if value is not None and not _is_whole(value):
            self._refuse(name, "a whole number or null")
        return value

    def tokens(self, name: str) -> tuple[int, ...]:
        """Return token ids, which the file may give as null, one number or a list."""
        value = self.raw.get(name)
        ids = value if isinstance(value, list | tuple) else [] if value is None else [value]
        if not all(map(_is_whole, ids)):
            self._refuse(name, "a whole number, or a list of them")
        return tuple(ids)

    def _value(self, name: str) -> Any:
        if name not in self.raw:
            raise ModelError(f"{self.file} must have {self._key(name)!r}, got none. {self._fix()}")
        return self.raw[name]

    def _key(self, name: str) -> str:
        return self.names.get(name, name)

    def _refuse(self, name: str, expected: str) -> NoReturn:
        shown = json.dumps(self.raw[name], default=str)
        raise ModelError(
            f"{self._key(name)} in {self.file} must be {expected}, got {shown}. {self._fix()}"
        )

    def _fix(self) -> str:
        return f"Use the {Path(self.file).name} that belongs to the weights."


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `ModelError` where the file is missing or damaged."""
    missing = (
        f"{path} must exist, got no such file. "
        "Give a folder in the Hugging Face layout (config.json, tokenizer.json, *.safetensors)."
    )
    return read_object(path, raises=ModelError, fix="Download the file again.", missing=missing)


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write a JSON object, indented as the libraries of the Hugging Face layout do."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_whole(value: object) -> bool:
    """Return whether a value is an integer; Python's bool is one too, JSON's is not."""
    return isinstance(value, int) and not isinstance(value, bool)
