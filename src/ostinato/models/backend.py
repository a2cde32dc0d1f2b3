"""What computes tokens for lanes: the seam between `Decode` and networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ostinato.models.blocks import Counts
from ostinato.models.graph_inference import GraphInference
from ostinato.models.gru import GRU
from ostinato.models.gru_inference import GRUInference
from ostinato.models.inference import Inference
from ostinato.models.llama_cpp_inference import LlamaCppInference
from ostinato.models.llama_cpp_network import LlamaCppNetwork
from ostinato.models.load import LanguageModel
from ostinato.models.native import NativeInference
from ostinato.models.self_test import SelfTest
from ostinato.models.transformers_inference import TransformersInference
from ostinato.models.transformers_network import TransformersNetwork


class Backend(Protocol):
    """Places side by side, each with what a network remembers of one sequence.

    The bits of a row are a function of its place's tokens, and of which of them came as a prompt.
    `prefill_chunk` is the length of which a kept prompt must be a multiple to be gone on with.
    """

    places: int
    prefill_chunk: int
    counts: Counts

    @property
    def vocab_size(self) -> int:
        """The number of logits."""
        ...

    @property
    def limit(self) -> int:
        """The most tokens that a sequence may have."""
        ...

    def prefill(self, place: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute a prompt's tokens at `start`, a multiple of `prefill_chunk`, and on."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` positions of `source`."""
        ...

    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute rows (place, token, position); return hidden states (n, C).

        Feeding at an earlier position is going back there.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, V) in float32 at what `feed` returned."""
        ...

    def self_test(self) -> SelfTest:
        """Tell whether a row gives the same bits alone and in company. Before places are used."""
        ...


def way_of(model: LanguageModel, backend: Backend) -> str:
    """Return how a backend computes the tokens of `model`, in words: other ways give other bits."""
    tiles = isinstance(backend, NativeInference) and backend.tiles
    return f"{model.way}, by matrix tiles" if tiles else model.way


def open_backend(model: LanguageModel, places: int, *, block: int = 16) -> Backend:
    """Return what computes the tokens of `model` for `places` sequences side by side.

    `block` is the rows of a product where one is padded: not of a compiled model, whose bits do not
    depend on it, nor on a CUDA device, where it is 64.
    """
    if isinstance(model.network, TransformersNetwork):
        return TransformersInference(model.network, places, block=block)
    if isinstance(model.network, LlamaCppNetwork):
        return LlamaCppInference(model.network, places, block=block)
    if isinstance(model.network, GRU):
        return GRUInference(model.network, places, block=block)
    if model.compiled:
        return NativeInference(model.llama(), places, int8=model.int8)
    if model.device.type == "cuda":
        return GraphInference(model, places)
    return Inference(model, places, block=block)
