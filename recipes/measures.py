"""What the booking replies of a model are worth: bits per character, values said, values made up.

Knows the chats of `recipes.sgd`, no training.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
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
LONGEST_REPLY = 80  # tokens


@dataclass(frozen=True, kw_only=True)
class Turn:
    """An assistant's turn: what comes before it, what it knows, what a person said."""

    messages: list[dict[str, str]]
    record: Mapping[str, str]
    reference: str


@dataclass(frozen=True, kw_only=True)
class Facing:
    """How replies stand to the record and to the references.

    `values` counts the record's values that the references say and `said` those of them that the
    replies say too; `claims` counts the replies' figures and names and `made_up` those that neither
    record nor conversation hold.
    """

    turns: int
    values: int
    said: int
    claims: int
    made_up: int

    def to_json(self) -> dict[str, float]:
        """Return the shares with the counts behind them."""
        return {
            "turns": self.turns,
            "values": self.values,
            "said": self.said / max(1, self.values),
            "claims": self.claims,
            "made_up": self.made_up / max(1, self.claims),
        }


@torch.no_grad()
def bits_per_character(model: LanguageModel, dialogues: Iterable[Dialogue]) -> float:
    """Return the bits that the model needs for a character of the assistant's turns.

    Each turn is given all that came before it; its end token is paid for, too.
    """
    nats, characters = 0.0, 0
    for dialogue in dialogues:
        example = conversation(model.tokenizer, dialogue_messages(dialogue), 1 << 20)
        tokens, counted = torch.tensor(example.tokens), torch.tensor(example.loss_mask)
        hidden = model.network(tokens[None])[0, :-1][counted[1:]]  # (N, C)
        logits = model.network.logits(hidden).float()
        nats += float(F.cross_entropy(logits, tokens[1:][counted[1:]], reduction="sum"))
        turns = dialogue["turns"]
        characters += sum(len(text) for role, text, *_ in turns if role == "assistant")
    return nats / math.log(2) / characters


def sample_turns(dialogues: Sequence[Dialogue], count: int, seed: int = 0) -> list[Turn]:
    """Return one of the assistant's turns from each of `count` dialogues, drawn from `seed`."""
    dice = random.Random(seed)
    turns = []
    for dialogue in dice.sample(list(dialogues), count):
        places = [i for i, turn in enumerate(dialogue["turns"]) if turn[0] == "assistant"]
        place = dice.choice(places)
        _, reference, record = dialogue["turns"][place]
        messages = dialogue_messages(dialogue, upto=place)
        turns.append(Turn(messages=messages, record=record, reference=reference))
    return turns


def greedy_replies(model: LanguageModel, turns: Sequence[Turn]) -> list[str]:
    """Return the likeliest reply, token by token, to every turn's messages."""
    loop = write(
        [turn.messages for turn in turns],
        model=model,
        each=Steps(LONGEST_REPLY),
        sampling=SamplingParams(temperature=0.0),
    )
    replies = {row["index"]: str(row["output"]) for step in loop for _, row in step.results}
    return [replies[index].strip() for index in range(len(turns))]


def facing(turns: Sequence[Turn], replies: Sequence[str]) -> Facing:
    """Hold replies against what their turns know and what a person said."""
    values = kept = total = wrong = 0
    for turn, reply in zip(turns, replies, strict=True):
        for forms in values_taken(turn):
            values += 1
            kept += said(reply, forms)
        claimed = joined(claims(reply, Facts((turn.messages, turn.record)), whole=True))
        total += len(claimed)
        wrong += claimed.count(False)
    return Facing(turns=len(turns), values=values, said=kept, claims=total, made_up=wrong)


def values_taken(turn: Turn) -> list[list[str]]:
    """Return the forms of each of the record's values that the reference says."""
    forms = {
        name: forms_of(name, value)
        for name, value in turn.record.items()
        if name != "request" and value.lower() not in NO_VALUE and re.search(r"\w", value)
    }
    return [ways for ways in forms.values() if said(turn.reference, ways)]


def joined(found: Iterable[Claim]) -> list[bool]:
    """Return for each figure or name whether it is known; all words of a name have to be."""
    known: list[bool] = []
    for claim in found:
        if claim.joined and known:
            known[-1] = known[-1] and bool(claim.grounded)
        else:
            known.append(bool(claim.grounded))
    return known
