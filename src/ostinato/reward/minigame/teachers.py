"""Simulated teachers: rules of taste that press as a person would, so that teaching is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError
from ostinato.loop import fold_in, uniform
from ostinato.reward.minigame.environment import River
from ostinato.reward.minigame.features import Features, moves_of
from ostinato.reward.minigame.teaching import Logits, Teaching, Weights, drawn

GAP = 4
"""Steps between two presses, at least."""
ATTENTION = 0.35
"""How often a teacher presses where it could."""
MISTAKES = 0.05
"""The share of presses that are the wrong ones."""


@dataclass(frozen=True, kw_only=True)
class Taste:
    """What a simulated teacher wants: `judge` returns 1, -1 or 0 (no opinion) about a move.

    `shown` names what is measured, of all moves of some games, as a share or a mean.
    """

    judge: Callable[[Features], int]
    shown: str
    measure: Callable[[Sequence[Features]], float]


def _sign(good: bool, bad: bool) -> int:
    return int(good) - int(bad)


def _share_of_lilies(moves: Sequence[Features]) -> float:
    lilies, pearls = sum(each.lily for each in moves), sum(each.pearl for each in moves)
    return lilies / max(1.0, lilies + pearls)


def _share(holds: Callable[[Features], bool]) -> Callable[[Sequence[Features]], float]:
    return lambda moves: sum(map(holds, moves)) / max(1, len(moves))


TASTES: Mapping[str, Taste] = {
    "lilies": Taste(
        judge=lambda move: _sign(move.lily > 0, move.pearl > 0),
        shown="lilies among what it collects",
        measure=_share_of_lilies,
    ),
    "pearls": Taste(
        judge=lambda move: _sign(move.pearl > 0, move.lily > 0),
        shown="pearls among what it collects",
        measure=lambda moves: 1 - _share_of_lilies(moves),
    ),
    "left": Taste(
        judge=lambda move: _sign(move.right < -0.15, move.right > 0.15),
        shown="time left of the middle",
        measure=_share(lambda move: move.right < 0),
    ),
    "right": Taste(
        judge=lambda move: _sign(move.right > 0.15, move.right < -0.15),
        shown="time right of the middle",
        measure=_share(lambda move: move.right > 0),
    ),
    "calm": Taste(
        judge=lambda move: _sign(move.turn == 0, move.turn == 1),
        shown="moves straight on",
        measure=_share(lambda move: move.turn == 0),
    ),
    "score": Taste(
        judge=lambda move: _sign(move.pearl + move.lily > 0, move.hit > 0),
        shown="pearls and lilies a move",
        measure=_share(lambda move: move.pearl + move.lily > 0),
    ),
}
"""By name: what simulated teachers want. `score` is the game's own reward."""


def taste_of(name: str) -> Taste:
    """Return a taste by its name. Raises `InputError` for an unknown one."""
    if name not in TASTES:
        raise InputError(
            f"auto must be one of {', '.join(TASTES)}, got {name!r}.{did_you_mean(name, TASTES)}",
        )
    return TASTES[name]


def simulated_press(teaching: Teaching, taste: Taste) -> int:
    """Return what a simulated teacher presses now: 1, -1, or 0 for nothing.

    It reacts to a move one to three steps ago, at times not at all, and errs now and then: all by
    the seed and the step of the teaching, so that a resumed run gets the same presses.
    """
    seed, step, recent = fold_in(teaching.seed, "teacher"), teaching.steps, teaching.recent
    delay = 1 + int(3 * uniform(seed, "delay", 0, 0, step))
    if teaching.since_press < GAP or len(recent) <= delay:
        return 0
    if uniform(seed, "attention", 0, 0, step) >= ATTENTION:
        return 0
    wrong = uniform(seed, "mistake", 0, 0, step) < MISTAKES
    return taste.judge(recent[delay]) * (-1 if wrong else 1)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How a taught policy plays some games: the mean return and hits, and the taste's measure."""

    score: float
    hits: float
    style: float


def measured(
    policy: Logits, weights: Weights, taste: Taste, *, strength: float, games: int, seed: int = 0
) -> Measured:
    """Play games with seeds that teaching never uses, and measure how."""
    made: list[Features] = []
    score = hits = 0.0
    for number in range(games):
        game, info, over = River(), {}, False
        game.reset(seed=fold_in(seed, "measured", number))
        while not over:
            moves = moves_of(game)
            logits: NDArray[np.float64] = policy(game.symbols()) + strength * (moves @ weights)
            draw = uniform(seed, f"measured/{number}", 0, 0, game.row)
            action = drawn(logits, draw)
            made.append(Features(*moves[action].tolist()))
            _, reward, lost, ended, info = _stepped(game, action)
            score, over = score + float(reward), lost or ended
        hits += info["hits"]
    return Measured(score=score / games, hits=hits / games, style=taste.measure(made))


def _stepped(game: River, action: int) -> Any:
    return game.step(action)
