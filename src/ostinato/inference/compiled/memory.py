"""Memory in large pages, which take fewer look-ups to read: a tenth of a pass or more here."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence

import torch
from torch import Tensor

PAGE = 1 << 21  # bytes
PIECE = 32 * PAGE  # more than C's library takes from memory that it had before
LINE = 64
_HUGE = 14  # MADV_HUGEPAGE of Linux


class LargePages:
    """Hands out memory of pieces that ask Linux for large pages; elsewhere it is as any other.

    What is handed out keeps its piece.
    """

    def __init__(self) -> None:
        self._rest = torch.empty(0, dtype=torch.uint8)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor that begins at a line of the processor's cache."""
        size = torch.Size(shape).numel() * dtype.itemsize
        room = -(-size // LINE) * LINE
        if room > len(self._rest):
            self._rest = _piece(max(room, PIECE))
        taken, self._rest = self._rest[:size], self._rest[room:]
        return taken.view(dtype).view(*shape)

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return zeros."""
        return self.empty(shape, dtype).zero_()

    def copy(self, values: Tensor) -> Tensor:
        """Return a copy of values, contiguous."""
        return self.empty(values.shape, values.dtype).copy_(values)


def _piece(size: int) -> Tensor:
    memory = torch.empty(size + PAGE, dtype=torch.uint8)
    memory = memory[-memory.data_ptr() % PAGE :]
    if platform.system() == "Linux":
        whole = ctypes.c_size_t(len(memory) // PAGE * PAGE)
        ctypes.CDLL(None).madvise(ctypes.c_void_p(memory.data_ptr()), whole, _HUGE)
    return memory
