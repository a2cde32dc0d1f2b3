"""A lane process that makes each image in one step, as a generator or a decoder does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

from torch import Tensor

from ostinato.loop import Lane, Report

Item = TypeVar("Item")


class OneStep(ABC, Generic[Item]):
    """Makes images, each from its item alone: so it has the same bits in any company."""

    deterministic = True
    costs = ("calls",)

    def __init__(self, *, slots: int = 16) -> None:
        self.slots = slots
        self._lanes: dict[str, tuple[Lane, Item]] = {}
        self._images: dict[str, Tensor] = {}

    @abstractmethod
    def item_of(self, item: object) -> Item:
        """Return what a lane works on. Raises `ItemError` for anything else."""

    @abstractmethod
    def draw(self, lane: Lane, item: Item) -> Tensor:
        """Return the image (C, S, S) in [-1, 1] of an item, in the round of the lane."""

    def calls(self, item: Item) -> int:
        """Return how many calls of the network an item takes."""
        return 1

    def start(self, lane: Lane, item: object) -> None:
        """Give a slot to an item. Raises `ItemError` for a wrong one, `EditError` for any edit."""
        known = self.item_of(item)
        lane.edits.check(f"a lane of {type(self).__name__}", (), lambda name, value: None)
        self._lanes[lane.key] = lane, known
        if lane.past:
            self._images[lane.key] = self.draw(lane, known)

    def step(self) -> Mapping[str, Report]:
        """Make the images of all lanes that have none yet."""
        coming = {key: started for key, started in self._lanes.items() if key not in self._images}
        self._images |= {key: self.draw(*started) for key, started in coming.items()}
        return {
            key: {"calls": self.calls(item), "ended": "It was drawn in one step."}
            for key, (_, item) in coming.items()
        }

    def rewind(self, lane: Lane, to: int) -> None:
        """Forget the image of a lane that is to be made again."""
        _, item = self._lanes[lane.key]
        self.drop(lane.key)
        self.start(lane, item)

    def output(self, key: str) -> object:
        """Return a lane's image (C, S, S) in [-1, 1]; None before it is made."""
        return self._images.get(key)

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        self._lanes.pop(key, None)
        self._images.pop(key, None)
