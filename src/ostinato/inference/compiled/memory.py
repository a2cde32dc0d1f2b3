"""Memory in large pages, which the processor reads with fewer look-ups of addresses.

With pages of 2 MB a pass of 16 rows takes 6.5 to 7.0 ms instead of 7.7 (docs/log.md).
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

PAGE = 1 << 21  # bytes
PIECE = 32 * PAGE  # so large that the C library maps new pages instead of reusing small ones
LINE = 64  # bytes of a cache line
_HUGE = 14  # MADV_HUGEPAGE of Linux


class LargePages:
    """Allocates tensors from pieces of memory in large pages; ordinary pages outside Linux.

    A tensor keeps its piece alive.
    """

    def __init__(self) -> None:
        self._rest = torch.empty(0, dtype=torch.uint8)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return an uninitialized tensor aligned to a cache line."""
        size = torch.Size(shape).numel() * dtype.itemsize
        aligned = -(-size // LINE) * LINE
        if aligned > len(self._rest):
            self._rest = _piece(max(aligned, PIECE))
        memory, self._rest = self._rest[:size], self._rest[aligned:]
        return memory.view(dtype).view(*shape)

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return zeros, aligned as `empty`: pieces begin as zeros, and no part is given twice."""
        return self.empty(shape, dtype)

    def copy(self, values: Tensor) -> Tensor:
        """Return a contiguous copy, aligned as `empty`."""
        return self.empty(values.shape, values.dtype).copy_(values)


def _piece(size: int) -> Tensor:
    """Return `size` bytes or more, aligned to a large page: Linux maps only whole ones."""
    # NumPy's zeros are pages that the system fills when they are first used, PyTorch's are written.
    memory = torch.from_numpy(np.zeros(size + PAGE, dtype=np.uint8))
    memory = memory[-memory.data_ptr() % PAGE :]
    if platform.system() == "Linux":
        whole = ctypes.c_size_t(len(memory) // PAGE * PAGE)
        ctypes.CDLL(None).madvise(ctypes.c_void_p(memory.data_ptr()), whole, _HUGE)
    return memory
