"""Measures of booking replies: bits per character, record values stated, values made up.

Knows the dialogues of `recipes.sgd`, no training.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from examples.support.asked import forms_of, said
from ostinato.checks.grounding.claims import Claim, claims
from ostinato.checks.grounding.facts import Facts
from ostinato.decode import SamplingParams
from ostinato.loop import Steps
from ostinato.models import LanguageModel
from ostinato.text import write
from ostinato.train import conversation
from recipes.sgd import Dialogue, dialogue_messages

NO_VALUE = frozenset({"yes", "no", "true", "false", "none", "dontcare"})
"""Values of a record that nobody says literally."""
LONGEST_REPLY = 80  # tokens


@dataclass(frozen=True, kw_only=True)
class Turn:
    """An assistant's turn: the messages before it, its record, and a person's reply."""

    messages: list[dict[str, str]]
    record: Mapping[str, str]
    reference: str


@dataclass(frozen=True, kw_only=True)
class ReplyScores:
    """Counts over replies.

    `values` counts the record's values that the references state, `said` those of them that the
    replies state too. `claims` counts the figures and names in the replies, `made_up` those that
    are neither in the record nor in the conversation.
    """

    turns: int
    values: int
    said: int
    claims: int
    made_up: int

    def to_json(self) -> dict[str, float]:
        """Return `said` and `made_up` as shares, beside the counts that they are shares of."""
        return {
            "turns": self.turns,
            "values": self.values,
            "said": self.said / max(1, self.values),
            "claims": self.claims,
            "made_up": self.made_up / max(1, self.claims),
        }


@torch.no_grad()
def bits_per_character(model: LanguageModel, dialogues: Iterable[Dialogue]) -> float:
    """Return the cross-entropy of the assistant's turns, in bits per character.

    Each turn is predicted from everything before it; its end token counts too.
    """
    nats, characters = 0.0, 0
    for dialogue in dialogues:
        logits, targets = _predicted(model, dialogue)
        nats += float(F.cross_entropy(logits, targets, reduction="sum"))
        turns = dialogue["turns"]
        characters += sum(len(text) for role, text, *_ in turns if role == "assistant")
    return nats / math.log(2) / characters


def costs_of_confidence(
    model: LanguageModel, dialogues: Iterable[Dialogue], least: float, shares: Sequence[float]
) -> list[float]:
    """Return the bits per character of a model whose unsure tokens are less likely, over its own.

    Those with a natural log-probability below `least` have a share of their probability; all others
    gain in proportion. It is the least that this must cost: nothing else is changed.
    """
    before, after = 0.0, [0.0] * len(shares)
    for dialogue in dialogues:
        logits, targets = _predicted(model, dialogue)
        logprobs = logits.log_softmax(-1)
        unsure = logprobs < least
        mass = (logprobs.exp() * unsure).sum(-1)
        said_unsure = unsure.gather(1, targets[:, None])[:, 0]
        own = logprobs.gather(1, targets[:, None])[:, 0]
        before -= float(own.sum())
        for n, share in enumerate(shares):
            left = (1 - (1 - share) * mass).log()
            after[n] -= float((own + said_unsure * math.log(share) - left).sum())
    return [each / before for each in after]


@torch.no_grad()
def _predicted(model: LanguageModel, dialogue: Dialogue) -> tuple[Tensor, Tensor]:
    """Return the logits (N, V) of the assistant's tokens, and the tokens (N,)."""
    # 2^20 tokens of context: no dialogue is cut.
    example = conversation(model.tokenizer, dialogue_messages(dialogue), 1 << 20)
    tokens, mask = torch.tensor(example.tokens), torch.tensor(example.loss_mask)
    hidden = model.network(tokens[None])[0, :-1][mask[1:]]  # (N, C), N tokens that count
    return model.llama().logits(hidden).float(), tokens[1:][mask[1:]]


def sample_turns(dialogues: Sequence[Dialogue], count: int, seed: int = 0) -> list[Turn]:
    """Return a random assistant's turn from each of `count` random dialogues."""
    rng = random.Random(seed)
    turns = []
    for dialogue in rng.sample(list(dialogues), count):
        indices = [i for i, turn in enumerate(dialogue["turns"]) if turn[0] == "assistant"]
        index = rng.choice(indices)
        _, reference, record = dialogue["turns"][index]
        messages = dialogue_messages(dialogue, upto=index)
        turns.append(Turn(messages=messages, record=record, reference=reference))
    return turns


def greedy_replies(model: LanguageModel, turns: Sequence[Turn]) -> list[str]:
    """Return the greedy reply to every turn's messages, in their order."""
    loop = write(
        [turn.messages for turn in turns],
        model=model,
        each=Steps(LONGEST_REPLY),
        sampling=SamplingParams(temperature=0.0),
    )
    replies = {one.index: str(one.output) for step in loop for one in step.results}
    return [replies[index].strip() for index in range(len(turns))]


def score_replies(turns: Sequence[Turn], replies: Sequence[str]) -> ReplyScores:
    """Compare replies with their turns' records, conversations and references."""
    values = stated = total = wrong = 0
    for turn, reply in zip(turns, replies, strict=True):
        for forms in stated_values(turn):
            values += 1
            stated += said(reply, forms)
        known = merge_names(claims(reply, Facts((turn.messages, turn.record)), whole=True))
        total += len(known)
        wrong += known.count(False)
    return ReplyScores(turns=len(turns), values=values, said=stated, claims=total, made_up=wrong)


def stated_values(turn: Turn) -> list[list[str]]:
    """Return the forms of each of the record's values that the reference states."""
    forms = {
        name: forms_of(name, value)
        for name, value in turn.record.items()
        if name != "request" and value.lower() not in NO_VALUE and re.search(r"\w", value)
    }
    return [each for each in forms.values() if said(turn.reference, each)]


def merge_names(found: Iterable[Claim]) -> list[bool]:
    """Return for each figure or name whether it is known; of a name every word must be."""
    known: list[bool] = []
    for claim in found:
        if claim.joined and known:
            known[-1] = known[-1] and bool(claim.grounded)
        else:
            known.append(bool(claim.grounded))
    return known
