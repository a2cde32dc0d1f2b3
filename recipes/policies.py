"""Train and measure the shipped policy of CartPole-v1.

    python -m recipes.policies train --out DIR [OPTION of `ostinato train policy` …]
    python -m recipes.policies evaluate [--policy DIR] [--episodes 100] --json
    python -m recipes.policies curve --out DIR --png FILE

`train` is `ostinato train policy CartPole-v1` with its recipe; the policy is in DIR/policy, the run
in DIR/journal.db. `evaluate` plays episodes on seeds never trained on. `curve` draws the returns of
a training's episodes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ostinato.cli.main import cli
from ostinato.journal import Journal
from ostinato.loop import numbers
from ostinato.media import Series, save_curves
from ostinato.reward.games import load_policy, make_environment, play
from recipes.cli_args import positive, print_result, recipe_parser, run

GAME, RUN = "CartPole-v1", "cartpole"
OVER = 100


def train(out: Path, more: list[str]) -> None:
    """Train by the recipe, as the command line does."""
    where = ["--out", str(out / "policy"), "--journal", str(out / "journal.db"), "--run", RUN]
    cli(["train", "policy", GAME, *where, *more], standalone_mode=False)


def evaluate(name: str, episodes: int) -> dict[str, Any]:
    """Return the returns of a policy's likeliest actions, on seeds it never trained on."""
    policy = load_policy(name)
    found = play(policy, partial(make_environment, policy.shape.game), episodes, use="measure")
    returns = sorted(episode.total for episode in found)
    return {
        "policy": name,
        "parameters": sum(p.numel() for p in policy.parameters()),
        "episodes": episodes,
        "mean_return": sum(returns) / episodes,
        "lowest_return": returns[0],
    }


def episodes_of(journal: Path) -> list[tuple[float, float]]:
    """Return (steps so far, return) of each episode of a recorded training."""
    with Journal(journal) as opened:
        (found,) = opened.runs()
        return [
            (numbers(step.report["steps/total"])[0], value)
            for step in found.steps()
            for value in numbers(step.report["return"])
        ]


def draw_curve(points: list[tuple[float, float]], path: Path) -> None:
    """Draw the return of each episode, and their mean over the last 100."""
    path.parent.mkdir(parents=True, exist_ok=True)
    episodes = Series("return", points, OVER)
    save_curves(path, [episodes], x_name="environment steps", size=(640, 320))


def main() -> None:
    """Run the command that was typed."""
    parser, commands = recipe_parser("policies", __doc__)
    training = commands.add_parser("train", help="train the policy")
    evaluation = commands.add_parser("evaluate", help="measure a policy")
    evaluation.add_argument("--policy", default=RUN, help="folder or name of the policy")
    evaluation.add_argument("--episodes", type=positive, default=100, help="episodes to play")
    evaluation.add_argument("--json", action="store_true", help="print one JSON object")
    curve = commands.add_parser("curve", help="draw the returns of a training")
    curve.add_argument("--png", type=Path, required=True, help="picture to write")
    for command in (training, curve):
        command.add_argument("--out", type=Path, required=True, help="folder of the training")
    args, more = parser.parse_known_args()
    if more and args.command != "train":
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if args.command == "train":
        train(args.out, more)
    elif args.command == "evaluate":
        print_result(evaluate(args.policy, args.episodes), args.json, ".4g")
    else:
        draw_curve(episodes_of(args.out / "journal.db"), args.png)


if __name__ == "__main__":
    run(main)
