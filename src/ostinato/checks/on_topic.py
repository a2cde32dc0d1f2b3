"""On topic: how near in meaning a reply is to what it answers."""

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
    """The cosine similarity of the reply and the item's `column` is at least `min`.

    If the column holds many texts, the nearest one counts; if it is empty, every reply passes.
    `model` is the encoder: `minilm`, or a folder in the layout of BERT.
    """

    kind: ClassVar[str] = "on_topic"

    column: str = "message"
    min: float = 0.1  # 0.3 refused 41% of real replies to customers (docs/log.md)
    model: str = "minilm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.min <= 1:
            raise self.refuse("min", "in [-1, 1]", self.min, "0 is unrelated, 1 is the same.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The column that the reply answers."""
        return (self.column,)

    def require_available(self) -> None:
        """Raise `ModelError` where the encoder is missing."""
        from ostinato.models import require_model

        require_model(self.model, write=False)

    def prepare(self) -> None:
        """Load the encoder. Raises `ModelError` where it is missing."""
        from ostinato.models import load_encoder  # brings torch

        load_encoder(self.model)

    def judge(self, output: object, item: Item) -> Verdict:
        """Compare the meanings; the score of a reply that does not pass is its similarity."""
        text = self.text(output)
        if not text.strip():
            return self.verdict(False, "Answer what was asked: the text is empty.")
        reply = _vector(self.model, text)
        texts = column_texts(self.name, item, self.column)
        if not texts:
            return self.verdict(True)
        # The vectors have length 1, so their product is the cosine.
        similarity = max(float(reply @ _vector(self.model, text)) for text in texts)
        if similarity >= self.min:
            return self.verdict(True)
        message = (
            f"Answer what was asked: the similarity to '{self.column}' is {similarity:.2f}, at "
            f"least {self.min:g} is wanted."
        )
        return self.verdict(False, message, max(0.0, similarity))  # a cosine may be negative


@lru_cache(maxsize=1024)  # each draft of an item is compared with the same text
def _vector(model: str, text: str) -> Tensor:
    from ostinato.models import load_encoder  # brings torch

    return load_encoder(model).vectors([text])[0]
