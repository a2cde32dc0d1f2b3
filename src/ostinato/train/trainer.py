"""What the command line and a run need of anything that trains, whatever its steps are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from ostinato.loop import Process
from ostinato.train.weights import BestWeights


class Trainer(Process, Protocol):
    """A process that changes weights: a training, two networks in turns, a policy."""

    best: BestWeights
    """The best weights so far, and what they are the best by."""

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """What is trained, by name."""
        ...

    @property
    def averages(self) -> bool:
        """Whether what is validated and saved are averages of the weights (EMA)."""
        ...

    def validate_last(self) -> Mapping[str, float]:
        """Validate the weights of the last step, unless they are validated; return the numbers.

        Empty without anything to validate with. For the end of a training: what a resumed run
        computes does not depend on it.
        """
        ...

    def best_weights(self) -> AbstractContextManager[None]:
        """Use the best weights in the block: of the best validation, else averaged, else last."""
        ...
