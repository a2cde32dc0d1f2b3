"""Train and measure `chorales`, the music model that ships: four voices in the manner of Bach.

    python -m recipes.chorales train --data quarter.json --out DIR
    python -m recipes.chorales evaluate --data quarter.json [--model DIR] --json
    python -m recipes.chorales picture --out docs/images/chorale.png

quarter.json is that of the JSB-Chorales-dataset (github.com/czhuang/JSB-Chorales-dataset), with the
parts of Boulanger-Lewandowski et al. 2012. Run the training again with the same DIR and it goes on
where it was.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ostinato.checks import judge_all
from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.loop import Check
from ostinato.models import LanguageModel
from ostinato.music import (
    Score,
    all_checks,
    examples,
    in_range,
    load_music,
    piano_roll,
    prompt,
    read_pieces,
    score_of,
    score_text,
)
from ostinato.music.writing import SAMPLING, TOKENS
from ostinato.refine import Backtrack, Refine, Resample, Smc, Strategy
from ostinato.train import TextTask
from recipes.cli_args import positive, run

STRATEGIES: dict[str, Strategy] = {
    "once": Resample(rounds=1),
    "resample": Resample(),
    "backtrack": Backtrack(patience=4),
    "smc": Smc(),
}


def train(data: Path, out: Path, settings: Sequence[str] = ()) -> Path:
    """Train with the command line's own recipe; write the weights in float16 to OUT/shipped."""
    cli(["train", "music", str(data), "--out", str(out), *settings], standalone_mode=False)
    return ship(out, out / "shipped")


def ship(source: Path, target: Path) -> Path:
    """Write a model's folder again with its weights in float16."""
    target.mkdir(parents=True, exist_ok=True)
    weights = load_file(source / "model.safetensors")
    half = {name: value.half() for name, value in weights.items()}
    save_file(half, target / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, target / name)
    return target


@torch.no_grad()
def held_out(model: LanguageModel, scores: Sequence[Score]) -> dict[str, float]:
    """Return nats a token and a quarter note of pieces, each in the middle of its keys.

    The key is given; the end counts.
    """
    some = examples(scores, every_key=False)
    mean = TextTask(some, some).validate(model.llama(), 4096)["loss/valid"]
    tokens = sum(sum(one.loss_mask) for one in some)
    steps = sum(sum(one.loss_mask) // 4 for one in some)
    return {"nats_token": mean, "nats_step": mean * tokens / steps, "pieces": len(some)}


def shares(scores: Sequence[Score], checks: Sequence[Check]) -> dict[str, float]:
    """Return the share of pieces that pass each check, and `all` of them; 0 where none fits."""
    judged = [judge_all(checks, score_text(score), {}) for score in scores if score.fits]
    told = {
        check.name: sum(verdicts[n].passed for verdicts in judged) / max(1, len(judged))
        for n, check in enumerate(checks)
    }
    return told | {"all": sum(all(v.passed for v in vs) for vs in judged) / max(1, len(judged))}


def composed(model: LanguageModel, strategy: Strategy, count: int, **given: str) -> dict[str, Any]:
    """Write pieces in major and minor keys; return what was accepted and what it took."""
    keys = ("C major", "G major", "D minor", "A minor", "Bb major", "E minor")
    items = [(f"{n:03}", {"key": keys[n % len(keys)], **given}) for n in range(count)]
    rows: list[Any] = Refine(
        model,
        items,
        prompt=prompt,
        checks=all_checks(),
        strategy=strategy,
        sampling=SAMPLING,
        max_new_tokens=TOKENS,
    ).run()
    scores = [score_of(str(row["output"])) for row in rows]
    accepted = [score for score, row in zip(scores, rows, strict=True) if row["accepted"]]
    kept = sum(4 * len(score.chords) + 1 for score in accepted)
    computed = sum(row["spent"]["computed"] for row in rows)
    return {
        "accepted": len(accepted) / count,
        "tokens_per_accepted": computed / max(1, kept),
        "scores": scores,
    }


def evaluate(data: Path, folder: str, count: int) -> dict[str, Any]:
    """Measure held-out pieces, Bach's own under the checks, and each strategy."""
    model, pieces = load_music(folder), read_pieces(data)
    told: dict[str, Any] = {
        f"{name}.{key}": value
        for name, part in (("valid", pieces.valid), ("test", pieces.test))
        for key, value in (held_out(model, part) if part else {}).items()
    }
    bach = [score for part in (pieces.train, pieces.valid, pieces.test) for score in part]
    in_keys = [one for one in (in_range(score) for score in bach) if one is not None]
    if not in_keys:
        raise InputError(f"{data} must hold pieces that four voices can sing, got none.")
    told |= {f"bach.{name}": share for name, share in shares(in_keys, all_checks()).items()}
    for name, strategy in STRATEGIES.items():
        result = composed(model, strategy, count)
        scores = result.pop("scores")
        told |= {f"{name}.{key}": value for key, value in result.items()}
        if name == "once":
            told |= {f"once.{key}": value for key, value in shares(scores, all_checks()).items()}
    return told


def picture(out: Path) -> Path:
    """Write the piano roll of a piece that passes its checks."""
    if out.suffix.lower() != ".png":
        raise InputError(f"--out must end in .png, got {out}. Name such a file.")
    result = composed(load_music(), STRATEGIES["backtrack"], 1)
    return piano_roll(result["scores"][0], out)


def main() -> None:
    """Read the arguments and do what they ask."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.chorales",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train the model")
    two = commands.add_parser("evaluate", help="measure a model")
    three = commands.add_parser("picture", help="write a piano roll")
    two.add_argument("--model", default="chorales", help="its folder, or a shipped one's name")
    two.add_argument("--count", type=positive, default=48, help="pieces to write by each strategy")
    two.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (one, three):
        command.add_argument("--out", type=Path, required=True, help="what to write")
    for command in (one, two):
        command.add_argument("--data", type=Path, required=True, help="quarter.json")
    given = parser.parse_args()
    if given.command == "train":
        train(given.data, given.out)
    elif given.command == "picture":
        picture(given.out)
    else:
        told = evaluate(given.data, given.model, given.count)
        print(
            json.dumps(told) if given.json else "\n".join(f"{k} {v:.4g}" for k, v in told.items())
        )


if __name__ == "__main__":
    run(main)
