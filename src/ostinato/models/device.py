"""Where a network computes: the CPU or a CUDA device. Every choice that depends on it is here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ostinato.errors import InputError
from ostinato.models.processor import instruction_sets

CPU = torch.device("cpu")


def find_device(name: str | None) -> torch.device:
    """Return the device of a name: `cpu` (also None), `cuda`, or `cuda:1` for the second GPU.

    Raises `InputError` for any other name, and for a device that this machine lacks.
    """
    try:
        device = torch.device(name or "cpu")
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"device must be cpu, cuda or cuda:N, got {name!r}. Use one of these.")
    if device.type == "cpu":
        return CPU
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise InputError(
            f"device must be one that PyTorch finds here ({count} CUDA devices), got {name!r}. "
            "Leave it out, or install a build of PyTorch for CUDA: https://pytorch.org"
        )
    # Without it, cuBLAS may choose another workspace, and other bits, from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda", device.index or 0)


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's parameters, the CPU where it has none."""
    first = next(network.parameters(), None)
    return CPU if first is None else first.device


def compute_dtype(device: torch.device = CPU) -> torch.dtype:
    """Return bfloat16 where the device multiplies it fast, else float32.

    A CPU without AVX-512 reached 19 GFLOPS in bfloat16 against 170 in float32 (docs/log.md). One
    that `ONEDNN_MAX_CPU_ISA` holds to such instructions counts as one without.
    """
    if device.type == "cuda":
        # GPUs before Ampere (8.0) emulate it.
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if fast else torch.float32
    fast = not instruction_sets().isdisjoint({"avx512_bf16", "amx_bf16"})
    return torch.bfloat16 if fast and _may_use_bfloat16() else torch.float32


def _may_use_bfloat16() -> bool:
    """Return whether oneDNN, which multiplies for PyTorch, is not held to less than the CPU has."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return limit in ("", "DEFAULT") or any(name in limit for name in ("BF16", "FP16", "AMX"))


@contextmanager
def deterministic_ops(device: torch.device) -> Iterator[None]:
    """Use deterministic algorithms on a CUDA device while the context is open."""
    if device.type == "cpu":  # deterministic anyway
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warn)


def plain_compute_mode(device: torch.device) -> str:
    """Return the compute mode of PyTorch's own operations on a device, as runs record it."""
    return "not compiled" if device == CPU else f"on {device.type}"
