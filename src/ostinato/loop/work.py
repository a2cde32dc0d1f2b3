"""What a run is made of when it is built: its loop, and what is done at its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from ostinato.loop.lane_result import LaneResult
from ostinato.loop.loop import Loop
from ostinato.loop.step import Step
from ostinato.output_files import told_when_not_written


@dataclass(kw_only=True)
class Work:
    """A run that is ready to be driven: `work.loop.run(work.watch)`, then `work.finish()`.

    Builders return a subclass where a run makes something.
    """

    loop: Loop

    def watch(self, step: Step) -> None:
        """Take from a step what `finish` needs; must see every step of the loop."""

    def finish(self) -> None:
        """Write what the run makes, when its loop has ended: weights, images, replies.

        Safe to call again. Raises `OutputError` where a file cannot be written.
        """
        mend = "Make room or access; nothing recorded the run."
        if self.loop.recorded_as is not None:
            mend = "Nothing is lost: make room or access, and resume the run."
        with told_when_not_written(mend):
            self.write()

    def write(self) -> None:
        """Do what `finish` does; by itself a run makes nothing but its results in the journal."""


@dataclass(kw_only=True)
class ItemsWork(Work):
    """A run of lanes, with the results of the items that are done."""

    _finished: dict[str, LaneResult] = field(default_factory=dict, init=False, repr=False)

    def watch(self, step: Step) -> None:
        """Take the results of the items that are done."""
        self._finished |= {result.key: result for result in step.results}

    @property
    def results(self) -> list[LaneResult]:
        """The results of finished items by index, with those of a recorded run's other sessions."""
        run = self.loop.recorded_as
        # A resumed loop yields only the results that are new; the journal has them all.
        before = {} if run is None else dict(run.results())
        results = {key: LaneResult.from_json(row) for key, row in before.items()} | self._finished
        return sorted(results.values(), key=lambda result: result.index)
