"""Train and measure `chorales`, the music model that ships: four voices in the manner of Bach.

    python -m recipes.chorales train --data quarter.json --out DIR
    python -m recipes.chorales evaluate --data quarter.json [--model DIR] --json
    python -m recipes.chorales piano-roll --out docs/images/chorale.png

quarter.json is from the JSB-Chorales-dataset (github.com/czhuang/JSB-Chorales-dataset), with the
split of Boulanger-Lewandowski et al. 2012. The same command with the same DIR resumes the training.
"""

from __future__ import annotations

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
    SAMPLING,
    TOKENS,
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
from ostinato.refine import Backtrack, Refine, Resample, Smc, Strategy
from ostinato.train import TextTask
from recipes.cli_args import positive, print_result, recipe_parser, run

STRATEGIES: dict[str, Strategy] = {
    "once": Resample(rounds=1),
    "resample": Resample(),
    "backtrack": Backtrack(patience=4),
    "smc": Smc(),
}


def train(data: Path, out: Path, settings: Sequence[str] = ()) -> Path:
    """Train with the defaults of `ostinato train music`; write float16 weights to OUT/shipped."""
    cli(["train", "music", str(data), "--out", str(out), *settings], standalone_mode=False)
    return ship(out, out / "shipped")


def ship(source: Path, target: Path) -> Path:
    """Copy a model's folder with its weights in float16, half the size."""
    target.mkdir(parents=True, exist_ok=True)
    weights = load_file(source / "model.safetensors")
    half = {name: value.half() for name, value in weights.items()}
    save_file(half, target / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, target / name)
    return target


@torch.no_grad()
def held_out_loss(model: LanguageModel, scores: Sequence[Score]) -> dict[str, float]:
    """Return nats per token and per quarter note of pieces, each in one key that can be sung.

    The key is given, the end token counts. Papers report nats per quarter note.
    """
    pieces = examples(scores, every_key=False)
    mean = TextTask(pieces, pieces).validate(model.llama(), 4096)["loss/valid"]
    tokens = sum(sum(piece.loss_mask) for piece in pieces)
    steps = sum(sum(piece.loss_mask) // 4 for piece in pieces)  # four voices, a token each
    return {"nats_token": mean, "nats_step": mean * tokens / steps, "pieces": len(pieces)}


def pass_rates(scores: Sequence[Score], checks: Sequence[Check]) -> dict[str, float]:
    """Return the share of pieces that pass each check, and `all` of them; 0 for no pieces."""
    judged = [judge_all(checks, score_text(score), {}) for score in scores if score.fits]
    rates = {
        check.name: sum(verdicts[n].passed for verdicts in judged) / max(1, len(judged))
        for n, check in enumerate(checks)
    }
    return rates | {"all": sum(all(v.passed for v in vs) for vs in judged) / max(1, len(judged))}


def compose(model: LanguageModel, strategy: Strategy, count: int, **columns: str) -> dict[str, Any]:
    """Write pieces in major and minor keys; return the accepted share, the cost and the scores."""
    keys = ("C major", "G major", "D minor", "A minor", "Bb major", "E minor")
    items = [(f"{n:03}", {"key": keys[n % len(keys)], **columns}) for n in range(count)]
    rows: list[Any] = Refine(
        model,
        items,
        prompt=prompt,
        checks=all_checks(),
        strategy=strategy,
        sampling=SAMPLING,
        max_new_tokens=TOKENS,
    ).run()
    scores = [score_of(str(row["reply"])) for row in rows]
    accepted = [score for score, row in zip(scores, rows, strict=True) if row["accepted"]]
    kept = sum(4 * len(score.chords) + 1 for score in accepted)
    computed = sum(row["tokens"]["computed"] for row in rows)
    return {
        "accepted": len(accepted) / count,
        "tokens_per_accepted": computed / max(1, kept),
        "scores": scores,
    }


def evaluate(data: Path, folder: str, count: int) -> dict[str, Any]:
    """Measure the loss on held-out pieces, Bach's pieces under the checks, and each strategy."""
    model, pieces = load_music(folder), read_pieces(data)
    result: dict[str, Any] = {
        f"{name}.{key}": value
        for name, part in (("valid", pieces.valid), ("test", pieces.test))
        for key, value in (held_out_loss(model, part) if part else {}).items()
    }
    bach = [score for part in (pieces.train, pieces.valid, pieces.test) for score in part]
    in_keys = [one for one in (in_range(score) for score in bach) if one is not None]
    if not in_keys:
        raise InputError(f"{data} must hold pieces that four voices can sing, got none.")
    result |= {f"bach.{name}": rate for name, rate in pass_rates(in_keys, all_checks()).items()}
    for name, strategy in STRATEGIES.items():
        made = compose(model, strategy, count)
        scores = made.pop("scores")
        result |= {f"{name}.{key}": value for key, value in made.items()}
        if name == "once":
            rates = pass_rates(scores, all_checks())
            result |= {f"once.{key}": value for key, value in rates.items()}
    return result


def write_piano_roll(out: Path) -> Path:
    """Write the piano roll of a piece that passes the checks."""
    if out.suffix.lower() != ".png":
        raise InputError(f"--out must end in .png, got {out}. Name such a file.")
    result = compose(load_music(), STRATEGIES["backtrack"], 1)
    return piano_roll(result["scores"][0], out)


def main() -> None:
    """Run the command that was typed."""
    parser, commands = recipe_parser("chorales", __doc__)
    training = commands.add_parser("train", help="train the model")
    evaluation = commands.add_parser("evaluate", help="measure a model")
    drawing = commands.add_parser("piano-roll", help="write the piano roll of a piece")
    evaluation.add_argument("--model", default="chorales", help="folder, or name of a shipped one")
    evaluation.add_argument("--count", type=positive, default=48, help="pieces per strategy")
    evaluation.add_argument("--json", action="store_true", help="print one JSON object")
    training.add_argument("--out", type=Path, required=True, help="output folder")
    drawing.add_argument("--out", type=Path, required=True, help="the .png to write")
    for command in (training, evaluation):
        command.add_argument("--data", type=Path, required=True, help="quarter.json")
    args = parser.parse_args()
    if args.command == "train":
        train(args.data, args.out)
    elif args.command == "piano-roll":
        write_piano_roll(args.out)
    else:
        print_result(evaluate(args.data, args.model, args.count), args.json, ".4g")


if __name__ == "__main__":
    run(main)
