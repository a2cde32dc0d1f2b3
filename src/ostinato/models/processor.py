"""What the processor and its memory can do, as PyTorch and a measurement tell it."""

from __future__ import annotations

import platform
import statistics
import time
from functools import cache

import torch

READS = 7


@cache
def instruction_sets() -> frozenset[str]:
    """Return the CPU's instruction sets by PyTorch's names, such as avx2; empty if unknown."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:
        return _of_older_torch()
    return frozenset(name for name, has in capabilities().items() if has is True)


def _of_older_torch() -> frozenset[str]:
    """Return those that decide something here: older PyTorch has no list of all."""
    found: set[str] = set()
    level = torch.backends.cpu.get_cpu_capability()
    if level.startswith("AVX"):
        found |= {"avx2", "fma3"}
    if level.startswith("AVX512"):
        found |= {"avx512_f", "avx512_bw", "avx512_cd", "avx512_dq", "avx512_vl"}
    # Every processor with matrix tiles has them for bfloat16 and for 8 bits.
    for question, names in (
        ("_is_vnni_supported", {"avx512_vnni"}),
        ("_is_avx512_bf16_supported", {"avx512_bf16"}),
        ("_is_amx_tile_supported", {"amx_tile", "amx_bf16", "amx_int8"}),
    ):
        if getattr(torch.cpu, question, bool)():
            found |= names
    return frozenset(found)


def processor_name() -> str:
    """Return the CPU's name, as far as it is known."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    name = capabilities().get("cpu_name") if capabilities else None
    return str(name or platform.processor() or platform.machine())


def read_gb_s(device: torch.device, size: int = 768 << 20) -> float:
    """Return the read bandwidth of memory by all threads, in GB/s.

    Reads `size` bytes several times; choose more than the caches hold.
    """
    numbers = torch.ones(size // 4, device=device)
    seconds = []
    for _ in range(READS):
        start = time.perf_counter()
        float(numbers.sum())
        seconds.append(time.perf_counter() - start)
    return numbers.numel() * 4 / statistics.median(seconds) / 1e9
