"""The words of a prompt: the class of an image, and what can be measured of it.

A prompt has four slots, for slant, thickness, size and class; one that is not mentioned is `any`.
So "a slanted seven" is (slanted, any, any, seven), in whatever order. Knows no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError
from ostinato.image import Images

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROPERTIES = (("slanted", "upright"), ("thick", "thin"), ("large", "small"))
SMALL_WORDS = {"a", "an", "the", "and", "any"}
RESERVED = {word for pair in PROPERTIES for word in pair} | SMALL_WORDS
ANY = 0
PROMPT_TOKENS = len(PROPERTIES) + 1


class Thresholds(NamedTuple):
    """The first word of a property holds from `high` upward, the second below `low`."""

    high: float
    low: float


@dataclass(frozen=True)
class Attributes:
    """The vocabulary: `any`, two words for each property, the names of the classes.

    `cuts` are the thresholds of each property.
    """

    classes: tuple[str, ...]
    cuts: tuple[Thresholds, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "cuts", tuple(Thresholds(*cut) for cut in self.cuts))
        for number, name in enumerate(self.classes):
            if name in self.classes[:number] or not self._can_be_encoded(name):
                raise InputError(
                    f"Classes must have names that differ and hold none of the words "
                    f"{', '.join(sorted(RESERVED))}, got {name!r}. Rename the class."
                )

    @staticmethod
    def _can_be_encoded(name: str) -> bool:
        """Return whether a prompt can name a class: `encode` reads the name as it is."""
        words = name.replace(",", " ").split()
        return " ".join(words) == name != "" and not RESERVED.intersection(words)

    @classmethod
    def of(cls, images: Images) -> Attributes:
        """Return the vocabulary of a data set; each word of a property fits a third of it."""
        values = measure(images.pixels)
        # Terciles: the middle third of the images has neither word.
        cuts = [Thresholds(float(v.quantile(2 / 3)), float(v.quantile(1 / 3))) for v in values.T]
        return cls(tuple(class_word(name) for name in images.names), tuple(cuts))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All words; the id of a word is its index."""
        return ("any", *(word for pair in PROPERTIES for word in pair), *self.classes)

    def describe(self, images: Images) -> Tensor:
        """Return the word ids (N, 4) that fit each image."""
        values = measure(images.pixels)
        ids = torch.zeros(len(images), PROMPT_TOKENS, dtype=torch.long)
        for slot, (high, low) in enumerate(self.cuts):
            # Id 0 is `any`; the two words of a property follow each other.
            ids[values[:, slot] >= high, slot] = 1 + 2 * slot
            ids[values[:, slot] < low, slot] = 2 + 2 * slot
        if images.labels is not None and self.classes:
            ids[:, -1] = 1 + 2 * len(PROPERTIES) + images.labels
        return ids

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the four ids of a prompt. Raises `InputError` for an unknown word."""
        ids, rest = [ANY] * PROMPT_TOKENS, []
        for word in text.lower().replace(",", " ").split():
            slot = next((n for n, pair in enumerate(PROPERTIES) if word in pair), None)
            if slot is None:
                rest += [] if word in SMALL_WORDS else [word]
            elif ids[slot] != ANY:
                first, second = PROPERTIES[slot]
                raise InputError(
                    f"A prompt must say either {first} or {second} once, got {text!r}."
                )
            else:
                ids[slot] = 1 + 2 * slot + PROPERTIES[slot].index(word)
        if rest:
            ids[-1] = self._class(" ".join(rest), text)
        return tuple(ids)

    def _class(self, name: str, text: str) -> int:
        word = class_word(name)
        if word not in self.classes:
            known = ", ".join(self.vocabulary[1:])
            hint = did_you_mean(name, self.vocabulary[1:])
            raise InputError(f"Unknown words {name!r} in {text!r}. Known: {known}.{hint}")
        return 1 + 2 * len(PROPERTIES) + self.classes.index(word)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the words of ids, without `any`."""
        return " ".join(self.vocabulary[i] for i in ids if i != ANY)

    def to_json(self) -> dict[str, object]:
        """Return the vocabulary as a JSON object."""
        return {
            name: [list(v) if isinstance(v, tuple) else v for v in value]
            for name, value in asdict(self).items()
        }


def class_word(name: str) -> str:
    """Return the name of a class in lower case; digits are spelled out.

    `encode` lowers prompts too, and "seven" reads better in one than "7".
    """
    return NUMBERS[int(name)] if name.isdecimal() and int(name) < 10 else name.lower()


def measure(pixels: Tensor) -> Tensor:
    """Return slant, thickness and size (N, 3) of the ink on uint8 images (N, C, S, S).

    Slant is the absolute shear of the ink. Thickness is twice its area divided by the length of its
    edge, in pixels. Size is the root mean square distance from its center, in pixels. Ink is bright
    where the border of the image is dark, and dark where it is bright.
    """
    ink = pixels.float().mean(1) / 255  # (N, S, S)
    border = torch.cat((ink[:, 0], ink[:, -1], ink[:, :, 0], ink[:, :, -1]), 1).mean(1)
    ink = torch.where(border[:, None, None] > 0.5, 1 - ink, ink)
    ink = ink.clamp_min(1e-6)  # an empty image would have no center
    S = ink.size(-1)
    at = torch.arange(S, dtype=torch.float32)
    total = ink.sum((1, 2))
    x, y = (ink.sum(1) @ at) / total, (ink.sum(2) @ at) / total
    dx, dy = at[None, None] - x[:, None, None], at[None, :, None] - y[:, None, None]
    xx, yy, xy = ((ink * a).sum((1, 2)) / total for a in (dx**2, dy**2, dx * dy))
    across, along = ink.diff(dim=2).abs().sum((1, 2)), ink.diff(dim=1).abs().sum((1, 2))
    edge = (across**2 + along**2).sqrt().clamp_min(1e-6)
    return torch.stack(((xy / yy.clamp_min(1e-6)).abs(), 2 * total / edge, (xx + yy).sqrt()), 1)
