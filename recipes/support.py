"""Train and measure `support`, the adapter that ships for smollm2: replies of a booking desk.

    python -m recipes.support train --data FOLDER --out DIR
    python -m recipes.support train --data FOLDER --out NEXT --start DIR --skip 1100 --answers
    python -m recipes.support average DIR NEXT --out MEAN
    python -m recipes.support evaluate --data FOLDER --adapter DIR --json

FOLDER holds `train.jsonl` and `dev.jsonl` in the layout that `recipes/sgd.py` describes; run
`ostinato models get smollm2` first. Training takes about 75 minutes on two cores; run it again
with the same DIR and it goes on where it was. The second line tunes on, on dialogues not yet seen,
the third takes the mean of the weights of both.
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
from recipes.measures import bits_per_character, facing, greedy_replies, sample_turns
from recipes.sgd import dialogue_messages, read_dialogues

BASE = "smollm2"
RANK, ALPHA = 16, 32.0
WEIGHTS, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
CONTEXT = 640  # tokens; what is longer is cut
DIALOGUES = 3226  # of the 12,174, after a shuffle; the steps see about a thousand, each once
CONFIG = TrainingConfig(steps=464, batch_tokens=1400, lr=2e-3)


def load_examples(
    model: LanguageModel, path: Path, count: int, seed: int, skip: int = 0
) -> list[Example]:
    """Return `count` dialogues of a file, shuffled from `seed`, as examples."""
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
    """Train, with checkpoints; write the weights that validated best to `out`."""
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
            checkpoint=CheckpointSchedule(steps=50),
        )
        print(loop.run(_show).sentence)
    training.load_weights(training.best)
    save_adapter(model.llama(), out, base=BASE, dtype=torch.bfloat16)
    print(f"Wrote {out}.")


def average(folders: Sequence[Path], out: Path) -> None:
    """Write the mean of the weights of adapters that were tuned on from one another.

    Each ends where its rate has fallen to nothing: the mean of such ends lies nearer the middle of
    what is as good (stochastic weight averaging: Izmailov et al. 2018, section 3).
    """
    found = [load_file(folder / WEIGHTS) for folder in folders]
    for folder, weights in zip(folders, found, strict=True):
        if shapes(weights) != shapes(found[0]):
            raise InputError(
                f"{folder} must hold weights of the same names and shapes as {folders[0]}, got "
                "others. Give adapters that were tuned on from one another."
            )
    mean = {
        name: torch.stack([weights[name].float() for weights in found]).mean(0).to(like.dtype)
        for name, like in found[0].items()
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(mean, out / WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(folders[0] / CONFIG_FILE, out / CONFIG_FILE)
    print(f"Wrote {out}.")


def shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of each tensor."""
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
    model = load_model(BASE, adapter=adapter, dtype=torch.float32)
    held_out = list(read_dialogues(data / "dev.jsonl"))
    result: dict[str, Any] = {"adapter": adapter or "", "dialogues": dialogues}
    if dialogues:
        chosen = random.Random(1).sample(held_out, dialogues)
        result["bits_per_character"] = bits_per_character(model, chosen)
    if turns:
        asked = sample_turns(held_out, turns)
        replies = greedy_replies(model, asked)
        result |= facing(asked, replies).to_json()
        references = facing(asked, [turn.reference for turn in asked])
        result["reference.made_up"] = references.to_json()["made_up"]
        if replies_to is not None:
            pairs = zip(asked, replies, strict=True)
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
        print(f"  {result['said']:.1%} of {result['values']} values that the references say")
        print(f"  {result['made_up']:.1%} of {result['claims']} figures and names made up")
        print(f"  ({result['reference.made_up']:.1%} of those in the references)")


def main() -> None:
    """Read the arguments and do what they ask."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.support",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train the adapter")
    one.add_argument("--out", type=Path, required=True, help="the folder to write")
    one.add_argument("--steps", type=int, default=CONFIG.steps)
    one.add_argument("--lr", type=float, default=CONFIG.lr, help="the rate at its height")
    one.add_argument("--start", metavar="DIR", help="the adapter to tune on; a new one without")
    one.add_argument("--skip", type=int, default=0, help="dialogues to leave out: those seen")
    one.add_argument("--dialogues", type=int, default=DIALOGUES, help="how many to draw from")
    one.add_argument(
        "--answers", action="store_true", help="a backward pass through the answers only: faster"
    )
    three = commands.add_parser("average", help="take the mean of adapters' weights")
    three.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="an adapter's folder")
    three.add_argument("--out", type=Path, required=True, help="the folder to write")
    two = commands.add_parser("evaluate", help="measure an adapter, or the base without one")
    two.add_argument("--adapter", help="its name or folder; the base model where left out")
    two.add_argument("--dialogues", type=int, default=150, help="for bits per character")
    two.add_argument("--turns", type=int, default=150, help="for greedy replies")
    two.add_argument("--replies", type=Path, help="write the replies there, as JSON lines")
    two.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (one, two):
        command.add_argument(
            "--data", type=Path, required=True, help="folder of train.jsonl and dev.jsonl"
        )
    given = parser.parse_args()
    if given.command == "average":
        average(given.folders, given.out)
        return
    if given.command == "train":
        config = replace(CONFIG, steps=given.steps, lr=given.lr)
        train(
            given.data,
            given.out,
            config,
            start=given.start,
            skip=given.skip,
            dialogues=given.dialogues,
            answers=given.answers,
        )
        return
    result = evaluate(given.data, given.adapter, given.dialogues, given.turns, given.replies)
    if given.json:
        print(json.dumps(result))
    else:
        _print(result)


if __name__ == "__main__":
    main()
