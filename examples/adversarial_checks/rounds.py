"""The rounds as a process: drafts, the discriminator's verdicts, and what it learns of them.

A step is a round. The model answers new prompts, and a draft is accepted where the discriminator
takes it for a person's. The accepted replies and the references of the same prompts are what the
discriminator learns from next. Knows no held-out judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, ClassVar

import torch
from torch import Tensor

from examples.adversarial_checks.discriminator import Discriminator, Item, Reply, surface
from ostinato.decode import SamplingParams
from ostinato.errors import EditError, InputError
from ostinato.journal import Journal, Run
from ostinato.loop import Check, Exhausted
from ostinato.models import LanguageModel
from ostinato.refine import Refine, Resample

FOLDS = 4
Row = Mapping[str, Any]
"""An item: its `id`, the chat of its `messages`, and a person's reply, the `reference`."""
Draft = Callable[[str, Sequence[Row], Check], list[dict[str, Any]]]
"""Writes replies to rows under a check; returns the rows of `Refine.run`. Its first argument names
the part of the run."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How replies are written: `drafts` at most for a prompt, until one passes."""

    drafts: int = 4
    temperature: float = 0.8
    max_new_tokens: int = 80
    seed: int = 0


@dataclass(frozen=True)
class Drafter:
    """Writes replies by a `Refine`, each part in a run of its own that `caller` has called.

    A part that was killed goes on where it was. Without a caller nothing is recorded.
    """

    model: LanguageModel
    writing: Writing
    journal: Journal | None = None
    caller: str = ""

    def __call__(self, part: str, rows: Sequence[Row], check: Check) -> list[dict[str, Any]]:
        """Return the results in the order of the rows.

        Raises `KeyboardInterrupt` where it was paused, `InputError` where a reply has an error.
        """
        refine = Refine(
            self.model,
            [(str(row["id"]), row) for row in rows],
            prompt=chat,
            checks=[check],
            strategy=Resample(rounds=self.writing.drafts),
            sampling=SamplingParams(temperature=self.writing.temperature, top_k=50),
            max_new_tokens=self.writing.max_new_tokens,
            seed=self.writing.seed,
        )
        recorded = refine.run(run=self._run(part), journal=self.journal)
        results: list[dict[str, Any]] = [dict(row) for row in recorded]
        if len(results) < len(rows):  # it was paused from outside: half a round teaches nothing
            raise KeyboardInterrupt
        for result in results:
            if result["outcome"] == "error":
                raise InputError(
                    f"A reply to {result['id']} must be written, got an error: "
                    f"{result['stopped']['sentence']} Take another model."
                )
        return results

    def _run(self, part: str) -> Run | None:
        if self.journal is None:
            return None
        name = f"{self.caller}-{part}"
        caller = (self.journal.get(self.caller), part)
        return self.journal.find(name) or self.journal.create(name, kind="drafts", caller=caller)


def chat(row: Row, edits: Mapping[str, object]) -> Any:
    """Return the prompt of a row."""
    return row["messages"]


def drafts_of(result: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return the drafts of a result, each with its tokens; an accepted one is the last."""
    texts = [(draft["text_before"] + draft["taken_back"]).strip() for draft in result["drafts"]]
    return list(zip(texts, (draft["position"] for draft in result["drafts"]), strict=True))


class AdversarialRounds:
    """Generator and discriminator in turns, on replies (after Goodfellow et al. 2014).

    The generator is the model behind the check: it improves by what is refused, and its weights
    stay. Each prompt is used once, so that all of a round is new to the discriminator: `first` are
    answered in the first round, where every draft passes, `prompts` in each later one.
    """

    known_edits: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, rows: Sequence[Row], draft: Draft, *, first: int = 96, prompts: int = 32
    ) -> None:
        self._rows, self._draft = rows, draft
        self._first, self._prompts = first, prompts
        self._by_id = {str(row["id"]): row for row in rows}
        self._accepted: list[list[list[str]]] = []  # of each round: pairs of id and reply
        self.discriminators = [Discriminator.untrained()]

    def step(self) -> dict[str, object]:
        """Play a round. Raises `Exhausted` where the prompts are used up."""
        number = len(self._accepted)
        rows = self._rows[self._used(number) : self._used(number + 1)]
        if len(self._rows) < self._used(number + 1):
            raise Exhausted(f"All {len(self._rows)} prompts are used up.")
        discriminator = self.discriminators[-1]
        results = self._draft(f"round-{number}", rows, discriminator.check())
        passed = [[r["id"], r["reply"].strip()] for r in results if r["accepted"]]
        report = self._compared(rows, passed, results)
        self._accepted.append(passed)
        self.discriminators.append(Discriminator.fit(self._references(), self._made()))
        if not passed:
            report["ended"] = "No draft passes the discriminator any more."
        return report

    def _compared(
        self, rows: Sequence[Row], passed: list[list[str]], results: Sequence[Mapping[str, Any]]
    ) -> dict[str, object]:
        """Return a round's numbers; an AUC of 0.5 is that of a discriminator that cannot tell."""
        references = [(str(row["reference"]), row) for row in rows]
        first = [(drafts_of(r)[0][0], self._by_id[r["id"]]) for r in results]
        accepted = [(text, self._by_id[key]) for key, text in passed]
        now = self.discriminators[-1]
        report: dict[str, object] = {
            "auc/drafts": auc(scores(now, references), scores(now, first)),
            "accepted": len(accepted) / len(rows),
            "tokens": sum(result["tokens"]["computed"] for result in results),
            "words/references": words(references),
            "words/drafts": words(first),
            "sample": passed[0][1] if passed else "",
        }
        if self._accepted and len(accepted) >= FOLDS:  # in the first round nothing is refused
            report["words/accepted"] = words(accepted)
            told = self._cross_validated(references, accepted)
            report |= {"auc/accepted": told, "gap": abs(told - 0.5)}
            report["auc/surface"] = self._cross_validated(
                *([(surface(text), item) for text, item in kind] for kind in (references, accepted))
            )
        return report

    def _cross_validated(self, real: Sequence[Reply], made: Sequence[Reply]) -> float:
        """Return how well a discriminator tells this round's replies, trained on the others."""
        real_scores: list[float] = []
        made_scores: list[float] = []
        before = self._references(), self._made()
        for fold in range(FOLDS):
            trained = Discriminator.fit(
                [*before[0], *(one for n, one in enumerate(real) if n % FOLDS != fold)],
                [*before[1], *(one for n, one in enumerate(made) if n % FOLDS != fold)],
            )
            real_scores += scores(trained, real[fold::FOLDS])
            made_scores += scores(trained, made[fold::FOLDS])
        return auc(real_scores, made_scores)

    def _used(self, rounds: int) -> int:
        """Return how many prompts so many rounds use."""
        return self._first + (rounds - 1) * self._prompts if rounds else 0

    def _references(self) -> list[Reply]:
        """Return the references of all rounds."""
        used = self._rows[: self._used(len(self._accepted))]
        return [(str(row["reference"]), row) for row in used]

    def _made(self) -> list[Reply]:
        """Return the accepted replies of all rounds."""
        return [(text, self._by_id[key]) for played in self._accepted for key, text in played]

    def state_dict(self) -> dict[str, object]:
        """Return the accepted replies and every discriminator so far."""
        weights = torch.stack([one.weights for one in self.discriminators])
        return {"accepted": self._accepted, "discriminators": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self._accepted = [[list(pair) for pair in played] for played in state["accepted"]]
        weights: Tensor = state["discriminators"]
        self.discriminators = [Discriminator(row.clone()) for row in weights]

    def change(self, edits: Mapping[str, object]) -> None:
        """Refuse any edit."""
        if edits:
            raise EditError(f"The rounds take no edits, got {sorted(edits)}. Leave them out.")


def scores(discriminator: Discriminator, replies: Sequence[Reply]) -> list[float]:
    """Return the score of each reply."""
    return [discriminator.score(*reply) for reply in replies]


def auc(real: Sequence[float], made: Sequence[float]) -> float:
    """Return how often a real reply has the higher score than a made one; equal ones are half."""
    a, b = torch.tensor(real)[:, None], torch.tensor(made)[None]  # (N, 1), (1, M)
    return float(((a > b).double() + 0.5 * (a == b).double()).mean())


def words(replies: Sequence[tuple[str, Item]]) -> float:
    """Return the mean number of words."""
    return mean(len(text.split()) for text, _ in replies)
