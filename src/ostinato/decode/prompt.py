"""What a lane of `Decode` begins from. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ostinato.decode.constraint import Constraint
from ostinato.decode.sampling import Sampling
from ostinato.errors import ItemError
from ostinato.loop import Edits


@dataclass(frozen=True)
class Prompt:
    """What a lane begins from: the prompt's tokens, and how its continuation is drawn.

    `watch` names tokens whose log-probability is noted at every position (in the text's `watched`):
    where a value could have been said. `likeliest` is how many of the likeliest tokens are reported
    at every position with their log-probabilities. `constraint` is what the continuation must be as
    a whole. `draws` is the (seed, key) that its random numbers come from, where they are not the
    lane's own. `limit` is the most tokens that the continuation may have, its end token included,
    where `Decode` allows more. `forced` holds the tokens that are known, by their positions in the
    continuation: they are taken as they are, whatever is forbidden there.
    """

    tokens: Sequence[int]
    sampling: Sampling | None = None
    watch: Sequence[int] = ()
    likeliest: int = 0
    constraint: Constraint | None = None
    draws: tuple[int, str] | None = None
    limit: int | None = None
    forced: Mapping[int, int] = field(default_factory=dict)


Prompter = Callable[[object, Mapping[str, object]], Prompt]
"""Makes an item's prompt; the second argument holds the edits that are not `Decode`'s own."""


def plain_prompt(encode: Callable[[str], Sequence[int]]) -> Prompter:
    """Make a prompter for items that are texts."""

    def prompt(item: object, edits: Edits) -> Prompt:
        if not isinstance(item, str):
            raise ItemError(f"A prompt must be a text, got {type(item).__name__}.")
        return Prompt(encode(item))

    return prompt
