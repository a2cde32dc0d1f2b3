"""A discriminator of replies: a logistic regression that tells people's replies from drafts.

Its features are the words and the runs of letters of a reply, hashed (Weinberger et al. 2009); a
word also says whether the conversation has it. It is trained at once, and says which words gave
a draft away. Knows no model and no loop.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from examples.adversarial_checks.logistic import fit_logistic
from ostinato.checks import Function
from ostinato.errors import InputError

FILE = Path(__file__).parent / "out" / "discriminator.safetensors"
"""Where `run.py` writes the last discriminator, and the check of `job.toml` reads it."""
BUCKETS = 1 << 13
PENALTY = 0.003  # L2, of the mean loss
Item = Mapping[str, object]
Reply = tuple[str, Item]  # a reply, and the item that it answers


def features(text: str, item: Item) -> Counter[str]:
    """Return the counts of a reply's features by name.

    "hotel" is a word that the conversation has, "+hotel" one that it has not; "a b" are two words,
    "^abc" are letters.
    """
    known = set(_words(_conversation(item)))
    found = [("" if word in known else "+") + word for word in _words(text)]
    pairs = zip(["<", *found], [*found, ">"], strict=True)
    return Counter([*found, *(" ".join(pair) for pair in pairs), *_letters(text)])


def _words(text: str) -> list[str]:
    """Return words, figures and marks in lower case; digits are all alike."""
    return re.findall(r"[^\W\d_]+|#+|[^\w\s]", re.sub(r"\d", "#", text.lower()))


def _letters(text: str) -> Iterator[str]:
    plain = re.sub(r"\d", "#", " ".join(text.split()))
    for length in (3, 4):
        for start in range(len(plain) - length + 1):
            yield "^" + plain[start : start + length]


def _conversation(item: Item) -> str:
    messages = item["messages"]
    assert isinstance(messages, Sequence)
    return " ".join(str(message["content"]) for message in messages)


def surface(text: str) -> str:
    """Return a text without its words: each letter is an x, case, digits and marks stay."""
    return re.sub(r"[a-z]", "x", re.sub(r"[A-Z]", "X", text))


@dataclass(frozen=True)
class Discriminator:
    """Weights (BUCKETS + 1) of hashed features; the last one is the bias.

    Zeros are a discriminator that has not learned: every reply has a score of 0.5, and passes.
    """

    weights: Tensor

    @classmethod
    def untrained(cls) -> Discriminator:
        """Return the discriminator that cannot tell."""
        return cls(torch.zeros(BUCKETS + 1, dtype=torch.float64))

    @classmethod
    def fit(cls, real: Sequence[Reply], made: Sequence[Reply]) -> Discriminator:
        """Return what tells the two kinds best, however many there are of each."""
        return cls(fit_logistic(_vectors(real), _vectors(made), PENALTY))

    def score(self, text: str, item: Item) -> float:
        """Return the probability that a person wrote the reply."""
        return float(torch.sigmoid(_vector(text, item) @ self.weights))

    def judge(self, text: str, item: Item) -> tuple[float, str]:
        """Return the score and what gives the reply away, as the function of a check."""
        score = self.score(text, item)
        words = ", ".join(f'"{word}"' for word in self.giveaways(text, item)) or "nothing"
        return score, f"It reads like a draft ({score:.2f}), above all for {words}."

    def giveaways(self, text: str, item: Item, most: int = 3) -> list[str]:
        """Return the words and pairs of words that speak most against a reply."""
        counts = features(text, item)
        weights = {name: self._weight(name) for name in counts if not name.startswith("^")}
        worst = sorted(weights, key=lambda name: (weights[name], name))[:most]
        return [name.replace("+", "") for name in worst if weights[name] < 0]

    def _weight(self, name: str) -> float:
        bucket, sign = _bucket(name)
        return sign * float(self.weights[bucket])

    def check(self, threshold: float = 0.5) -> Function:
        """Return the check that a reply passes where its score is at least `threshold`."""
        return Function(name="discriminator", function=self.judge, threshold=threshold)

    def save(self, path: Path) -> None:
        """Write the weights."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"weights": self.weights}, path)

    @classmethod
    def load(cls, path: Path) -> Discriminator:
        """Read the weights. Raises `InputError` where there are none."""
        if not path.is_file():
            raise InputError(
                f"{path} must exist, got no such file. Run examples/adversarial_checks/run.py, "
                "which trains it."
            )
        return cls(load_file(path)["weights"])


def _vectors(replies: Sequence[Reply]) -> Tensor:
    """Return the vectors (N, BUCKETS + 1) of N replies."""
    return torch.stack([_vector(*reply) for reply in replies])


def _vector(text: str, item: Item) -> Tensor:
    """Return the vector (BUCKETS + 1) of a reply: of length 1, so that long ones weigh no more."""
    vector = torch.zeros(BUCKETS + 1, dtype=torch.float64)
    counts = features(text, item)
    places = [_bucket(name) for name in counts]
    values = [sign * count**0.5 for (_, sign), count in zip(places, counts.values(), strict=True)]
    index = torch.tensor([bucket for bucket, _ in places], dtype=torch.long)
    vector.index_add_(0, index, torch.tensor(values, dtype=torch.float64))
    vector /= max(1e-9, float(vector.norm()))
    vector[-1] = 1.0
    return vector


@cache
def _bucket(name: str) -> tuple[int, int]:
    """Return a feature's place and its sign, which lets collisions cancel out on average."""
    number = zlib.crc32(name.encode())
    return number % BUCKETS, 1 if number >> 31 else -1
