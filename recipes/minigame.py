"""Train and measure `river`, the policy of the mini-game that ships, and how it can be taught.

    python -m recipes.minigame train --out DIR
    python -m recipes.minigame evaluate [--policy DIR] [--games N] --json
    python -m recipes.minigame teach [--policy DIR] [--rule RULE …] [--games N] --json
    python -m recipes.minigame film --out docs/images/teach.gif

The same `train` with the same DIR resumes the training.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ostinato.cli.main import cli
from ostinato.loop import fold_in
from ostinato.reward.minigame import (
    RIVER,
    TASTES,
    Logits,
    Player,
    River,
    Teaching,
    Weights,
    greedy,
    load_logits,
    measured,
    moves_of,
    no_policy,
    planner,
    random_player,
    score_of,
    simulated_press,
    taste_of,
    untaught,
)
from recipes.cli_args import positive, print_result, recipe_parser, run

PRESSES = (20, 40)
FRAMES, SKIPPED = 36, 24
"""Frames of a film, and the moves before them: the first rows of a river have no rocks."""


def train(out: Path) -> Path:
    """Train with `ostinato train policy`; copy what ships to OUT/shipped."""
    cli(["train", "policy", RIVER, "--out", str(out)], standalone_mode=False)
    target = out / "shipped"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(out / name, target / name)
    return target


def player_of(policy: Logits) -> Player:
    """Return the player that takes a policy's likeliest moves."""
    return lambda game: int(policy(game.symbols()).argmax())


def evaluate(policy: str, games: int) -> dict[str, Any]:
    """Return the mean return, hits and rows of a policy and of the players it is compared with."""
    players = {
        "random": random_player(),
        "greedy": greedy,
        "planner": planner,
        "policy": player_of(load_logits(policy)),
    }
    result: dict[str, Any] = {}
    for name, player in players.items():
        played = [score_of(player, fold_in(1, "evaluated", n) >> 32) for n in range(games)]
        for key in ("return", "hits", "rows"):
            result[f"{name}.{key}"] = float(np.mean([each[key] for each in played]))
        spread = float(np.std([each["return"] for each in played]))
        result[f"{name}.standard_error"] = spread / games**0.5
    return result


def taught(policy: Logits, rule: str, presses: Sequence[int]) -> Iterator[Teaching]:
    """Let a simulated teacher teach; yield the teaching after each number of presses."""
    teaching, taste = Teaching(policy), taste_of(rule)
    for number in presses:
        while teaching.presses < number:
            teaching.step()
            if value := simulated_press(teaching, taste):
                teaching.change({"press": value})
        yield teaching


def teach(policy: str, games: int, rules: Sequence[str] = tuple(TASTES)) -> dict[str, Any]:
    """Return, by rule and presses, how much the policy follows, and what it still scores."""
    logits = no_policy if policy == "none" else load_logits(policy)
    result: dict[str, Any] = {}
    for rule in rules:
        _note(result, f"{rule}.0", logits, untaught(), rule, games)
        for number, teaching in zip(PRESSES, taught(logits, rule, PRESSES), strict=True):
            _note(result, f"{rule}.{number}", logits, teaching.weights, rule, games)
            result[f"{rule}.{number}.moves"] = teaching.steps
    return result


def _note(
    result: dict[str, Any], name: str, policy: Logits, weights: Weights, rule: str, games: int
) -> None:
    strength = Teaching(policy).strength
    found = measured(policy, weights, taste_of(rule), strength=strength, games=games)
    for key in ("style", "score", "hits"):
        result[f"{name}.{key}"] = getattr(found, key)


def film(policy: str, rule: str, presses: int, out: Path) -> Path:
    """Write a film of the same river, untaught on the left and taught on the right."""
    logits = load_logits(policy)
    (teaching,) = taught(logits, rule, [presses])
    sides = [
        list(frames(logits, weights, teaching.strength))
        for weights in (untaught(), teaching.weights)
    ]
    gap = np.full((sides[0][0].shape[0], 8, 3), 255, np.uint8)
    pages = [
        Image.fromarray(np.concatenate([left, gap, right], 1)).quantize(64)
        for left, right in zip(*sides, strict=True)
    ]
    pages[0].save(out, save_all=True, append_images=pages[1:], duration=160, loop=0)
    return out


def frames(policy: Logits, weights: Weights, strength: float) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a game that is played by the likeliest moves."""
    game = River(render_mode="rgb_array")
    game.reset(seed=7)
    for number in range(SKIPPED + FRAMES):
        logits = policy(game.symbols()) + strength * (moves_of(game) @ weights)
        game.step(int(logits.argmax()))
        if number >= SKIPPED:
            picture = game.render()
            assert picture is not None
            yield picture


def main() -> None:
    """Run the command that was typed."""
    parser, commands = recipe_parser("minigame", __doc__)
    training = commands.add_parser("train", help="train the policy")
    training.add_argument("--out", type=Path, required=True, help="output folder")
    evaluation = commands.add_parser("evaluate", help="compare a policy with other players")
    teaching = commands.add_parser("teach", help="measure what simulated teachers teach it")
    filming = commands.add_parser("film", help="write a film of a taught policy")
    for command in (evaluation, teaching):
        command.add_argument("--games", type=positive, default=100, help="games of each")
        command.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (evaluation, teaching, filming):
        command.add_argument("--policy", default="river", help="folder, or a shipped policy")
    teaching.add_argument("--rule", nargs="+", default=list(TASTES), choices=list(TASTES))
    filming.add_argument("--out", type=Path, required=True, help="the .gif to write")
    filming.add_argument("--rule", default="lilies", choices=list(TASTES), help="who teaches")
    filming.add_argument("--presses", type=positive, default=40, help="presses before the film")
    args = parser.parse_args()
    if args.command == "train":
        train(args.out)
    elif args.command == "film":
        film(args.policy, args.rule, args.presses, args.out)
    elif args.command == "evaluate":
        print_result(evaluate(args.policy, args.games), args.json, ".3g")
    else:
        print_result(teach(args.policy, args.games, args.rule), args.json, ".3g")


if __name__ == "__main__":
    run(main)
