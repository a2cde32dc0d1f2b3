"""The memory that a model takes, from the headers of its files: known before a weight is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from safetensors import safe_open

from ostinato.arguments import counted
from ostinato.errors import ModelError, UnknownLayout
from ostinato.models.catalog import LLAMA, split_adapter
from ostinato.models.device import CPU, compute_dtype, find_device
from ostinato.models.files.checkpoint_io import reading_weights
from ostinato.models.files.gguf_blocks import FORMATS
from ostinato.models.load import check_unpickled, find_model, weight_files
from ostinato.models.networks.config import LlamaConfig

LENGTH = 512
"""Tokens that a slot has room for at first."""
BIG = 1_000_000_000
"""Bytes from which `check_memory` announces a model, whose loading takes a while."""
_Q4_K_M = 5.5 / 8  # bytes a weight of such a file takes: some of its matrices have 6 bits
_ROUNDED = {8: 8.5 / 8, 4: 5.0 / 8}  # bytes of a weight, with its share of scales, by bits


class TensorFacts(NamedTuple):
    """A tensor of a file: its type and size, and whether it stays in the file's blocks."""

    kind: str
    elements: int
    stays: bool

    def bytes(self, dtype: torch.dtype, *, widened: bool) -> float:
        """Return the memory it takes in a network that computes in `dtype`."""
        if self.stays and not widened:
            return self.elements * FORMATS[self.kind].held_bytes
        if self.kind in ("BF16", "F16") and not widened:
            return self.elements * 2
        return self.elements * dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What the files of a model hold, read without their weights."""

    name: str
    path: Path
    tensors: Sequence[TensorFacts]
    config: LlamaConfig | None
    """None for a network that is not ours"""

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def types(self) -> Mapping[str, int]:
        """How many tensors have each type, the most frequent first."""
        return dict(Counter(tensor.kind for tensor in self.tensors).most_common())

    @property
    def file_bytes(self) -> int:
        """The size of the files that hold the weights."""
        files = [self.path] if self.path.is_file() else weight_files(self.path)
        return sum(file.stat().st_size for file in files)

    @property
    def stays(self) -> bool:
        """Whether matrices stay in the blocks of the file."""
        return any(tensor.stays for tensor in self.tensors)

    def weight_bytes(self, dtype: torch.dtype, *, widened: bool = False) -> int:
        """Return the memory of the weights; `widened` makes floats of quantized ones too."""
        return round(sum(tensor.bytes(dtype, widened=widened) for tensor in self.tensors))

    def cache_bytes(self, tokens: int, dtype: torch.dtype) -> int:
        """Return the memory of the keys and values of `tokens`; 0 for a network not ours."""
        if self.config is None:
            return 0
        c = self.config
        per_token = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim
        return tokens * per_token * dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """The memory that a model needs, in bytes, with what would need less."""

    facts: ModelFacts
    weights: int
    slots: int
    length: int
    slot: int
    """bytes of a slot's cache of `length` tokens"""
    free: int
    alternatives: Mapping[str, int]
    """other ways to run it, with the bytes of their weights"""

    @property
    def cache(self) -> int:
        """The cache of all slots."""
        return self.slots * self.slot

    @property
    def total(self) -> int:
        """Weights and cache."""
        return self.weights + self.cache

    @property
    def parts(self) -> str:
        """What the total consists of, in words."""
        cache = f", cache {size_text(self.cache)} ({self.slots} x {self.length:,} tokens)"
        return f"weights {size_text(self.weights)}{cache if self.slot else ''}"

    def check(self) -> None:
        """Raise `ModelError` where it does not fit, with what would."""
        if self.total > self.free:
            raise ModelError(
                f"{self.facts.name} must fit into the free memory ({size_text(self.free)}), got "
                f"{size_text(self.total)}: {self.parts}. {self._advice()}"
            )

    def _advice(self) -> str:
        fitting = [
            f"{way} ({size_text(weights + self.cache)})"
            for way, weights in self.alternatives.items()
            if weights + self.cache <= self.free
        ]
        fewer = (self.free - self.weights) // self.slot if self.slot else 0
        if fewer > 0:
            fitting.insert(0, f"at most {counted(fewer, 'slots')}")
        if not fitting:
            return "Close other programs, or use a smaller model or one behind a server."
        return f"Use {' or '.join(fitting)}, or close other programs."


def read_facts(name: str | Path) -> ModelFacts:
    """Read the headers of a model of any name that `load_model` takes, but `llama:` ones.

    Raises `ModelError` where the model is missing or damaged.
    """
    base, _ = split_adapter(str(name))
    path = find_model(base)
    if not path.is_file():
        check_unpickled(path)
        config = _config(path)  # first: a folder without one holds no model
        return ModelFacts(name=base, path=path, tensors=tuple(_folder_tensors(path)), config=config)
    from ostinato.models.files.gguf import GGUFModel  # 0.14 s of imports

    file = GGUFModel(path)
    tensors = tuple(TensorFacts(*tensor) for tensor in file.tensors())
    return ModelFacts(name=base, path=path, tensors=tensors, config=file.config())


def memory_needed(
    name: str | Path,
    *,
    slots: int = 1,
    length: int = LENGTH,
    compile: bool | None = None,
    bits: int | None = None,
    device: torch.device = CPU,
    adapter: str | None = None,
) -> MemoryNeed:
    """Return what a model needs for `slots` sequences of `length` tokens.

    The other arguments are those of `load_model`. Raises `ModelError` where the model is missing.
    """
    facts = read_facts(name)
    adapted = bool(adapter or split_adapter(str(name))[1])
    if facts.config is not None:
        length = min(length, facts.config.max_position_embeddings)
    dtype = compute_dtype(device)
    config = facts.config
    fits = config is not None and config.family.norm == "rms" and config.hidden_act == "silu"
    compiled = fits and compile is not False and device == CPU
    stored = facts.weight_bytes(dtype, widened=not compiled)
    rounded = {each: round(facts.parameters * size) for each, size in _ROUNDED.items()}
    ways = {f"--int{each}": size for each, size in rounded.items() if compiled and each != bits}
    if facts.stays and not compiled and device == CPU:
        ways["--compile"] = facts.weight_bytes(dtype)
    if facts.path.is_file():
        ways[f"llama.cpp: llama:{facts.path}"] = facts.file_bytes
    if facts.config is not None:
        ways["a GGUF file of it in Q4_K_M"] = round(facts.parameters * _Q4_K_M)
    weights = rounded[bits] if bits else stored
    if adapted and facts.stays and compiled:  # it widens matrices, which are rounded beside that
        weights = facts.weight_bytes(dtype, widened=True) + rounded[8]
    return MemoryNeed(
        facts=facts,
        weights=weights,
        slots=slots,
        length=length,
        slot=facts.cache_bytes(length, torch.bfloat16 if compiled else dtype),
        free=free_memory(device),
        alternatives={way: size for way, size in ways.items() if size < weights},
    )


def check_memory(
    name: str,
    *,
    slots: int = 1,
    compile: bool | None = None,
    bits: int | None = None,
    device: str | None = None,
    adapter: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Refuse a model that does not fit into memory; `say` gets a line about a big one that does.

    The arguments are those of `memory_needed`. llama.cpp, which maps its files, is not checked.
    Raises `ModelError`, which says what would fit.
    """
    if name.startswith(LLAMA):
        return
    where = find_device(device)
    need = memory_needed(
        name, slots=slots, compile=compile, bits=bits, device=where, adapter=adapter
    )
    need.check()
    if need.total > BIG:
        say(
            f"Loading {name}: {size_text(need.total)} of {size_text(need.free)} free ({need.parts})"
        )


def free_memory(device: torch.device = CPU) -> int:
    """Return the bytes that a program can take now without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def size_text(count: int) -> str:
    """Return a number of bytes in words: `4.92 GB`, `91 MB` or `3 kB`."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _config(folder: Path) -> LlamaConfig | None:
    try:
        return LlamaConfig.from_folder(folder)
    except UnknownLayout:
        return None


def _folder_tensors(folder: Path) -> Iterator[TensorFacts]:
    for path in weight_files(folder):
        with reading_weights(path, "Download it again."), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (a safe_open is no mapping)
                part = file.get_slice(name)
                yield TensorFacts(part.get_dtype(), torch.Size(part.get_shape()).numel(), False)
