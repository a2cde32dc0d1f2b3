"""Our network on a CUDA device: each shape of a pass is recorded once as a graph, and replayed.

A pass is some hundreds of small operations, which take longer to launch than to compute. Each is of
one shape here: a block of rows or a chunk of a prompt, over the cache up to a multiple of 64. So
the same bits in any company follow from the same graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ostinato.inference.fixed_shape import FixedShapeBackend
from ostinato.models import LanguageModel, Llama

TRIES = 2  # before recording: libraries choose and allocate in the first


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    given: Tensor
    made: Tensor | None


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
        """Make room as `FixedShapeBackend` does; `block` is larger, as more rows take no longer here."""
        self._recorded: dict[tuple[str, int], _Recorded] = {}
        super().__init__(
            model, slots, block=block, length=length, prefill_chunk=prefill_chunk, packed=False
        )

    def _pass(self, table: Tensor, length: int, used: int, consecutive: slice | None) -> Tensor:
        def compute(table: Tensor) -> Tensor:
            return FixedShapeBackend._pass(self, table, length, self.block, None)

        made = self._replayed(("block", length), compute, table)
        assert made is not None
        return made

    def _prompt_pass(self, table: Tensor, length: int, slot: slice | Tensor) -> None:
        def compute(table: Tensor) -> None:
            FixedShapeBackend._prompt_pass(self, table, length, table[2, :1])

        self._replayed(("prompt", length), compute, table)

    def _replayed(
        self, key: tuple[str, int], compute: Callable[[Tensor], Tensor | None], table: Tensor
    ) -> Tensor | None:
        """Compute what is recorded under a key; record it the first time."""
        with torch.cuda.device(self.device):
            if key not in self._recorded:
                self._recorded[key] = self._record(compute, table)
            graph, given, made = self._recorded[key]
            given.copy_(table)
            graph.replay()
        return made

    def _record(self, compute: Callable[[Tensor], Tensor | None], table: Tensor) -> _Recorded:
        given = table.to(self.device, copy=True)
        aside: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(TRIES):
                compute(given)
        current.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            made = compute(given)
        return _Recorded(graph, given, made)

    def _grow(self, positions: int) -> None:
        self._recorded.clear()  # they write into the cache as it was
        # One pool for all graphs: what one made is copied before the next is replayed.
        self._pool = torch.cuda.graph_pool_handle()
        super()._grow(positions)
