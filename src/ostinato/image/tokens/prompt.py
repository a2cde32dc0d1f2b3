"""The item of an image token model, and its output: codes as text. Knows no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ostinato.decode import MASKED
from ostinato.errors import ItemError
from ostinato.image import is_whole
from ostinato.loop import Text


@dataclass(frozen=True)
class ImagePrompt:
    """Words such as "a slanted seven", and codes that are known already (-1: unknown)."""

    text: str = ""
    codes: tuple[int, ...] = ()

    @classmethod
    def of(cls, item: object) -> ImagePrompt:
        """Read an `ImagePrompt`, a text, or a mapping of its fields. Raises `ItemError`."""
        if isinstance(item, ImagePrompt):
            return item
        if isinstance(item, str):
            return cls(item)
        if isinstance(item, Mapping) and set(item) <= {"text", "codes"}:
            codes = item.get("codes", ())
            if not isinstance(codes, Sequence) or not all(is_whole(code) for code in codes):
                raise ItemError(f"The codes of a prompt must be whole numbers, got {codes!r}.")
            return cls(str(item.get("text", "")), tuple(codes))
        raise ItemError(
            f"An image prompt must be a text, or a mapping of text and codes, got {item!r}."
        )

    def to_json(self) -> dict[str, object]:
        """Return the fields as a JSON object."""
        return {"text": self.text, "codes": list(self.codes)}


def as_text(codes: Sequence[int]) -> Text:
    """Return codes in the form that `Decode` writes; a masked one is `?`."""
    pieces = [" ?" if code == MASKED else f" {code}" for code in codes]
    starts, at = [], 0  # checks and strategies find a token in the text by its start
    for piece in pieces:
        starts.append(at)
        at += len(piece)
    return Text("".join(pieces), tuple(codes), starts)


def codes_of(output: object, positions: int) -> Tensor:
    """Return the codes (T,) of an output; missing and masked ones are 0."""
    numbers = [0 if word == "?" else int(word) for word in str(output).split()][:positions]
    return torch.tensor(numbers + [0] * (positions - len(numbers)))
