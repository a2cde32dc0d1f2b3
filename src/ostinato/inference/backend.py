"""What computes tokens for lanes: the seam between `Decode` and networks."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ostinato.errors import InputError, ModelError
from ostinato.inference.compiled.backend import CompiledBackend, check_compiled
from ostinato.inference.compiled.build import has_compiler
from ostinato.inference.cuda_graphs import CudaGraphBackend
from ostinato.inference.fixed_shape import FixedShapeBackend
from ostinato.inference.gru_backend import GRUBackend
from ostinato.inference.llama_cpp_backend import LlamaCppBackend
from ostinato.inference.row_blocks import Counts
from ostinato.inference.self_test import SelfTest
from ostinato.inference.transformers_backend import TransformersBackend
from ostinato.models import CPU, GRU, LanguageModel, Llama, LlamaCppNetwork, TransformersNetwork


class Backend(Protocol):
    """Slots side by side, each with what a network remembers of one sequence.

    The bits of a row are a function of its slot's tokens, and of which of them came as a prompt.
    `prefill_chunk` is the length of which a kept prompt must be a multiple to be gone on with.
    """

    slots: int
    prefill_chunk: int
    counts: Counts

    @property
    def compute_mode(self) -> str:
        """How tokens are computed, in words. Other modes give other bits, so a run keeps its own."""
        ...

    @property
    def vocab_size(self) -> int:
        """The number of logits."""
        ...

    @property
    def limit(self) -> int:
        """The most tokens that a sequence may have."""
        ...

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute a prompt's tokens at `start`, a multiple of `prefill_chunk`, and on."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` positions of `source`."""
        ...

    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute rows (slot, token, position); return hidden states (n, C).

        Feeding at an earlier position is going back there.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, V) in float32 at what `feed` returned."""
        ...

    def self_test(self) -> SelfTest:
        """Tell whether a row gives the same bits alone and in company. Before slots are used."""
        ...


def open_backend(model: LanguageModel, slots: int, *, block: int = 16) -> Backend:
    """Return what computes the tokens of `model` for `slots` sequences side by side.

    `block` is the rows of a product where one is padded: not of a compiled model, whose bits do not
    depend on it, nor on a CUDA device, where it is 64. Raises `ModelError` where `model.compile` is
    true and there is no C++ compiler, `InputError` for a network that the kernel does not know.
    """
    if isinstance(model.network, TransformersNetwork):
        return TransformersBackend(model.network, slots, block=block)
    if isinstance(model.network, LlamaCppNetwork):
        return LlamaCppBackend(model.network, slots, block=block)
    if isinstance(model.network, GRU):
        return GRUBackend(model.network, slots, block=block)
    if model.compile or (model.compile is None and can_compile(model)):
        return CompiledBackend(model.llama(), slots, int8=model.int8)
    if model.device.type == "cuda":
        return CudaGraphBackend(model, slots)
    return FixedShapeBackend(model, slots, block=block)


def can_compile(model: LanguageModel) -> bool:
    """Tell whether a model can be computed by compiled code, on a kind of machine that was tried.

    Warns where there is a compiler and it fails.
    """
    tried = platform.system() in ("Linux", "Darwin") and platform.machine() == "x86_64"
    if not tried or model.device != CPU or not isinstance(model.network, Llama):
        return False
    if not has_compiler():
        return False
    try:
        check_compiled(model.network)
    except InputError:  # the kernel does not know the network
        return False
    except ModelError as error:
        warnings.warn(f"The model is computed without compiled code, slower: {error}", stacklevel=3)
        return False
    return True
