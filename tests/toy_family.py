"""A whole family in under 80 lines: what writes, and what judges it, learn in turns.

A critic learns to tell texts from a corpus; the writer learns to please it. Every ten steps the
writer is sampled with the weights that it then has, each prompt by a policy of its own.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from tiny import tiny_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from ostinato.decode import Decode, TokenPrompt
from ostinato.loop import Accept, Lanes, Loop, Policy, Report, StartOver, Steps, Verdict, fold_in
from ostinato.train import AdamW, CurrentWeights, Parts, Schedule, Updater, Values, trainable

CORPUS = [[7, 8, 9], [9, 8, 7, 8]]
LENGTHS = {"short": 3, "middle": 5, "long": 8}  # items: how many tokens each may have


class WriterAndCritic:
    """A policy gradient for the writer (Williams 1992), a logistic loss for the critic."""

    def __init__(self, seed: int = 0, every: int = 10) -> None:
        self.seed, self.every = seed, every
        self.writer = deepcopy(tiny_model().llama())
        model = replace(tiny_model(), network=self.writer)
        self.critic = nn.EmbeddingBag(model.config.vocab_size, 1)
        nn.init.normal_(self.critic.weight, generator=torch.Generator().manual_seed(seed))
        self.decode = Decode(model, lambda length, edits: TokenPrompt([1]), slots=2)
        self.turns, weights = {}, {}
        for name, network in {"writer": self.writer, "critic": self.critic}.items():
            self.turns[name] = Updater(trainable(network), AdamW(), Schedule(lr=0.05))
            weights[f"{name}_weights"] = CurrentWeights(trainable(network))
        self.kept = Values(texts=[])
        parts = Parts("WriterAndCritic", kept=self.kept, **self.turns, **weights)
        self.known_edits, self.change = parts.known_edits, parts.change
        self.state_dict, self.load_state_dict = parts.state_dict, parts.load_state_dict

    def step(self) -> Report:
        number = self.turns["writer"].steps
        report = self._sampled(number) if number % self.every == 0 else {}
        texts = self.kept.texts
        rewarded = [self._score(text).detach() * self._loss(text) for text in texts]
        losses = [softplus(self._score(text)) for text in texts]
        losses += [softplus(-self._score(text)) for text in CORPUS]
        return report | self._turn("writer", rewarded) | self._turn("critic", losses)

    def _turn(self, name: str, losses: list[Tensor]) -> dict[str, float]:
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
        return {f"{name}/{key}": value for key, value in self.turns[name].step().items()}

    def _sampled(self, number: int) -> dict[str, object]:
        self.decode.update()
        lanes = Lanes(self.decode, LENGTHS.items(), self._policy, seed=fold_in(self.seed, number))
        outputs = [result.output for step in Loop(lanes) for result in step.results]
        self.kept.texts = [list(text.tokens) for text in outputs]
        return {"return": [float(self._score(text).detach()) for text in self.kept.texts]}

    def _policy(self, length: int) -> Policy:
        def judge(text: Any, item: object) -> list[Verdict]:
            return [Verdict("critic", bool(self._score(text.tokens) > 0))]

        def again(stopped: object, history: Any) -> Accept | StartOver:
            return StartOver() if history.lane.round < length // 3 else Accept()

        return Policy(each=Steps(length), judge=judge, on_stop=again)

    def _score(self, tokens: list[int]) -> Any:
        return self.critic(torch.tensor([[*tokens]])).squeeze()

    def _loss(self, tokens: list[int]) -> Tensor:
        hidden = self.writer(torch.tensor([[1, *tokens[:-1]]]))
        return cross_entropy(self.writer.logits(hidden)[0], torch.tensor(tokens))
