"""Hold a benchmark to an instruction set, so that one machine shows what others reach."""

from __future__ import annotations

import argparse
import os
import sys

# What holds our kernel, torch, oneDNN and MKL to an instruction set; read when they are loaded.
ISAS = {
    "avx2": {
        "OSTINATO_MARCH": "x86-64-v3",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "avx512": {
        "OSTINATO_MARCH": "x86-64-v4",
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
    "amx": {"OSTINATO_MARCH": "sapphirerapids"},
    "auto": {},
}


def add_isa(parser: argparse.ArgumentParser) -> None:
    """Add the option `--isa`."""
    parser.add_argument(
        "--isa", choices=ISAS, default="auto", help="the instructions to use [default: all]"
    )


def hold_to(isa: str, module: str) -> None:
    """Start the benchmark `module` anew with the variables of `isa`, unless they are set."""
    if any(os.environ.get(key) != value for key, value in ISAS[isa].items()):
        command = [sys.executable, "-m", f"benchmarks.{module}", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | ISAS[isa])
