"""Training of texts: a small network from scratch beside nanoGPT's recipe, an adapter beside PEFT.

    python -m benchmarks.train_text --data FOLDER [--parts scratch lora] [--isa avx2] [--json]

FOLDER holds `tinyshakespeare/input.txt` and `sgd/dev.jsonl` (see `recipes/masked_text.py` and
`recipes/sgd.py`).

From scratch: nanoGPT's published recipe for CPUs (4 layers of 128, context 64, batch 12, 2,000
iterations, AdamW) against `ostinato train text` at the same size, in the layout of Qwen 3 with Muon
(`OURS`). The peer computes in float32, ours in the type that is fast here. The loss is that of the
whole validation part (the last tenth), in windows of the context. Seconds are those of the training
alone, without start and validation.

The adapter: rank 16 on all linear layers of smollm2, against `peft` with the Trainer of
`transformers` (which needs `accelerate`; left out if one is missing). Both keep the frozen weights
in the type that is fast here (`--dtype` for another) and train on the answers of the same
dialogues. Ours batches dialogues of similar length, the peer takes them in order. Tokens are
counted without padding; memory is the peak of a separate process. `lora_answers` runs the backward
pass through the answers only, a truncated gradient.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import multiprocessing
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.isa import add_isa, hold_to
from ostinato.loop import Loop, Steps
from ostinato.models import add_lora, compute_dtype, load_model
from ostinato.text import TextTrainingConfig, set_up
from ostinato.train import (
    BatchSampler,
    Example,
    TextTask,
    Training,
    TrainingConfig,
    conversation,
)
from recipes.masked_text import split
from recipes.sgd import dialogue_messages, read_dialogues

CONTEXT, LAYERS, WIDTH, HEADS = 64, 4, 128, 4
ITERATIONS, BATCH = 2000, 12
OURS = TrainingConfig(
    steps=107,
    batch_tokens=24 * (CONTEXT + 1),
    optimizer="muon",
    lr=0.02,
    adamw_lr_scale=1.0,
    warmup_steps=5,
    precision=str(compute_dtype()).removeprefix("torch."),  # type: ignore[arg-type]
    valid_every=1 << 30,
)
RANK, CONTEXT_LORA, DIALOGUES = 16, 384, 4
PARTS = ("scratch", "lora")


# nanoGPT's network and recipe --------------------------------------------------------------------


class PeerBlock(nn.Module):
    """A block of GPT-2 without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.attn_out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.mlp_out = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, C) for (B, T, C)."""
        B, T, C = x.size()
        parts = self.qkv(self.ln_1(x)).view(B, T, 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind()
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, D)
        x = x + self.attn_out(y.transpose(1, 2).reshape(B, T, C))
        out: Tensor = x + self.mlp_out(F.gelu(self.up(self.ln_2(x))))
        return out


class Peer(nn.Module):
    """GPT-2 with a tied head and GPT-2's initialization."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[PeerBlock() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                last = name.endswith("_out.weight")
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * LAYERS) if last else 0.02)

    def loss(self, tokens: Tensor) -> Tensor:
        """Return the mean next-token loss of tokens (B, T + 1)."""
        x = self.tokens(tokens[:, :-1]) + self.positions.weight
        logits = F.linear(self.norm(self.blocks(x)), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def peer_lr(step: int) -> float:
    """Return the learning rate: 100 steps of warm-up to 1e-3, then a cosine to 1e-4."""
    if step < 100:
        return 1e-3 * step / 100
    progress = (step - 100) / (ITERATIONS - 100)
    return 1e-4 + 0.5 * (1 + math.cos(math.pi * progress)) * 9e-4


def train_peer(train: Tensor, vocab_size: int, iterations: int) -> tuple[Peer, float]:
    """Train by nanoGPT's recipe; return the network and the seconds."""
    torch.manual_seed(1337)
    network = Peer(vocab_size)
    matrices = [p for p in network.parameters() if p.dim() > 1]
    vectors = [p for p in network.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    start = time.perf_counter()
    for step in range(iterations):
        for group in optimizer.param_groups:
            group["lr"] = peer_lr(step)
        starts = torch.randint(len(train) - CONTEXT, (BATCH, 1))
        network.loss(train[starts + torch.arange(CONTEXT + 1)]).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return network, time.perf_counter() - start


@torch.no_grad()
def peer_loss(network: Peer, valid: Tensor) -> float:
    """Return the mean loss of the whole validation part."""
    rows = valid[: (len(valid) - 1) // CONTEXT * CONTEXT + 1].unfold(0, CONTEXT + 1, CONTEXT)
    batches = torch.split(rows, 256)
    return sum(float(network.loss(batch)) * len(batch) for batch in batches) / len(rows)


def nanogpt(text: str, iterations: int) -> dict[str, float]:
    """Measure nanoGPT's recipe."""
    ids = {character: i for i, character in enumerate(sorted(set(text)))}
    train, valid = (torch.tensor([ids[c] for c in part]) for part in split(text))
    network, seconds = train_peer(train, len(ids), iterations)
    return {"nanogpt_s": seconds, "nanogpt_loss": peer_loss(network, valid)}


def ours(text: str, config: TrainingConfig) -> dict[str, float]:
    """Measure what `ostinato train text` does."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("train.txt", "valid.txt")]
        for path, part in zip(files, split(text), strict=True):
            path.write_text(part, encoding="utf-8")
        settings = TextTrainingConfig(
            files=(files[0],),
            valid=(files[1],),
            tokenizer="char",
            layout="qwen3",
            untied=True,
            zero_init=True,
            context=CONTEXT,
            layers=LAYERS,
            width=WIDTH,
            heads=HEADS,
        )
        parts = set_up(settings)
    process = Training(parts.model.network, TextTask(parts.train, parts.valid), config)
    start = time.perf_counter()
    Loop(process, until=Steps(config.steps)).run()
    seconds = time.perf_counter() - start
    return {"ours_s": seconds, "ours_loss": process.validate()["loss/valid"]}


# The adapter ---------------------------------------------------------------------------------


def dialogues(path: Path, count: int) -> list[Example]:
    """Return the first dialogues as examples whose loss counts the answers."""
    tokenizer = load_model("smollm2").tokenizer
    rows = islice(read_dialogues(path), count)
    return [conversation(tokenizer, dialogue_messages(row), CONTEXT_LORA) for row in rows]


def lora(
    examples: Sequence[Example], dtype: torch.dtype, threads: int, completion_only: bool = False
) -> tuple[float, float]:
    """Return our tokens/s without the first step, and the peak memory in GB."""
    torch.set_num_threads(threads)
    network = load_model("smollm2", dtype=dtype).llama()
    add_lora(network, RANK, 2.0 * RANK)
    config = TrainingConfig(steps=len(examples), lr=1e-3, batch_tokens=DIALOGUES * CONTEXT_LORA)
    process = Training(network, TextTask(examples, completion_only=completion_only), config)
    process.step()
    first = BatchSampler(process.task.lengths, config.batch_tokens, config.seed).batch(0)[1]
    tokens = sum(map(len, examples)) - sum(len(examples[i]) for i in first)
    start = time.perf_counter()
    for _ in range(1, process.batches):
        process.step()
    return tokens / (time.perf_counter() - start), peak()


def lora_answers(
    examples: Sequence[Example], dtype: torch.dtype, threads: int
) -> tuple[float, float]:
    """Return the same, with the backward pass through the answers only."""
    return lora(examples, dtype, threads, completion_only=True)


def peft_trainer(
    examples: Sequence[Example], dtype: torch.dtype, threads: int
) -> tuple[float, float]:
    """Return the tokens/s of `peft` with the Trainer without the first step, and the peak."""
    import peft
    import transformers

    torch.set_num_threads(threads)
    folder = load_model("smollm2").folder
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    shape = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    clock: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            clock.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        arguments = transformers.TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=DIALOGUES,
            num_train_epochs=1,
            learning_rate=1e-3,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            train_sampling_strategy="sequential",
        )
        transformers.Trainer(
            model=peft.get_peft_model(base, shape),
            args=arguments,
            train_dataset=[{"example": i} for i in range(len(examples))],
            data_collator=lambda rows: collated([examples[row["example"]] for row in rows]),
            callbacks=[Clock()],
        ).train()
    tokens = sum(len(example) for example in examples[DIALOGUES:])
    return tokens / (clock[-1] - clock[0]), peak()


def collated(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Return a batch in the Trainer's form, padded on the right; label -100 is not counted."""
    T = max(map(len, examples))
    shape = (len(examples), T)
    tokens, attended = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, -100)
    for row, example in enumerate(examples):
        n = len(example)
        tokens[row, :n], attended[row, :n] = torch.tensor(example.tokens), 1
        loss_mask = torch.tensor(example.loss_mask)
        labels[row, :n] = torch.where(loss_mask, tokens[row, :n], -100)
    return {"input_ids": tokens, "attention_mask": attended, "labels": labels}


def peak() -> float:
    """Return the peak memory of this process, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def alone(measure: Callable[..., tuple[float, float]], *args: Any) -> tuple[float, float]:
    """Measure in a new process, so that the peak of memory is this measurement's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, args)


def adapters(path: Path, batches: int, dtype: torch.dtype, threads: int) -> dict[str, float]:
    """Measure the training of the adapter, ours and the peer's."""
    examples = dialogues(path, batches * DIALOGUES)
    figures: dict[str, float] = {}
    measures: dict[str, Callable[..., tuple[float, float]]]
    measures = {"lora": lora, "lora_answers": lora_answers}
    missing = [n for n in ("peft", "accelerate") if importlib.util.find_spec(n) is None]
    if missing:
        print(f"peft is left out: pip install {' '.join(missing)}")
    else:
        measures["peft"] = peft_trainer
    for name, measure in measures.items():
        speed, gb = alone(measure, examples, dtype, threads)
        figures |= {f"{name}_tok_s": speed, f"{name}_gb": gb}
    return figures


def report(figures: Mapping[str, float]) -> None:
    """Print the figures and their ratios."""
    for name, value in figures.items():
        print(f"{name:20} {value:10.3f}")
    for name, over, under in (
        ("from scratch", "nanogpt_s", "ours_s"),
        ("adapter", "lora_tok_s", "peft_tok_s"),
        ("adapter, answers", "lora_answers_tok_s", "peft_tok_s"),
    ):
        if over in figures and under in figures:
            print(f"{name:20} {figures[over] / figures[under]:10.2f} times as fast")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_text",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="what to measure")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="of nanoGPT's recipe")
    parser.add_argument("--batches", type=int, default=5, help="batches of the adapter's training")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the frozen weights")
    add_isa(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    hold_to(options.isa, "train_text")
    threads = torch.get_num_threads()
    print(f"{threads} threads, {platform.machine()}, torch {torch.__version__}")
    dtype = getattr(torch, options.dtype) if options.dtype else compute_dtype()
    figures: dict[str, float] = {}
    if "scratch" in options.parts:
        text = (options.data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
        figures |= ours(text, OURS) | nanogpt(text, options.iterations)
    if "lora" in options.parts:
        figures |= adapters(options.data / "sgd" / "dev.jsonl", options.batches, dtype, threads)
    report(figures)
    if options.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
