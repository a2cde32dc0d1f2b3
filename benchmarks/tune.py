"""Tuning by reward against TRL's GRPOTrainer: the same model, reward and wall time.

    python -m benchmarks.tune --peer-python VENV/bin/python [--seconds 300] [--json]

Both tune a LoRA adapter by GRPO without a KL penalty, TRL's default, on the same prompts in groups
of the same size; TRL generates as it does on a CPU without being told otherwise. Loading a model is
not counted. Then both adapters, and the untuned model, write texts for held-out prompts by the same
code, and the mean reward of these is compared. VENV has `trl` and `peft`; without it only ours is
measured.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The interpreter of the peer runs this file too. It has no Ostinato, which functions import.

THINGS = """a bridge; a violin; rain; a market; a lighthouse; bread; a library; snow; a compass;
a garden; salt; a harbor; a kite; paper; a glacier; tea; a clock; a desert; an orchestra; honey;
a mountain; glass; a river; a museum; cotton; a volcano; a bicycle; coffee; a lake; an island;
a telescope; rice; a castle; wool; a train; a forest; sugar; a theater; copper; a canal; a poem;
a school; cheese; a hospital; thunder; a mirror; silk; an airport; a beach; gold; a farm; ink;
a windmill; pepper; a tunnel; a choir; wood; a stadium; a map; olive oil; a cave; a ladder; steel;
a valley; a painting; soap; a village; an engine; milk; a statue; fog; a bakery; leather; a piano;
a tower; a needle; a volcano's ash; an anchor; a lantern; a carpet""".replace("\n", " ").split("; ")
HELD_OUT = 16
GROUP, PROMPTS, TOKENS, RANK, LR = 8, 8, 64, 16, 3e-4
WORDS = 12


def questions() -> tuple[list[str], list[str]]:
    """Return the prompts to learn from, and those that are held out."""
    asked = [f"What is {thing}?" for thing in THINGS]
    return asked[:-HELD_OUT], asked[-HELD_OUT:]


def brief(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    """Reward a text of about twelve words that ends with a full stop; TRL's signature."""
    return [worth(completion[0]["content"]) for completion in completions]


def worth(text: str) -> float:
    """Return the reward of a text, in [0, 1]."""
    off = abs(len(text.split()) - WORDS)
    return math.exp(-off / 6) * (1.0 if text.rstrip().endswith(".") else 0.5)


# Ours -------------------------------------------------------------------------------------------


def tune_ours(model_name: str, seconds: float, out: Path) -> dict[str, float]:
    """Tune for some time; save the adapter, and return how many samples there were."""
    import torch

    from ostinato.loop import Loop, Seconds, numbers
    from ostinato.models import add_lora, compute_dtype, load_model, save_adapter
    from ostinato.reward import GroupConfig, GroupPolicy

    torch.manual_seed(0)
    model = load_model(model_name, dtype=compute_dtype())
    add_lora(model.llama(), RANK, 2.0 * RANK)
    policy = GroupPolicy(
        model,
        [{"message": each} for each in questions()[0]],
        prompt=lambda row, edits: [{"role": "user", "content": str(row["message"])}],
        reward=brief,
        config=GroupConfig(
            group_size=GROUP,
            prompts_per_step=PROMPTS,
            lr=LR,
            schedule="constant",
            kl_coefficient=0.0,
        ),
        max_new_tokens=TOKENS,
        slots=GROUP * PROMPTS,
    )
    samples, began = 0, time.perf_counter()
    written = 0.0
    for step in Loop(policy, until=Seconds(seconds)):
        samples += int(numbers(step.report["samples"])[0])
        written += policy.seconds["write"]
        print(f"  ours step {step.tick}: reward {step.report['reward']}", flush=True)
    took = time.perf_counter() - began
    save_adapter(model.llama(), out, base=model_name)
    return {"samples": samples, "seconds": took, "writing": written}


# The peer ---------------------------------------------------------------------------------------


def tune_trl(folder: str, seconds: float, out: Path) -> dict[str, float]:
    """Do the same with TRL; this runs in the peer's interpreter."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    clock: dict[str, float] = {}

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            clock["began"] = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            clock["seconds"] = time.perf_counter() - clock["began"]
            clock["steps"] = state.global_step
            print(f"  trl step {state.global_step}: {clock['seconds']:.0f} s", flush=True)
            control.should_training_stop = clock["seconds"] >= seconds

    rows = [{"prompt": [{"role": "user", "content": each}]} for each in questions()[0]]
    config = GRPOConfig(
        output_dir=str(out / "trainer"),
        per_device_train_batch_size=GROUP * PROMPTS,
        num_generations=GROUP,
        max_completion_length=TOKENS,
        learning_rate=LR,
        lr_scheduler_type="constant",
        max_steps=100_000,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        logging_steps=100_000,
        seed=0,
    )
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    trainer = GRPOTrainer(
        model=folder,
        reward_funcs=brief,
        args=config,
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=2 * RANK, target_modules=targets, task_type="CAUSAL_LM"
        ),
        callbacks=[Watch()],
    )
    trainer.train()
    trainer.save_model(str(out))
    return {"samples": clock["steps"] * GROUP * PROMPTS, "seconds": clock["seconds"]}


def call_peer(python: str, model: str, seconds: float, out: Path) -> dict[str, float]:
    """Run the peer in its own interpreter; return what it measured."""
    from ostinato.models import model_folder

    folder = str(model_folder(model))
    command = [python, __file__, "--run-peer", folder, "--seconds", str(seconds), "--out", str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout.rpartition("\n")[0][-4000:], flush=True)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


# Compared ---------------------------------------------------------------------------------------


def held_out_reward(model_name: str, adapter: Path | None) -> float:
    """Return the mean reward of texts for held-out prompts, eight each."""
    from ostinato.decode import SamplingParams
    from ostinato.loop import Steps
    from ostinato.models import load_model
    from ostinato.text import write

    model = load_model(model_name, adapter=adapter)
    prompts = [[{"role": "user", "content": each}] for each in questions()[1]] * GROUP
    loop = write(
        prompts,
        model=model,
        each=Steps(TOKENS),
        sampling=SamplingParams(temperature=1.0, top_k=256),
    )
    return statistics.fmean(worth(str(one.output)) for step in loop for one in step.results)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="smollm2", help="an installed model")
    parser.add_argument("--seconds", type=float, default=300, help="wall time of each side")
    parser.add_argument("--peer-python", help="an interpreter with trl and peft")
    parser.add_argument("--run-peer", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    if options.run_peer:
        print(json.dumps(tune_trl(options.run_peer, options.seconds, options.out)))
        return
    with tempfile.TemporaryDirectory() as name:
        result = compare(options, Path(name))
    if options.json:
        print(json.dumps(result))


def compare(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Tune with both sides, and compare their adapters."""
    import torch

    print(f"{options.model}, {torch.get_num_threads()} threads, {platform.machine()}:", flush=True)
    result: dict[str, object] = {"start_reward": round(held_out_reward(options.model, None), 4)}
    sides = {"ours": tune_ours(options.model, options.seconds, folder / "ours")}
    if options.peer_python:
        sides["trl"] = call_peer(
            options.peer_python, options.model, options.seconds, folder / "trl"
        )
    for name, found in sides.items():
        speed, reward = (
            found["samples"] / found["seconds"],
            held_out_reward(options.model, folder / name),
        )
        result |= {f"{name}_samples_s": round(speed, 3), f"{name}_reward": round(reward, 4)}
        print(f"  {name:5} {speed:7.2f} samples/s  reward {reward:.3f}", flush=True)
    print(f"  start {'':17} reward {result['start_reward']}")
    return result


if __name__ == "__main__":
    main()
