"""Tokens per second of decoding: ours (plain, compiled, int8, int4), `transformers` and llama.cpp.

    python -m benchmarks.decode [--models small smollm2] [--llama PYTHON] [--text FILE] [--json]
    python -m benchmarks.decode --models small 135m --device cuda --batches 1 16 64

All use the same weights, random prompts, greedy decoding and no end token. Tokens per second are
those after the first, all lanes together. Ours run the whole loop (`Loop`, `Lanes`, `Decode`),
theirs `generate` in the faster type and with the faster of its caches. Each speed is also shown as
a share of a bound: reading weights and cache once per step, at the read bandwidth measured here.

`--llama` names a Python that has llama-cpp-python: it runs the weights in bfloat16, and rounded by
gguf to Q8_0 and Q4_0 (4.5 bits; our int4 takes 5). `--text` also shows what each compute mode costs
in quality: bits per character of the file's first tokens, in windows of 256 tokens. `--isa avx2`
measures ours and `transformers` as a processor without AVX-512 runs them (llama.cpp chooses for
itself). `--busy 1 2` also measures the compiled pass beside one and two busy programs.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.decode_models import LLAMA_FORMS, SHAPED, open_network, save_folder, save_gguf
from benchmarks.isa import add_isa, hold_to
from ostinato.decode import Decode, TokenPrompt
from ostinato.inference import FixedShapeBackend, open_backend
from ostinato.loop import Lanes, Loop, Policy, Steps
from ostinato.models import LanguageModel, compute_dtype, find_device, read_gb_s

BATCHES = (1, 16)
PROMPTS = (32, 512)
WINDOW = 256  # tokens
LLAMA = Path(__file__).with_name("decode_llama.py")
# Bytes of a weight, by name; others have those of the network's type.
BYTES = {
    "compiled": 2.0,
    "int8": 8.5 / 8,
    "int4": 5.0 / 8,
    "llama": 2.0,
    "llama_q8": 8.5 / 8,
    "llama_q4": 4.5 / 8,
}


class Speed(NamedTuple):
    """Seconds to the first tokens, and tokens per second after them."""

    first_s: float
    tokens_s: float


class Case(NamedTuple):
    """The number of lanes, the tokens of a prompt, the new tokens, and the repeats."""

    batch: int
    prompt: int
    new: int
    repeats: int

    def prompts(self, vocabulary: int, repeat: int) -> list[list[int]]:
        """Return prompts of a repeat's own: no cache holds them from an earlier one."""
        rng = random.Random(repeat)
        return [[rng.randrange(vocabulary) for _ in range(self.prompt)] for _ in range(self.batch)]


def median(case: Case, once: Callable[[int], Speed]) -> Speed:
    """Return the medians of the repeats, after one warm-up that is not counted."""
    speeds = [once(repeat) for repeat in range(case.repeats + 1)][1:]
    return Speed(*(statistics.median(values) for values in zip(*speeds, strict=True)))


def speed_of(case: Case, start: float, times: list[float]) -> Speed:
    """Return the speed of steps that ended at `times`."""
    assert len(times) == case.new, (len(times), case)
    return Speed(times[0] - start, case.batch * (case.new - 1) / (times[-1] - times[0]))


def ours(model: LanguageModel, case: Case) -> Speed:
    """Measure the whole loop over lanes."""
    prompts: list[list[int]] = []
    decode = Decode(
        model, lambda item, edits: TokenPrompt(prompts[int(str(item))]), slots=case.batch
    )

    def once(repeat: int) -> Speed:
        prompts[:] = case.prompts(model.config.vocab_size, repeat)
        items = [(f"{repeat}.{n}", str(n)) for n in range(case.batch)]
        start = time.perf_counter()
        loop = Loop(Lanes(decode, items, Policy(each=Steps(case.new))), until=Steps(1 << 60))
        return speed_of(case, start, [time.perf_counter() for _ in loop])

    return median(case, once)


def faster_dtype(folder: Path, device: torch.device, case: Case) -> torch.dtype:
    """Return the type in which `transformers` takes less time for some tokens."""
    short = case._replace(prompt=32, new=16, repeats=1)
    taken = {}
    for dtype in (torch.float32, torch.bfloat16):
        speed = transformers(folder, dtype, device, short, caches=("dynamic",))
        taken[dtype] = speed.first_s + case.batch * short.new / speed.tokens_s
    return min(taken, key=lambda dtype: taken[dtype])


def transformers(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    case: Case,
    caches: Sequence[str] = ("dynamic", "static"),
) -> Speed:
    """Measure `generate` with the dynamic and with the static cache; return the faster."""
    from transformers import AutoModelForCausalLM, StoppingCriteria
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    network.to(device).eval()
    times: list[float] = []

    class Clock(StoppingCriteria):
        def __call__(self, ids: Any, scores: Any, **more: Any) -> torch.Tensor:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool, device=device)

    def once(repeat: int, cache: str) -> Speed:
        times.clear()
        ids = torch.tensor(case.prompts(network.config.vocab_size, repeat), device=device)
        start = time.perf_counter()
        network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=case.new,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            cache_implementation=cache,
            stopping_criteria=[Clock()],
        )
        return speed_of(case, start, times)

    speeds = [median(case, lambda r, c=cache: once(r, c)) for cache in caches]  # type: ignore[misc]
    return max(speeds, key=lambda speed: speed.tokens_s)


def llama(python: str, file: Path, case: Case) -> Speed:
    """Measure llama.cpp in its own process, with as many threads."""
    numbers = [*case, torch.get_num_threads()]
    command = [python, str(LLAMA), str(file), *map(str, numbers)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Speed(*json.loads(output.splitlines()[-1]))


def described(device: torch.device) -> str:
    """Return a line about the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads, kind = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    return f"{threads} threads, {platform.machine()}, {kind}"


def bound(model: LanguageModel, name: str, case: Case, gb_s: float) -> float:
    """Return the tokens per second if a step only read weights and cache, once."""
    network, config = model.llama(), model.llama().config
    each = network.lm_head.weight.element_size()
    weights = sum(p.numel() for p in network.parameters())  # tied weights count once
    row = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    cache = case.batch * row * (case.prompt + case.new / 2)
    step = BYTES.get(name, each) * weights + (2 if name in BYTES else each) * cache
    return case.batch * gb_s * 1e9 / step


def same_bits_cost(model: LanguageModel) -> float:
    """Return how much slower one row is in a block of 16 rows than alone, as a share."""

    def seconds(block: int) -> float:
        inference = FixedShapeBackend(model, 1, block=block)
        inference.prefill(0, [1] * 40)
        times = []
        for _ in range(15):
            start = time.perf_counter()
            inference.logits(inference.feed([(0, 5, 40)]))
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return seconds(16) / seconds(1) - 1


def bits_per_character(model: LanguageModel, text: str, windows: int) -> float:
    """Return the bits per character of the text's first tokens, in separate windows."""
    tokens = model.tokenizer.encode(text)[: windows * WINDOW]
    backend = open_backend(model, 1)
    nats, characters = 0.0, 0
    for first in range(0, len(tokens) - 1, WINDOW):
        part = tokens[first : first + WINDOW]
        hidden = backend.feed([(0, token, at) for at, token in enumerate(part[:-1])])
        logprobs = torch.log_softmax(backend.logits(hidden), -1)
        nats -= float(logprobs[torch.arange(len(part) - 1), torch.tensor(part[1:])].sum())
        characters += len(model.tokenizer.decode(part[1:]))
    return nats / characters / math.log(2)


def variants(model: LanguageModel) -> dict[str, LanguageModel]:
    """Return the model in each of our compute modes."""
    if model.device.type == "cuda":
        return {"ours": model}
    compiled = replace(model, compile=True)
    return {
        "ours": model,
        "compiled": compiled,
        "int8": replace(compiled, bits=8),
        "int4": replace(compiled, bits=4),
    }


def measure(model: LanguageModel, case: Case, options: argparse.Namespace) -> dict[str, Speed]:
    """Return the speeds of ours and the peers, by name."""
    speeds = {}
    for name, variant in variants(model).items():
        speeds[name] = ours(variant, case)
        gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        saved = save_folder(model, Path(folder))
        dtype = faster_dtype(saved, model.device, case)
        speeds["transformers"] = transformers(saved, dtype, model.device, case)
        for name, form in LLAMA_FORMS.items() if options.llama else ():
            file = save_gguf(model, Path(folder) / "model.gguf", form)
            speeds[name] = llama(options.llama, file, case)
    return speeds


@contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """Run programs that compute without end while the context is open."""
    command = [sys.executable, "-c", "while True: pass"]
    programs = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def busy_shares(model: LanguageModel, case: Case, counts: list[int]) -> dict[str, float]:
    """Return the compiled pass's speed beside busy programs, as shares of the idle one."""
    compiled = replace(model, compile=True)
    idle = ours(compiled, case).tokens_s
    shares = {}
    for count in counts:
        with busy_programs(count):
            shares[f"busy{count}.share"] = round(ours(compiled, case).tokens_s / idle, 3)
    return shares


def peak_gflops(model: LanguageModel, rows: int) -> float:
    """Return what torch's float32 product reaches on the shape of the network's largest layer."""
    config = model.llama().config
    x = torch.randn(rows, config.hidden_size)
    weight = torch.randn(config.intermediate_size, config.hidden_size)
    seconds = []
    for _ in range(15):
        start = time.perf_counter()
        torch.mm(x, weight.T)
        seconds.append(time.perf_counter() - start)
    return 2e-9 * x.numel() * len(weight) / statistics.median(seconds)


def prefill(model: LanguageModel, case: Case, speeds: dict[str, Speed]) -> dict[str, float]:
    """Return the tokens per second of a prompt, and the share of torch's peak that ours reach."""
    tokens = case.batch * case.prompt
    keys = {f"prefill.{name}": round(tokens / speed.first_s, 1) for name, speed in speeds.items()}
    if "compiled" in speeds:
        layers = sum(p.numel() for block in model.llama().blocks() for p in block.parameters())
        reached = 2e-9 * layers * keys["prefill.compiled"]
        keys["prefill.peak_share"] = round(reached / peak_gflops(model, case.prompt), 3)
    return keys


def show(speeds: dict[str, Speed], bounds: dict[str, float]) -> None:
    """Print a case, a line for each name."""
    for name, speed in speeds.items():
        ratio = speed.tokens_s / speeds["transformers"].tokens_s
        print(f"  {name:13} {speed.tokens_s:8.1f} tokens/s  {ratio:5.2f} of transformers  ", end="")
        share = speed.tokens_s / bounds[name]
        print(f"{share:5.0%} of the bound  first {speed.first_s * 1e3:7.0f} ms")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=["small", "smollm2"],
        help="small (15.7 M), 135m (smollm2's shape), or an installed model",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of the weights [default: the faster]",
    )
    parser.add_argument(
        "--prompts", nargs="+", type=int, default=PROMPTS, help="tokens of a prompt"
    )
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="numbers of lanes")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--new", type=int, default=64, help="new tokens of a lane")
    parser.add_argument("--repeats", type=int, default=3, help="runs whose median counts")
    parser.add_argument("--llama", metavar="PYTHON", help="a Python with llama-cpp-python")
    parser.add_argument("--text", type=Path, metavar="FILE", help="a text to measure quality on")
    parser.add_argument("--windows", type=int, default=16, help="windows of 256 tokens of the text")
    add_isa(parser)
    parser.add_argument(
        "--busy", nargs="+", type=int, default=[], metavar="N", help="programs that run beside"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    chosen = options()
    hold_to(chosen.isa, "decode")
    device = find_device(chosen.device)
    dtype = getattr(torch, chosen.dtype) if chosen.dtype else compute_dtype(device)
    gb_s = read_gb_s(device)
    flat: dict[str, object] = {
        "read_gb_s": round(gb_s, 1),
        "dtype": str(dtype)[6:],
        "isa": chosen.isa,
    }
    print(f"{dtype}, {described(device)}; memory is read at {gb_s:.1f} GB/s.")
    for name in chosen.models:
        model = open_network(name, dtype, device)
        for prompt in chosen.prompts:
            for batch in chosen.batches:
                case = Case(batch, prompt, chosen.new, chosen.repeats)
                print(f"{name}, batch {batch}, prompt {prompt}, {chosen.new} new:", flush=True)
                speeds = measure(model, case, chosen)
                bounds = {key: bound(model, key, case, gb_s) for key in speeds}
                show(speeds, bounds)
                if prompt == chosen.prompts[0]:
                    each = {key: round(s.tokens_s, 1) for key, s in speeds.items()}
                    flat |= {f"{name}.b{batch}.{key}": speed for key, speed in each.items()}
                    for key in variants(model):
                        share = round(speeds[key].tokens_s / bounds[key], 3)
                        flat[f"{name}.b{batch}.{key}.bound_share"] = share
                if prompt == chosen.prompts[-1] and batch == chosen.batches[0]:
                    made = prefill(model, case, speeds)
                    print("  " + ", ".join(f"{key} {value:g}" for key, value in made.items()))
                    flat |= {f"{name}.{key}": value for key, value in made.items()}
        if device.type == "cuda":
            continue
        case = Case(chosen.batches[-1], chosen.prompts[0], chosen.new, chosen.repeats)
        shares = busy_shares(model, case, chosen.busy) if chosen.busy else {}
        for key, share in shares.items():
            flat[f"{name}.{key}"] = share
            print(f"{name}: {key} {share:.0%} of the idle speed, batch {case.batch}")
        flat["same_bits_cost"] = cost = round(same_bits_cost(model), 3)
        print(f"{name}: a block of 16 rows costs one row {cost:+.0%} time; compiled, nothing.")
        if chosen.text and name not in SHAPED:
            text = chosen.text.read_text(encoding="utf-8")
            for key, variant in variants(model).items():
                bits = bits_per_character(variant, text, chosen.windows)
                flat[f"{name}.{key}.bits_per_character"] = round(bits, 4)
                print(f"{name}, {key}: {bits:.4f} bits per character")
    if chosen.json:
        print(json.dumps(flat))


if __name__ == "__main__":
    main()
