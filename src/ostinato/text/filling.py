"""Fill gaps in texts: the loop over texts, ready to be iterated. Knows no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ostinato.arguments import refuse_single, require_arguments, require_at_least
from ostinato.errors import InputError
from ostinato.loop import Condition, Lanes, Loop, Never, Policy, content_keys
from ostinato.models import MaskedModel, load_masked_model
from ostinato.text.unmask import FillConfig, MaskedText, Unmask

GAP = "___"
"""What marks a gap in a text."""


def fill_gaps(
    texts: Sequence[str],
    *,
    model: MaskedModel | str,
    gap_tokens: int = 8,
    steps: int = 8,
    fill: FillConfig | None = None,
    each: Condition = Never(),
    seed: int = 0,
    slots: int | None = None,
    **loop: Any,
) -> Loop:
    """Return the loop that fills the gaps of texts, side by side.

    Each `___` is a gap of `gap_tokens` tokens. They are decided in `steps` steps, the most certain
    first. `each` ends a text earlier; `loop` goes to `Loop`, such as `run` and `until`. The texts
    are in `step.results`.
    """
    require_arguments(fill_gaps, locals())
    refuse_single("texts", texts)
    require_at_least(1, gap_tokens=gap_tokens, steps=steps, slots=1 if slots is None else slots)
    if not texts:
        raise InputError("There must be at least one text, got none.")
    model = load_masked_model(model) if isinstance(model, str) else model
    for text in texts:
        if GAP not in text:
            raise InputError(f"A text must have a gap, marked as {GAP}, got {text!r}. Mark one.")
    items = [MaskedText.of(_joined(model, text), gap_tokens, GAP) for text in texts]
    process = Unmask(model, steps=steps, fill=fill, slots=slots or min(len(items), 16))
    keyed = list(zip(content_keys(list(texts)), items, strict=True))
    return Loop(Lanes(process, keyed, Policy(each=each), seed=seed), **loop)


def _joined(model: MaskedModel, text: str) -> str:
    """Leave the space before a gap to the gap, for tokenizers whose words start with a space."""
    return text if model.word_pieces else text.replace(f" {GAP}", GAP)
