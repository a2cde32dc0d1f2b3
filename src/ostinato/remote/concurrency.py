"""How many requests run at once: more while all goes well, half when the server is overloaded.

Additive increase, multiplicative decrease (Chiu and Jain 1989) after a slow start as in TCP. Used
within one asyncio loop.
"""

from __future__ import annotations

import asyncio
import time

START = 8.0  # answers at once before the first has shown what the server can take


class ConcurrencyLimit:
    """An adaptive limit between 1 and `most`, and a pause that all requests keep."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = min(float(most), START)
        self.active = 0
        self._cut_at: float | None = None
        self._paused_until = 0.0
        self._changed = asyncio.Condition()

    async def enter(self) -> float:
        """Wait until another request may run; return the monotonic time at which it may."""
        while True:
            await asyncio.sleep(max(0.0, self._paused_until - time.monotonic()))
            async with self._changed:
                if self.active >= int(self.allowed):
                    await self._changed.wait()
                elif self._paused_until <= time.monotonic():
                    self.active += 1
                    return time.monotonic()

    async def leave(self) -> None:
        """Let another request run."""
        async with self._changed:
            self.active -= 1
            self._changed.notify_all()

    async def succeeded(self) -> None:
        """Raise the limit: by one for each answer until the first overload, then by one a round."""
        async with self._changed:
            # `allowed` answers make a round, so each of them adds its share of one.
            step = 1.0 if self._cut_at is None else 1.0 / self.allowed
            self.allowed = min(float(self.most), self.allowed + step)
            self._changed.notify_all()

    def overloaded(self, started: float, pause: float = 0.0) -> None:
        """Halve the limit and pause all requests for some seconds.

        `started` is what `enter` returned to the request that met the overload. All that started
        before the last cut met the same overload: they halve the limit once, not once each.
        """
        now = time.monotonic()
        self._paused_until = max(self._paused_until, now + pause)
        if self._cut_at is None or started > self._cut_at:
            self.allowed = max(1.0, self.allowed / 2)
            self._cut_at = now
