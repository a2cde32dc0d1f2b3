"""Our network on a CUDA device: each shape of a pass is recorded once as a graph and replayed.

A pass is some hundreds of small operations, which take longer to launch than to compute. Every
pass has one of few shapes: a block of rows or a chunk of a prompt, over the cache padded to a
multiple of 64. Replaying the same graph gives a row the same bits in any batch. Knows no sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ostinato.inference.fixed_shape import FixedShapeBackend
from ostinato.models import LanguageModel, Llama

WARMUP_PASSES = 2  # before recording: in the first, libraries choose algorithms and allocate


class _Graph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    table: Tensor  # the graph reads its tokens, positions and slots here
    output: Tensor | None


class CudaGraphBackend(FixedShapeBackend):
    """`FixedShapeBackend` with its passes recorded as CUDA graphs."""

    def __init__(
        self,
        model: LanguageModel | Llama,
        slots: int,
        *,
        block: int = 64,
        length: int = 512,
        prefill_chunk: int = 64,
    ) -> None:
        """Allocate as `FixedShapeBackend` does; blocks of 64 rows take no longer than 16 here."""
        # Before the base class: its constructor calls `_grow`, which clears the graphs.
        self._graphs: dict[tuple[str, int], _Graph] = {}
        super().__init__(
            model, slots, block=block, length=length, prefill_chunk=prefill_chunk, packed=False
        )

    def _pass(self, table: Tensor, length: int, used: int, consecutive: slice | None) -> Tensor:
        def compute(table: Tensor) -> Tensor:
            # The whole block and gathered slots, whatever is used: a graph has one shape.
            return FixedShapeBackend._pass(self, table, length, self.block, None)

        hidden = self._replay(("block", length), compute, table)
        assert hidden is not None
        return hidden

    def _prompt_pass(self, table: Tensor, length: int, slot: slice | Tensor) -> None:
        def compute(table: Tensor) -> None:
            # The slot is read from the table on the device: a Python slice would be recorded.
            FixedShapeBackend._prompt_pass(self, table, length, table[2, :1])

        self._replay(("prompt", length), compute, table)

    def _replay(
        self, key: tuple[str, int], compute: Callable[[Tensor], Tensor | None], table: Tensor
    ) -> Tensor | None:
        """Replay the graph of a key on `table`; record it the first time."""
        with torch.cuda.device(self.device):
            if key not in self._graphs:
                self._graphs[key] = self._record(compute, table)
            graph, graph_table, output = self._graphs[key]
            graph_table.copy_(table)
            graph.replay()
        return output

    def _record(self, compute: Callable[[Tensor], Tensor | None], table: Tensor) -> _Graph:
        graph_table = table.to(self.device, copy=True)
        # The warm-up runs on a side stream, as PyTorch's documentation of graphs demands.
        side: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARMUP_PASSES):
                compute(graph_table)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = compute(graph_table)
        return _Graph(graph, graph_table, output)

    def _take_over(self, network: Llama) -> bool:
        before = self._weights.addresses()
        changed = super()._take_over(network)
        if self._weights.addresses() != before:
            self._graphs.clear()  # they read the weights where these were
        return changed

    def _grow(self, positions: int) -> None:
        self._graphs.clear()  # they hold addresses of the old cache
        # One pool for all graphs: the output of one is copied before the next is replayed.
        self._pool = torch.cuda.graph_pool_handle()
        super()._grow(positions)
