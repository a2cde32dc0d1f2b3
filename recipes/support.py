"""Train and measure `support`, the shipped adapter for smollm2: replies of a booking assistant.

    python -m recipes.support train --data FOLDER --out DIR
    python -m recipes.support train --data FOLDER --out NEXT --start DIR --skip 1100 --answers
    python -m recipes.support average DIR NEXT --out MEAN
    python -m recipes.support evaluate --data FOLDER --adapter DIR --json

FOLDER holds `train.jsonl` and `dev.jsonl` in the layout that `recipes/sgd.py` describes. Run
`ostinato models get smollm2` first. Training takes about 75 minutes on two cores; the same command
with the same DIR resumes it. The second line tunes the adapter further, on dialogues that it has
not seen. The third averages the weights of both.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ostinato.errors import InputError
from ostinato.journal import Journal
from ostinato.loop import CheckpointSchedule, Loop, Step, Steps
from ostinato.models import (
    LanguageModel,
    add_lora,
    compute_dtype,
    load_adapter,
    load_model,
    save_adapter,
)
from ostinato.train import Example, TextTask, Training, TrainingConfig, conversation
from recipes.cli_args import positive, recipe_parser, run
from recipes.measures import bits_per_character, greedy_replies, sample_turns, score_replies
from recipes.sgd import dialogue_messages, read_dialogues

BASE = "smollm2"
RANK, ALPHA = 16, 32.0
WEIGHTS, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
CONTEXT = 640  # tokens; longer dialogues are cut
DIALOGUES = 3226  # of the 12,174, shuffled; the steps see about a thousand of them, each once
CONFIG = TrainingConfig(steps=464, batch_tokens=1400, lr=2e-3)


def load_examples(
    model: LanguageModel, path: Path, count: int, seed: int, skip: int = 0
) -> list[Example]:
    """Return `count` dialogues of a file, shuffled by `seed`, as examples."""
    dialogues = list(read_dialogues(path))
    random.Random(seed).shuffle(dialogues)
    chats = (dialogue_messages(dialogue) for dialogue in dialogues[skip : skip + count])
    cut = (conversation(model.tokenizer, chat, CONTEXT) for chat in chats)
    return [example for example in cut if any(example.loss_mask)]


def train(
    data: Path,
    out: Path,
    config: TrainingConfig,
    *,
    start: str | None = None,
    skip: int = 0,
    dialogues: int = DIALOGUES,
    answers: bool = False,
) -> None:
    """Train with checkpoints; write the weights of the best validation to `out`.

    A loop of its own, not `ostinato train`: that has no option for `answers`.
    """
    model = load_model(BASE, dtype=compute_dtype())
    train_set = load_examples(model, data / "train.jsonl", dialogues, seed=0, skip=skip)
    valid_set = load_examples(model, data / "dev.jsonl", 40, seed=1)
    if start is None:
        add_lora(model.llama(), RANK, ALPHA)
    else:
        load_adapter(model.llama(), start)
    config = replace(config, valid_every=max(1, config.steps // 4))
    task = TextTask(train_set, valid_set, completion_only=answers)
    training = Training(model.llama(), task, config)
    out.mkdir(parents=True, exist_ok=True)
    with Journal(out / "journal.db") as journal:
        loop = Loop(
            training,
            until=Steps(config.steps),
            run="support",
            journal=journal,
            checkpoint=CheckpointSchedule(steps=50),  # a step takes 2 to 6 s: 5 minutes at most
        )
        print(loop.run(_show).sentence)
    training.load_weights(training.best.weights)
    save_adapter(model.llama(), out, base=BASE, dtype=torch.bfloat16)
    print(f"Wrote {out}.")


def average(folders: Sequence[Path], out: Path) -> None:
    """Write the average of adapters of which each was tuned from another.

    Each has ended at a learning rate near zero, at the edge of a region of low loss. Their average
    lies nearer its center (stochastic weight averaging: Izmailov et al. 2018, section 3).
    """
    loaded = [load_file(folder / WEIGHTS) for folder in folders]
    for folder, weights in zip(folders, loaded, strict=True):
        if shapes(weights) != shapes(loaded[0]):
            raise InputError(
                f"{folder} must hold weights of the same names and shapes as {folders[0]}, got "
                "others. Give adapters that were tuned from one another."
            )
    mean = {
        name: torch.stack([weights[name].float() for weights in loaded]).mean(0).to(like.dtype)
        for name, like in loaded[0].items()
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(mean, out / WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(folders[0] / CONFIG_FILE, out / CONFIG_FILE)
    print(f"Wrote {out}.")


def shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shapes by name; a mismatch of rank or of layers shows in both."""
    return {name: tensor.shape for name, tensor in weights.items()}


def _show(step: Step) -> None:
    report = step.report
    if step.tick % 10 == 0 or "loss/valid" in report:
        valid = f" valid {report['loss/valid']:.4f}" if "loss/valid" in report else ""
        print(f"step {step.tick} loss {report['loss/train']:.4f}{valid}", flush=True)


def evaluate(
    data: Path, adapter: str | None, dialogues: int, turns: int, replies_to: Path | None
) -> dict[str, Any]:
    """Measure the base model, or the base with an adapter, on dialogues of `dev.jsonl`."""
    # In float32, so that machines with another compute type measure the same.
    model = load_model(BASE, adapter=adapter, dtype=torch.float32)
    held_out = list(read_dialogues(data / "dev.jsonl"))
    result: dict[str, Any] = {"adapter": adapter or "", "dialogues": dialogues}
    if dialogues:
        chosen = random.Random(1).sample(held_out, dialogues)
        result["bits_per_character"] = bits_per_character(model, chosen)
    if turns:
        sampled = sample_turns(held_out, turns)
        replies = greedy_replies(model, sampled)
        result |= score_replies(sampled, replies).to_json()
        # The same measure on people's replies shows how much of it the record does not explain.
        references = score_replies(sampled, [turn.reference for turn in sampled])
        result["reference.made_up"] = references.to_json()["made_up"]
        if replies_to is not None:
            pairs = zip(sampled, replies, strict=True)
            rows = [json.dumps({**asdict(turn), "reply": reply}) for turn, reply in pairs]
            replies_to.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return result


def _print(result: dict[str, Any]) -> None:
    print(f"adapter: {result['adapter'] or 'none (the base model)'}")
    if "bits_per_character" in result:
        bits, count = result["bits_per_character"], result["dialogues"]
        print(f"{bits:.3f} bits per character of the assistant's turns, {count} dialogues")
    if "said" in result:
        print(f"{result['turns']} greedy replies:")
        print(f"  {result['said']:.1%} of {result['values']} values of the references are stated")
        print(f"  {result['made_up']:.1%} of {result['claims']} figures and names made up")
        print(f"  ({result['reference.made_up']:.1%} of those in the references)")


def _parser() -> argparse.ArgumentParser:
    parser, commands = recipe_parser("support", __doc__)
    training = commands.add_parser("train", help="train the adapter")
    training.add_argument("--out", type=Path, required=True, help="output folder")
    training.add_argument("--steps", type=positive, default=CONFIG.steps, help="training steps")
    training.add_argument("--lr", type=float, default=CONFIG.lr, help="peak learning rate")
    training.add_argument("--start", metavar="DIR", help="adapter to tune further")
    training.add_argument("--skip", type=int, default=0, help="dialogues to skip: those seen")
    training.add_argument(
        "--dialogues", type=positive, default=DIALOGUES, help="dialogues to train on"
    )
    training.add_argument(
        "--answers", action="store_true", help="compute gradients of the answers only: faster"
    )
    averaging = commands.add_parser("average", help="average the weights of adapters")
    averaging.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="adapter's folder")
    averaging.add_argument("--out", type=Path, required=True, help="output folder")
    evaluation = commands.add_parser("evaluate", help="measure an adapter, or the base model")
    evaluation.add_argument("--adapter", help="name or folder; without it the base model")
    evaluation.add_argument("--dialogues", type=int, default=150, help="for bits per character")
    evaluation.add_argument("--turns", type=int, default=150, help="for greedy replies")
    evaluation.add_argument("--replies", type=Path, help="write the replies there, as JSON lines")
    evaluation.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (training, evaluation):
        command.add_argument(
            "--data", type=Path, required=True, help="folder of train.jsonl and dev.jsonl"
        )
    return parser


def main() -> None:
    """Run the command that was typed."""
    args = _parser().parse_args()
    if args.command == "average":
        average(args.folders, args.out)
    elif args.command == "train":
        train(
            args.data,
            args.out,
            replace(CONFIG, steps=args.steps, lr=args.lr),
            start=args.start,
            skip=args.skip,
            dialogues=args.dialogues,
            answers=args.answers,
        )
    else:
        result = evaluate(args.data, args.adapter, args.dialogues, args.turns, args.replies)
        print(json.dumps(result)) if args.json else _print(result)


if __name__ == "__main__":
    run(main)
