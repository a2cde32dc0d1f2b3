"""What a run is made of when it is built: its loop, and what is done at its end."""

from __future__ import annotations

from dataclasses import dataclass

from ostinato.loop.loop import Loop


@dataclass(kw_only=True)
class Work:
    """A run that is ready to be driven. Builders return a subclass where a run makes something."""

    loop: Loop

    def finish(self) -> None:
        """Write what the run makes, when its loop has ended: weights, images, replies.

        Safe to call again. By itself a run makes nothing but its results in the journal.
        """
