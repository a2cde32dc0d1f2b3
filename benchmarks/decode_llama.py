"""llama.cpp's part of `benchmarks/decode.py`, run by a Python that has llama-cpp-python.

    python decode_llama.py FILE BATCH PROMPT NEW REPEATS THREADS

Decodes greedily; prints [seconds to the first tokens, tokens per second after them]. With AMX,
repacked buffers are off: they need a permission that llama.cpp does not request.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from typing import Any

import llama_cpp as lib  # type: ignore[import-not-found, unused-ignore]
import numpy as np


def decode(context: Any, batch: Any, rows: list[tuple[int, int, int, bool]]) -> None:
    """Compute rows (sequence, token, position, whether to return its logits)."""
    batch.n_tokens = len(rows)
    for n, (sequence, token, position, logits) in enumerate(rows):
        batch.token[n], batch.pos[n], batch.logits[n] = token, position, logits
        batch.n_seq_id[n], batch.seq_id[n][0] = 1, sequence
    if lib.llama_decode(context, batch):
        raise RuntimeError("llama_decode failed")


def once(context: Any, vocabulary: int, case: list[int], repeat: int) -> tuple[float, float]:
    """Return the seconds to the first tokens, and the tokens per second after them."""
    count, length, new = case[:3]
    rng = random.Random(repeat)
    lib.llama_memory_clear(lib.llama_get_memory(context), True)
    batch = lib.llama_batch_init(max(count, length), 0, 1)
    times = [time.perf_counter()]
    latest = []
    for lane in range(count):
        tokens = [rng.randrange(vocabulary) for _ in range(length)]
        decode(context, batch, [(lane, t, p, p == length - 1) for p, t in enumerate(tokens)])
        latest.append(best_token(context, length - 1, vocabulary))
    times.append(time.perf_counter())
    for step in range(new - 1):
        rows = [(lane, token, length + step, True) for lane, token in enumerate(latest)]
        decode(context, batch, rows)
        latest = [best_token(context, lane, vocabulary) for lane in range(count)]
        times.append(time.perf_counter())
    lib.llama_batch_free(batch)
    return times[1] - times[0], count * (new - 1) / (times[-1] - times[1])


def best_token(context: Any, row: int, vocabulary: int) -> int:
    """Return the most likely token after a row."""
    logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(context, row), shape=(vocabulary,))
    return int(logits.argmax())


def main() -> None:
    """Measure and print."""
    file, *numbers = sys.argv[1:]
    case = [int(number) for number in numbers]
    count, length, new, repeats, threads = case
    settings = lib.llama_model_default_params()
    settings.use_extra_bufts = b"AMX_INT8 = 1" not in lib.llama_print_system_info()
    model = lib.llama_model_load_from_file(file.encode(), settings)
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_seq_max = count * max(256, -(-(length + new) // 256) * 256), count
    params.n_batch = params.n_ubatch = max(512, length)
    params.n_threads = params.n_threads_batch = threads
    context = lib.llama_init_from_model(model, params)
    vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    speeds = [once(context, vocabulary, case, repeat) for repeat in range(repeats + 1)][1:]
    print(json.dumps([statistics.median(values) for values in zip(*speeds, strict=True)]))


if __name__ == "__main__":
    main()
