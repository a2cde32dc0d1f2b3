"""The seam between `Decode` and networks: what computes the tokens of many lanes.

Knows no sampling and no lanes: a backend sees slots, tokens and positions.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any, Protocol

from torch import Tensor, nn

from ostinato.errors import InputError, ModelError
from ostinato.inference.compiled.backend import CompiledBackend, check_compiled
from ostinato.inference.compiled.build import has_kernel
from ostinato.inference.cuda_graphs import CudaGraphBackend
from ostinato.inference.fastest import candidates, fastest, plain_dtype
from ostinato.inference.fixed_shape import FixedShapeBackend
from ostinato.inference.gru_backend import GRUBackend
from ostinato.inference.llama_cpp_backend import LlamaCppBackend
from ostinato.inference.row_blocks import Counts
from ostinato.inference.self_test import SelfTest
from ostinato.inference.transformers_backend import TransformersBackend
from ostinato.models import (
    CPU,
    GRU,
    LanguageModel,
    Llama,
    LlamaCppNetwork,
    TransformersNetwork,
    check_memory,
)


class Backend(Protocol):
    """Slots side by side, each with a network's state of one sequence (a KV cache, or states).

    The bits of a row depend on its slot's tokens, and on which of them came as a prompt.
    A prompt can be continued at multiples of `prefill_chunk` only.
    """

    slots: int
    prefill_chunk: int
    counts: Counts

    @property
    def compute_mode(self) -> str:
        """How tokens are computed. Other modes give other bits, so a run keeps its own."""
        ...

    @property
    def vocab_size(self) -> int:
        """The number of logits, V."""
        ...

    @property
    def limit(self) -> int:
        """The maximum length of a sequence, in tokens."""
        ...

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute a prompt's tokens from position `start` on, a multiple of `prefill_chunk`."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of the slot `source` to the slot `target`."""
        ...

    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute rows (slot, token, position); return hidden states (n, C).

        Feeding an earlier position rewinds the slot to it.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, V) in float32 of what `feed` returned."""
        ...

    def update(self, network: nn.Module | None = None) -> bool:
        """Take over the network's weights as they are now; return whether any changed.

        Updates of adapters that are not merged are added on the way. With a `network`, another one
        of the same class and shape, its weights are taken instead, now and later. Only what changed
        is prepared again, and no other backend notices.

        Call it after every change of the weights, before the next computation: in between, a
        backend may compute with some old and some new ones. What slots hold was computed by the old
        weights, so compute it again, from position 0. The bits are those of a backend that is
        opened now, of a network whose adapters are merged. Raises `InputError` for a network that
        does not fit.
        """
        ...

    def self_test(self) -> SelfTest:
        """Report whether a row gives the same bits alone and beside others, perhaps from memory.

        Call it before the slots are used: it overwrites some of them.
        """
        ...


def open_backend(model: LanguageModel, slots: int, *, block: int = 16) -> Backend:
    """Return the backend that computes the tokens of `model` for `slots` sequences.

    Where the model leaves the compute mode open, the fastest one of this machine is taken: the
    first time, it is timed for about a second. `block` is the number of rows that a product is
    padded to. A compiled model has no padding, and a CUDA device uses 64. Adapters need not be
    merged. Raises `ModelError` where `model.compile` is true and there is no kernel for this
    processor, nor a C++ compiler; `InputError` for a network that no kernel or backend supports.
    """
    return backend_for(model.network, model, slots, block=block)


@singledispatch
def backend_for(network: Any, model: LanguageModel, slots: int, *, block: int = 16) -> Backend:
    """Return the backend of a network by its class; see `open_backend`.

    A class of your own brings its backend by `@backend_for.register`, on a function with these
    parameters.
    """
    raise InputError(
        f"the network must be of a class with a backend, got {type(network).__name__}. Register "
        "one with ostinato.inference.backend_for.register."
    )


@backend_for.register
def _transformers_backend(
    network: TransformersNetwork, model: LanguageModel, slots: int, *, block: int = 16
) -> Backend:
    return TransformersBackend(network, slots, block=block)


@backend_for.register
def _llama_cpp_backend(
    network: LlamaCppNetwork, model: LanguageModel, slots: int, *, block: int = 16
) -> Backend:
    return LlamaCppBackend(network, slots, block=block)


@backend_for.register
def _gru_backend(network: GRU, model: LanguageModel, slots: int, *, block: int = 16) -> Backend:
    return GRUBackend(network, slots, block=block)


@backend_for.register
def _llama_backend(network: Llama, model: LanguageModel, slots: int, *, block: int = 16) -> Backend:
    if model.compile is None and model.device == CPU:
        model = fastest(model, can_compile=can_compile(model))
    if model.compile:
        return CompiledBackend(network, slots, bits=model.bits)
    if model.device.type == "cuda":
        return CudaGraphBackend(model, slots)
    return FixedShapeBackend(model, slots, block=block, dtype=plain_dtype(model))


def in_compute_mode(model: LanguageModel, mode: str) -> LanguageModel:
    """Return `model` with a recorded compute mode chosen.

    It is returned as it is where it leaves no mode open, or cannot compute in this one here.
    """
    if model.compile is not None or model.device != CPU or not isinstance(model.network, Llama):
        return model
    name = mode.partition(", by ")[0]  # matrix tiles are the processor's choice
    for candidate in candidates(model, can_compile=can_compile(model)):
        if candidate.mode == name:
            return candidate.model
    return model


def is_compiled(compile: bool | None) -> bool:
    """Return whether a model that the kernel supports may be compiled here; None is the default."""
    # Only these systems and processors have been tested; others must ask with `compile=True`.
    tested = platform.system() in ("Linux", "Darwin") and platform.machine() == "x86_64"
    return (tested and has_kernel()) if compile is None else compile


def check_before_loading(
    name: str,
    *,
    slots: int,
    compile: bool | None,
    bits: int | None,
    device: str,
    adapter: str | None,
    say: Callable[[str], None],
) -> None:
    """Refuse a model that does not fit into memory; `say` gets a line about the memory.

    The arguments are those of `load_model`. Raises `ModelError`, which says what would fit.
    """
    check_memory(
        name,
        slots=slots,
        compile=is_compiled(compile),
        bits=bits,
        device=device,
        adapter=adapter,
        say=say,
    )


def can_compile(model: LanguageModel) -> bool:
    """Return whether the compiled kernel supports this model on this machine.

    Warns where a kernel should work but fails.
    """
    if model.device != CPU or not isinstance(model.network, Llama) or not is_compiled(None):
        return False
    try:
        check_compiled(model.network)
    except InputError:  # the kernel does not support the network
        return False
    except ModelError as error:
        warnings.warn(
            f"The model runs without compiled code, which is slower: {error}", stacklevel=3
        )
        return False
    return True
