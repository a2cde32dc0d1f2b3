"""The other token loops, each as a loop that `check_killed` starts in a separate process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny import tiny_model
from tiny_bert import tiny_bert, word_pieces
from toys import slowly

from ostinato.decode import Beam, Decode, DraftModel, PromptLookup, SamplingParams, plain_prompt
from ostinato.journal import Stopped
from ostinato.loop import (
    Action,
    CheckpointSchedule,
    GiveUp,
    GoBack,
    History,
    LaneProcess,
    Lanes,
    Loop,
    Policy,
    Steps,
    Verdict,
)
from ostinato.models import GRU, GRUConfig, LanguageModel, MaskedModel, Tokenizer
from ostinato.text import MaskedText, Unmask

TEXTS = [f"Can you help me with number {n}? Can you help me" for n in range(10)]
GAPS = [MaskedText((f"i want {n} ", " in san jose ", ""), (3, 4)) for n in range(10)]


def tiny_gru(width: int = 24, seed: int = 1) -> LanguageModel:
    """Return a random recurrent model with the tiny model's tokenizer."""
    tokenizer = tiny_model().tokenizer
    config = GRUConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=width,
        num_hidden_layers=2,
        max_position_embeddings=256,
        eos_token_id=(2,),
    )
    network = GRU(config, seed=seed).eval()
    for parameter in network.parameters():
        parameter.data.mul_(3)  # a random network that prefers some tokens
    return LanguageModel(network, tokenizer, config, Path("tiny"), "tiny-gru")


def process(kind: str) -> LaneProcess:
    """Return a lane process by its name, with a few slots."""
    encode = plain_prompt(tiny_model().tokenizer.encode)
    sampling = SamplingParams(temperature=0.8, top_k=8)
    if kind == "unmask":
        tokenizer = Tokenizer(word_pieces())
        model = MaskedModel(tiny_bert(tokenizer.vocab_size), tokenizer, "tiny")
        return Unmask(model, steps=6, slots=3)
    if kind == "beam":
        return Beam(tiny_model(), encode, num_beams=3, limit=10, slots=3)
    if kind == "gru":
        return Decode(tiny_gru(), encode, sampling=sampling, slots=3)
    proposer = PromptLookup(4, shortest=1) if kind == "lookup" else DraftModel(tiny_model(), 3)
    return Decode(tiny_model(), encode, sampling=sampling, slots=3, proposer=proposer)


def write(kind: str, **where: Any) -> Loop:
    """Items in a few slots; those that fail go back, with an edit."""
    keyed = [(str(n), item) for n, item in enumerate(GAPS if kind == "unmask" else TEXTS)]

    def again(stopped: Stopped, history: History) -> Action:
        if history.backtracks() >= 2:
            return GiveUp("Twice is enough.")
        edits = {"mask": [0, 2]} if kind == "unmask" else {"forbid": [5, history.backtracks() + 40]}
        return GoBack(3, edits, stopped.sentence)

    def judge(output: Any, item: object) -> list[Verdict]:
        return [Verdict("even", len(output) % 2 == 0, message="Write an even number.")]

    lanes = Lanes(
        process(kind),
        keyed,
        Policy(each=Steps(12) | slowly(0.004), judge=judge, on_stop=again),
        seed=5,
    )
    return Loop(lanes, until=Steps(10_000), checkpoint=CheckpointSchedule(steps=5), **where)
