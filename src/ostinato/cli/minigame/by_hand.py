"""`ostinato play ENV --human`: a person steers the mini-game in the terminal."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from ostinato.arguments import counted, require
from ostinato.cli.keyboard import (
    Keyboard,
    Screen,
    full_screen,
    require_terminal,
    shows_colors,
    shows_unicode,
)
from ostinato.cli.run_loop import Exit

if TYPE_CHECKING:
    from ostinato.reward.minigame import River, TextStyle

KEYS = {"left": 0, "a": 0, "h": 0, "right": 2, "d": 2, "l": 2}
HELP = ("left/right or a/d: steer", "p: pause   q: quit")
SPEED = 4.0
"""Rows of the river per second at its beginning."""
FASTER = 1.75
"""How much faster the river is at its end than at its beginning."""


def play_by_hand(name: str, *, seed: int, speed: float = SPEED) -> Exit:
    """Let a person play one game at `speed` rows a second; say how it went at the end.

    Raises `InputError` for another game than ours, and where there is no terminal for it.
    """
    from ostinato.reward.minigame import COLUMNS, LINES, RIVER, River, planner, score_of

    require(name == RIVER, "The game of --human", RIVER, name)
    require_terminal(COLUMNS + 4, LINES + len(HELP) + 1, "Play in a terminal of your own.")
    game = River()
    game.reset(seed=seed)
    with full_screen() as (keyboard, screen):
        over = _play(game, keyboard, screen, speed)
    score = game.pearls + game.lilies
    how = "The game is over." if over else "You left the game."
    click.echo(
        f"{how} Score {score}: {game.pearls} pearls, {game.lilies} lilies, {game.hits} hits in "
        f"{counted(game.row, 'rows')}."
    )
    if over:
        best = score_of(planner, seed)
        click.echo(f"A planner that sees as far collects {best['pearls'] + best['lilies']:.0f}.")
    return Exit.DONE


def style_here() -> TextStyle:
    """Return how the standard output can show a game."""
    from ostinato.reward.minigame import TextStyle

    return TextStyle(unicode=shows_unicode(sys.stdout), colors=shows_colors(os.environ))


def _play(game: River, keyboard: Keyboard, screen: Screen, speed: float) -> bool:
    """Play to the end of the game; return whether that came before the person left."""
    from ostinato.reward.minigame import LENGTH, STRAIGHT, lines_of

    style, over = style_here(), False
    while not over:
        screen.show([*lines_of(game, style), "", *HELP])
        pace = speed * (1 + (FASTER - 1) * game.row / LENGTH)
        action = STRAIGHT
        for key in keyboard.until(time.monotonic() + 1 / pace):
            if key == "q":
                return False
            if key in ("p", " "):
                screen.show([*lines_of(game, style), "", "Paused. Any key: on", "q: quit"])
                if keyboard.any_key() == "q":
                    return False
            action = KEYS.get(key, action)
        _, _, lost, ended, _ = game.step(action)
        over = lost or ended
    screen.show([*lines_of(game, style), "", "Game over."])
    return True
