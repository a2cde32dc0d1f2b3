"""A person at the keyboard, who watches a policy play and presses what they think of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ostinato.arguments import counted
from ostinato.cli.keyboard import Keyboard, Screen
from ostinato.cli.minigame.by_hand import style_here

if TYPE_CHECKING:
    from ostinato.reward.minigame import TeachWork

UP, DOWN = ("up", "+", "=", "k", "w"), ("down", "-", "_", "j", "s")
HELP = ("up or +: good", "down or -: bad", "p: pause   q: quit")
SHOWN = 3
"""Moves for which a press is shown."""


class Teacher:
    """Shows every move of a teaching, and hands on what the person presses."""

    def __init__(self, work: TeachWork, keyboard: Keyboard, screen: Screen) -> None:
        self._work, self._keyboard, self._screen = work, keyboard, screen
        self._last, self._shown_until = "", 0

    def teach(self) -> None:
        """Go on until the teaching ends or the person leaves."""
        loop = self._work.loop
        recorded = loop.recorded_as
        known = 0 if recorded is None else recorded.tick
        with loop:
            for step in loop:
                # Moves of an earlier session are computed again, with the presses that they had.
                if step.tick > known:
                    self._watch()

    def _watch(self) -> None:
        """Show the last move, and take keys until the next one."""
        self._show(self._last if self._work.loop.tick <= self._shown_until else "")
        for key in self._keyboard.until(time.monotonic() + 1 / self._work.config.speed):
            if key in ("p", " "):
                self._show("paused")
                key = self._keyboard.any_key()
            if key == "q":  # it ends before its next step
                self._work.loop.pause("You left.")
                return
            if key in UP or key in DOWN:
                self._press(1 if key in UP else -1)

    def _press(self, value: int) -> None:
        self._work.press(value)
        # Shown with the next move: then it is recorded.
        self._last = "good!" if value > 0 else "bad"
        self._shown_until = self._work.loop.tick + SHOWN

    def _show(self, below: str) -> None:
        from ostinato.reward.minigame import lines_of

        teaching = self._work.teaching
        presses = f"{counted(teaching.presses, 'presses')}  {below}"
        self._screen.show([*lines_of(teaching.game, style_here()), presses, self._taste(), *HELP])

    def _taste(self) -> str:
        """Return the strongest likings in a short line."""
        from ostinato.reward.minigame import likes

        found = likes(self._work.teaching.weights)[:2]
        return ", ".join(f"{'+' if value > 0 else '-'} {name}" for name, value in found)
