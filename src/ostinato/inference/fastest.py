"""Which compute mode is the fastest for a network on this machine: timed once, then remembered.

A few layers are timed, and what all layers take is computed from them. Knows no sampling and no
lanes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ostinato.inference.compiled.backend import CompiledBackend
from ostinato.inference.compiled.build import kernel_hash
from ostinato.inference.fixed_shape import FixedShapeBackend
from ostinato.inference.self_test import probe_tokens
from ostinato.inference.slot_backend import default_dtype, in_dtype
from ostinato.models import (
    CPU,
    LanguageModel,
    Llama,
    facts_are_kept,
    is_quantized,
    machine,
    plain_compute_mode,
    recall,
    remember,
    source_hash,
)
from ostinato.waiting import waiting

FACT = "compute-mode"
SMALL = 16_000_000  # weights of all layers: below, timing costs more than it can bring
LARGE = 50_000_000  # weights of one layer: fewer layers are timed above
VOCABULARY = 16_384  # tokens of the head that is timed; the time of the whole is in proportion
LANES, PROMPT = 16, 128
# Passes of a job with 16 lanes, 64 tokens each after 64 tokens of a prompt that is their own, and
# with a last lane that is alone.
WEIGHTS = {"prompt": 8, "lanes": 64, "alone": 16}
ENOUGH, REPEATS = 0.02, 5  # seconds of one measurement, and its maximum number of repeats
SLOWER = 3.0  # times as long as the fastest candidate so far


Timed = CompiledBackend | FixedShapeBackend


@dataclass(frozen=True)
class Candidate:
    """A compute mode by its name, and the model that computes in it."""

    mode: str
    model: LanguageModel


def fastest(model: LanguageModel, *, can_compile: bool) -> LanguageModel:
    """Return `model` with the fastest of its compute modes chosen: `compile` and `dtype` are set.

    The first call on a machine takes about a second. Not timed are small networks, and those whose
    weights stay in blocks of 8 bits or fewer: compiled code is chosen where it works.
    """
    choices = candidates(model, can_compile=can_compile)
    network = model.llama()
    untimed = is_quantized(network) or _size(network.model.layers) < SMALL
    if len(choices) == 1 or untimed or not facts_are_kept():
        return choices[0].model
    key = _key(network, choices)
    known = recall(FACT, key)
    mode = known.get("mode") if isinstance(known, dict) else None
    for candidate in choices:
        if candidate.mode == mode:
            return candidate.model
    chosen, seconds = _timed(choices)
    remember(FACT, key, {"mode": chosen.mode, "seconds": seconds})
    return chosen.model


def candidates(model: LanguageModel, *, can_compile: bool) -> list[Candidate]:
    """Return the modes that a model can compute in, the preferred one first."""
    found = [Candidate("compiled", replace(model, compile=True))] if can_compile else []
    own = plain_dtype(model)
    other = {torch.float32: torch.bfloat16, torch.bfloat16: torch.float32}.get(own)
    for dtype in (own, other) if model.dtype is None and other is not None else (own,):
        mode = plain_compute_mode(CPU) + in_dtype(dtype, model.llama())
        found.append(Candidate(mode, replace(model, compile=False, dtype=dtype)))
    return found


def plain_dtype(model: LanguageModel) -> torch.dtype:
    """Return the type that PyTorch computes in: the one asked for, else the default one."""
    return model.dtype or default_dtype(model.llama())


def _key(network: Llama, choices: Sequence[Candidate]) -> dict[str, object]:
    compiled = any(candidate.model.compile for candidate in choices)
    return {
        "machine": machine(),
        "code": source_hash(Path(__file__).parent),
        "kernel": kernel_hash() if compiled else "",
        "network": asdict(network.config),
        "dtype": str(network.dtype),
        "modes": [candidate.mode for candidate in choices],
    }


def _timed(choices: Sequence[Candidate]) -> tuple[Candidate, dict[str, float]]:
    """Return the fastest candidate that is batch-invariant, and the seconds of each."""
    with waiting("Finding the fastest way to compute on this machine, once for each model…"):
        return _timed_each(choices)


def _timed_each(choices: Sequence[Candidate]) -> tuple[Candidate, dict[str, float]]:
    timings: list[tuple[float, Candidate]] = []
    allowed = math.inf
    for candidate in choices:
        start = time.perf_counter()
        timings.append((_seconds(candidate.model, start + allowed), candidate))
        # Measuring a candidate that is as fast takes as long; a far slower one is not waited for.
        allowed = min(allowed, SLOWER * (time.perf_counter() - start))
    ranked = sorted(timings, key=lambda timing: timing[0])
    seconds = {each.mode: round(took, 4) for took, each in ranked if took < math.inf}
    for _, candidate in ranked:
        if _is_batch_invariant(candidate.model):
            return candidate, seconds
    return choices[0], seconds


def _is_batch_invariant(model: LanguageModel) -> bool:
    try:
        return _open(model, _depths(model.llama())[1]).self_test().batch_invariant
    except RuntimeError:
        return False


def _seconds(model: LanguageModel, deadline: float) -> float:
    """Return how long the passes of `WEIGHTS` take; infinite where it is not known.

    That is where this machine cannot compute so, and where the measurement reaches the deadline.
    """
    network = model.llama()
    less, more = _depths(network)
    try:
        shallow = _open(model, less)
        first, head = _passes(shallow, deadline), _heads(shallow, deadline)
        second = _passes(_open(model, more), deadline) if more > less else first
    except (RuntimeError, TimeoutError):  # PyTorch may have no such operation for a type
        return math.inf
    whole = network.config.vocab_size / shallow.vocab_size
    total = 0.0
    for name, weight in WEIGHTS.items():
        layer = max(0.0, second[name] - first[name]) / max(1, more - less)
        passed = first[name] + layer * (network.config.num_hidden_layers - less)
        total += weight * (passed + whole * head.get(name, 0.0))
    return total


def _passes(backend: Timed, deadline: float) -> dict[str, float]:
    """Return the seconds of each kind of pass."""
    tokens, position, rows = _rows(backend)
    return {
        "prompt": _best(lambda: backend.prefill(0, tokens[:position]), deadline),
        "lanes": _best(lambda: backend.feed(rows), deadline),
        "alone": _best(lambda: backend.feed(rows[:1]), deadline),
    }


def _heads(backend: Timed, deadline: float) -> dict[str, float]:
    """Return the seconds of the logits in each kind of pass that has any."""
    hidden = backend.feed(_rows(backend)[2])
    return {
        "lanes": _best(lambda: backend.logits(hidden), deadline),
        "alone": _best(lambda: backend.logits(hidden[:1]), deadline),
    }


def _rows(backend: Timed) -> tuple[list[int], int, list[tuple[int, int, int]]]:
    """Return a prompt, the position after it, and a row of each lane there."""
    tokens = probe_tokens(PROMPT, backend.vocab_size)
    position = min(PROMPT, backend.limit - 1)
    return tokens, position, [(slot, tokens[slot], position) for slot in range(LANES)]


def _best(call: Callable[[], object], deadline: float) -> float:
    """Return the seconds of the shortest of a few calls: other programs only lengthen them."""
    call()  # the first one also allocates
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < ENOUGH:
        start = time.perf_counter()
        if start > deadline:
            raise TimeoutError
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _open(model: LanguageModel, layers: int) -> Timed:
    network = _shallow(model.llama(), layers)
    if model.compile:
        return CompiledBackend(network, LANES, length=2 * PROMPT)
    return FixedShapeBackend(network, LANES, length=2 * PROMPT, dtype=plain_dtype(model))


def _shallow(network: Llama, layers: int) -> Llama:
    """Return a network of the first layers and the first tokens, which shares the weights."""
    config = network.config
    shallow = replace(
        config,
        num_hidden_layers=layers,
        vocab_size=min(VOCABULARY, config.vocab_size),
        layer_types=config.layer_types[:layers],
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        made = Llama(shallow)
    whole = network.model
    made.model.layers = whole.layers[:layers]
    made.model.norm, made.model.embed_positions = whole.norm, whole.embed_positions
    for part, of in (
        (made.model.embed_tokens, whole.embed_tokens),
        (made.lm_head, network.lm_head),
    ):
        part.weight = nn.Parameter(of.weight.detach()[: shallow.vocab_size], requires_grad=False)
    return made


def _depths(network: Llama) -> tuple[int, int]:
    """Return the two numbers of layers whose difference gives the time of a layer."""
    layers = network.model.layers
    return 1, min(len(layers), 3 if _size(layers[0]) < LARGE else 2)


def _size(part: nn.Module) -> int:
    """Return the weights of a part's matrices, also of those that are made when they are used."""
    layers = (m for m in part.modules() if isinstance(m, nn.Linear))
    return sum(layer.in_features * layer.out_features for layer in layers)
