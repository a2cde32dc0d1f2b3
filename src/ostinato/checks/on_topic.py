"""Held to the subject: how near a reply is in meaning to what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from ostinato.checks.base import BaseCheck, column_texts
from ostinato.loop import Item, Verdict

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class OnTopic(BaseCheck):
    """The reply is about what `column` is about: the cosine of their vectors is at least `min`.

    Where the column holds many texts, the nearest counts. `model` is the encoder: `minilm`, or a
    folder in the layout of BERT.
    """

    kind: ClassVar[str] = "on_topic"

    column: str = "message"
    min: float = 0.1
    model: str = "minilm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.min <= 1:
            raise self.refuse("min", "in [-1, 1]", self.min, "0 is unrelated, 1 is the same.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The column that is answered."""
        return (self.column,)

    def prepare(self) -> None:
        """Load the encoder."""
        from ostinato.models import load_encoder  # brings torch

        load_encoder(self.model)

    def judge(self, output: object, item: Item) -> Verdict:
        """Compare the meanings; the score of a reply that does not pass is its likeness."""
        text = self.text(output)
        if not text.strip():
            return self.verdict(False, "Answer what was asked: the text is empty.")
        reply = _vector(self.model, text)
        asked = [_vector(self.model, text) for text in column_texts(self.name, item, self.column)]
        if not asked:
            return self.verdict(True)
        likeness = max(float(reply @ one) for one in asked)
        message = (
            f"Answer what was asked: the likeness to '{self.column}' is {likeness:.2f}, at least "
            f"{self.min:g} is wanted."
        )
        return self.verdict(
            likeness >= self.min, message, None if likeness >= self.min else max(0.0, likeness)
        )


@lru_cache(maxsize=1024)
def _vector(model: str, text: str) -> Tensor:
    from ostinato.models import load_encoder  # brings torch

    return load_encoder(model).vectors([text])[0]
