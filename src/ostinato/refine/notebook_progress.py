"""The progress of a `Refine` in a notebook: a bar of tqdm, with the words of the command's line."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console

from ostinato.loop import Step
from ostinato.refine.progress_tally import ProgressTally, QuietProgress

EVERY = 0.2
"""Seconds between two refreshes of the bar."""


def in_notebook() -> bool:
    """Return whether this program runs in a notebook, such as Jupyter's or Colab's."""
    return Console().is_jupyter


def load_tqdm() -> Any:
    """Return the bar for this notebook; None where tqdm is not installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm


class NotebookProgress(QuietProgress):
    """Keeps a bar up to date; `tqdm` is its class."""

    def __init__(self, tally: ProgressTally, tqdm: Any) -> None:
        self.tally, self._tqdm = tally, tqdm
        self._last = 0.0

    def step(self, step: Step) -> None:
        """Count the step; refresh the bar if the last time is long enough ago."""
        self.tally.add_step(step)
        now = time.monotonic()
        if now - self._last >= EVERY:
            self._last = now
            self._show(now)

    def _show(self, now: float) -> None:
        self._bar.n = self.tally.done
        self._bar.set_description_str(self.tally.line(now))

    def __enter__(self) -> NotebookProgress:
        now = time.monotonic()
        self.tally.start(now)
        self._bar = self._tqdm(
            total=self.tally.items,
            initial=self.tally.done,
            desc=self.tally.line(now),
            bar_format="{percentage:3.0f}% {bar} {desc}",
            dynamic_ncols=True,
        )
        return self

    def __exit__(self, *raised: object) -> None:
        self._show(time.monotonic())
        self._bar.close()
