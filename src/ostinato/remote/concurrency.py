"""How many requests run at once: more while all goes well, half when the server is overloaded.

Additive increase, multiplicative decrease (Chiu and Jain 1989), begun as TCP's slow start is. Used
in one asyncio loop.
"""

from __future__ import annotations

import asyncio
import time

START = 8.0


class ConcurrencyLimit:
    """A limit of `most` at the highest, which adapts; and a pause that all requests keep."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = min(float(most), START)
        self.active = 0
        self._cut_at: float | None = None
        self._paused_until = 0.0
        self._changed = asyncio.Condition()

    async def enter(self) -> float:
        """Wait for a place; return when it was had, by the monotonic clock."""
        while True:
            await asyncio.sleep(max(0.0, self._paused_until - time.monotonic()))
            async with self._changed:
                if self.active >= int(self.allowed):
                    await self._changed.wait()
                elif self._paused_until <= time.monotonic():
                    self.active += 1
                    return time.monotonic()

    async def leave(self) -> None:
        """Give the place back."""
        async with self._changed:
            self.active -= 1
            self._changed.notify_all()

    async def went_well(self) -> None:
        """Allow more: one more for each answer until the first overload, then one a round."""
        async with self._changed:
            step = 1.0 if self._cut_at is None else 1.0 / self.allowed
            self.allowed = min(float(self.most), self.allowed + step)
            self._changed.notify_all()

    def overloaded(self, began: float, pause: float = 0.0) -> None:
        """Halve it, once for all requests that began before; and pause all for some seconds."""
        now = time.monotonic()
        self._paused_until = max(self._paused_until, now + pause)
        if self._cut_at is None or began > self._cut_at:
            self.allowed = max(1.0, self.allowed / 2)
            self._cut_at = now
