"""A hare and a hound, two networks in turns: what trains them is no `Training`.

The declaration at the end is all that the command line needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ostinato.cli.train.command import TrainCommand
from ostinato.cli.train.line import line
from ostinato.errors import EditError
from ostinato.loop import Edits, Report
from ostinato.train import (
    BestWeights,
    TrainerConfig,
    TrainingParts,
    TrainingRun,
    argument,
    option,
    using,
)

VALID_EVERY = 3


def linear(seed: int) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(2, 2)


class Chase:
    """The hare runs to where the hound is not; the hound runs to the hare, `turns` times a step."""

    averages = False

    def __init__(self, config: ChaseConfig) -> None:
        self.config, self.steps, self.rate = config, 0, config.rate
        self.networks = nn.ModuleDict({"hare": linear(1), "hound": linear(2)})
        self.parameters: Mapping[str, Tensor] = dict(self.networks.named_parameters())
        self.best = BestWeights(self.parameters, "max")

    def step(self) -> Report:
        place = torch.tensor([[1.0, self.steps % 5]])
        losses = [self._move("hound", place, 1.0) for _ in range(self.config.turns)]
        report: dict[str, object] = {
            "hound/loss": losses,
            "hare/loss": self._move("hare", place, -1),
        }
        self.steps += 1
        return report | (self._validate() if self.steps % VALID_EVERY == 0 else {})

    def _move(self, name: str, place: Tensor, sign: float) -> float:
        hare, hound = (self.networks[each](place) for each in ("hare", "hound"))
        loss = sign * (hare - hound).square().mean() + 0.1 * hare.square().mean()
        loss.backward()
        with torch.no_grad():
            for p in self.networks[name].parameters():
                assert p.grad is not None
                p.sub_(self.rate * p.grad)
        self.networks.zero_grad()
        return float(loss.detach())

    def _validate(self) -> dict[str, float]:
        hare, hound = (self.networks[each](torch.ones(1, 2)) for each in ("hare", "hound"))
        lead = float((hare - hound).detach().norm())
        self.best.offer(lead, self.steps)
        return {"lead": lead}

    def validate_last(self) -> Mapping[str, float]:
        return {} if self.steps % VALID_EVERY == 0 else self._validate()

    def best_weights(self) -> AbstractContextManager[None]:
        return using(self.parameters, self.best.weights)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.networks.state_dict(), folder / "chase.safetensors")

    def state_dict(self) -> dict[str, object]:
        weights = {name: p.detach() for name, p in self.parameters.items()}
        best = self.best.state_dict()
        return {"weights": weights, "steps": self.steps, "rate": self.rate, "best": best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["weights"])
        self.best.load_state_dict(state["best"])
        self.steps, self.rate = state["steps"], state["rate"]

    def change(self, edits: Edits) -> None:
        for name, value in edits.items():
            if name != "rate" or not isinstance(value, float):
                raise EditError(f"Unknown edit {name!r} of a chase. Known: rate (a number).")
            self.rate = value


# The declaration ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ChaseConfig(TrainerConfig):
    rate: float = option(0.05, "How fast both run.")
    turns: int = option(2, "Moves of the hound in a step.")


@dataclass(frozen=True, kw_only=True)
class ChaseRun(TrainingRun):
    kind: ClassVar[str] = "train chase"
    prepare: ClassVar[str] = f"{__name__}:prepare_chase"
    measure: ClassVar[str] = "lead"
    better: ClassVar[Any] = "max"

    where: Path = argument("WHERE")
    training: ChaseConfig = ChaseConfig()


def prepare_chase(config: ChaseRun) -> TrainingParts:
    return TrainingParts(process=Chase, save=Chase.save)


CHASE = TrainCommand(
    kind="train chase",
    help="Train a hare and a hound.",
    line=line("hare {hare/loss:.3f}", "hound {hound/loss:.3f}", "lead {lead:.2f}"),
)
