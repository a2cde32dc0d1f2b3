"""Rollouts: the texts that the model of now writes for prompts, as lanes of the batched decode.

Knows no gradients. What a text is worth is up to whoever asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ostinato.checks import TIME_LIMIT, judge_all
from ostinato.decode import Decode, TokenPrompt
from ostinato.errors import RunError
from ostinato.journal import StopKind
from ostinato.loop import (
    Check,
    Condition,
    Item,
    LaneResult,
    Lanes,
    Loop,
    Policy,
    Steps,
    Text,
    Verdict,
)
from ostinato.models import LanguageModel
from ostinato.refine import PromptOf, Row, StillPassable, keyed, prompt_of, prompt_tokens
from ostinato.reward.tuning.rewards import Rated
from ostinato.reward.tuning.scores import GroupTokens

Items = Iterable[Row | tuple[str, Row]]
"""Mappings of columns, or pairs of a key and a mapping."""


class PromptedItem(dict[str, object]):
    """The columns of an item, with its key, and with its prompt as it was made and as tokens."""

    def __init__(
        self, key: str, row: Row, prompt: str | Sequence[Mapping[str, str]], tokens: Sequence[int]
    ) -> None:
        super().__init__(row)
        self.key, self.prompt, self.tokens = key, prompt, tuple(tokens)

    @property
    def prompt_text(self) -> str:
        """The words of the prompt, without those of a chat template."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(message["content"] for message in self.prompt)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A text that was sampled, with its tokens, the end token included.

    `logprobs` are those that the decode has computed, at temperature 1. `cut`: the token limit
    ended it. `hopeless`: it was left as no continuation could pass.
    """

    text: str
    tokens: Sequence[int]
    logprobs: Sequence[float]
    verdicts: Sequence[Verdict]
    cut: bool
    hopeless: bool

    def rated(self, item: PromptedItem) -> Rated:
        """Return the text of an item as rewards see it."""
        return Rated(item.prompt, item, self.text, self.tokens, self.verdicts)


@dataclass(frozen=True, slots=True)
class Group:
    """The texts that were sampled for an item."""

    item: PromptedItem
    rollouts: Sequence[Rollout]

    @property
    def tokens(self) -> GroupTokens:
        """The tokens of the prompt and of the texts."""
        return GroupTokens(self.item.tokens, [rollout.tokens for rollout in self.rollouts])

    @property
    def texts(self) -> list[Rated]:
        """The texts as rewards see them."""
        return [rollout.rated(self.item) for rollout in self.rollouts]


class Sampler:
    """Samples texts of items and has checks judge them.

    `limit` is the maximum number of tokens. A text that can no longer pass one of the checks
    `passable` is left where it is.
    """

    def __init__(
        self,
        decode: Decode,
        limit: int,
        checks: Sequence[Check] = (),
        passable: Sequence[Check] = (),
        time_limit: float = TIME_LIMIT,
    ) -> None:
        self._decode, self._time_limit = decode, time_limit
        self._checks = tuple(checks)
        each: Condition = Steps(limit)
        if passable:
            each = each | StillPassable(tuple(passable), time_limit)
        self._policy = Policy(each=each, judge=self._judge if checks else None)

    def sample(self, items: Sequence[PromptedItem], count: int, seed: int) -> list[Group]:
        """Return `count` texts for each item: the same for the same weights and seed.

        Call `Decode.update` first where weights have changed. Raises `RunError` for an item that
        the model cannot work on.
        """
        texts = [(f"{item.key}\x1f{n}", item) for item in items for n in range(count)]
        lanes = Lanes(self._decode, texts, self._policy, seed=seed)
        found = {result.key: result for step in Loop(lanes) for result in step.results}
        return [
            Group(item, [_rollout(item, found[f"{item.key}\x1f{n}"]) for n in range(count)])
            for item in items
        ]

    def _judge(self, output: object, item: Item) -> Sequence[Verdict]:
        return judge_all(self._checks, output, item, self._time_limit)


def _rollout(item: PromptedItem, result: LaneResult) -> Rollout:
    text = result.output
    if not isinstance(text, Text) or not text.tokens:
        raise RunError(
            f"The item {item.key!r} must be one that the model can answer, got: "
            f"{result.stopped.sentence} Leave it out."
        )
    # A text is judged when it has ended or was cut; one that was left has failed without verdicts.
    last = result.attempts[-1]
    hopeless = last.stopped.kind is StopKind.FAILED and not last.verdicts
    return Rollout(
        text=str(text),
        tokens=tuple(text.tokens),
        logprobs=tuple(text.logprobs),
        verdicts=result.verdicts,
        cut=not text.ended and not hopeless,
        hopeless=hopeless,
    )


def prompted(model: LanguageModel, items: Items, prompt: str | PromptOf) -> list[PromptedItem]:
    """Return items with their prompts; none for none."""
    given = list(items)
    if not given:
        return []
    make, found = prompt_of(prompt), []
    for key, row in keyed(given):
        made = make(row, {})
        tokens = prompt_tokens(made, model.tokenizer)
        shown = model.tokenizer.decode(tokens) if isinstance(made, TokenPrompt) else made
        found.append(PromptedItem(key, row, shown, tokens))
    return found
