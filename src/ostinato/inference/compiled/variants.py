"""The kernels that a wheel carries, one for each of some families of processors.

Knows no network and imports nothing of ours: `hatch_build.py` reads it while the wheel is built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("kernel.cpp")
CARRIED = Path(__file__).with_name("carried")
"""The folder of the carried kernels; only an installed wheel has it."""
RECORD = "kernels.json"
"""The file in `CARRIED` that says by which compiler they were built."""
COMPILERS = ("c++", "g++", "clang++")
# The kernel says itself where to fuse multiplication and addition: compilers choose differently.
FLAGS = ("-O3", "-ffp-contract=off", "-std=c++17", "-fPIC", "-shared", "-pthread", "-w")
# The library of C++ goes in, and of it only what is used: so the kernel needs an older glibc.
# Not the library of GCC, whose static form needs a newer one; PyTorch needs the shared one anyway.
CARRIED_FLAGS = (
    "-static-libstdc++",
    "-ffunction-sections",
    "-fdata-sections",
    "-Wl,--gc-sections",
    "-Wl,--exclude-libs,ALL",
    "-s",
)
COMPILE_TIMEOUT = 300  # seconds


@dataclass(frozen=True)
class Variant:
    """A kernel for every processor that has some instruction sets."""

    march: str
    """Its name, and the value of OSTINATO_MARCH that picks it."""
    title: str
    flags: tuple[str, ...]
    needs: frozenset[str]
    """Instruction sets that the flags let the compiler use, as `ostinato.models` names them."""

    def runs_on(self, features: Collection[str]) -> bool:
        """Return whether a processor with these instruction sets can run it."""
        return self.needs <= frozenset(features)

    @property
    def file(self) -> str:
        """The name of its shared library."""
        return f"{self.march}.so"


# Each processor with AVX2 and FMA has the rest of x86-64-v3: BMI, F16C, LZCNT and MOVBE.
_AVX2 = frozenset({"avx2", "fma3"})
_AVX512 = _AVX2 | {"avx512_f", "avx512_bw", "avx512_cd", "avx512_dq", "avx512_vl", "avx512_vnni"}
_AMX = _AVX512 | {"avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"}

VARIANTS = (
    Variant(
        "sapphirerapids",
        "AMX",
        # Not -march=sapphirerapids, which allows a dozen more that `needs` would have to list.
        (
            "-march=x86-64-v4",
            "-mavx512vnni",
            "-mavx512bf16",
            "-mamx-tile",
            "-mamx-bf16",
            "-mamx-int8",
            "-mtune=sapphirerapids",
        ),
        _AMX,
    ),
    # With VNNI: Cascade Lake, Ice Lake, Zen 4 and all that came later. Skylake-X has none: AVX2.
    Variant("x86-64-v4", "AVX-512", ("-march=x86-64-v4", "-mavx512vnni"), _AVX512),
    Variant(
        "alderlake",
        "AVX2 with VNNI",
        ("-march=x86-64-v3", "-mavxvnni"),
        _AVX2 | {"avx_vnni"},
    ),
    Variant("x86-64-v3", "AVX2", ("-march=x86-64-v3",), _AVX2),
)
"""Best first."""


def best_variant(features: Collection[str], names: Collection[str]) -> Variant | None:
    """Return the best of the variants `names` that a processor with `features` can run."""
    return next((v for v in VARIANTS if v.march in names and v.runs_on(features)), None)


def named_variant(march: str) -> Variant | None:
    """Return the variant of a name; None for another processor's name."""
    return next((variant for variant in VARIANTS if variant.march == march), None)


def carried_names(folder: Path = CARRIED) -> list[str]:
    """Return the names of the variants that this installation carries, best first."""
    return [v.march for v in VARIANTS if (folder / v.file).is_file()]


def built_by(folder: Path = CARRIED) -> str:
    """Return the compiler that built the carried kernels, in words."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "an unknown compiler"
    return str(record["compiler"])


# While a wheel is built -----------------------------------------------------------------------


def compiler_path() -> str | None:
    """Return the path of the C++ compiler: CXX, else the first of `COMPILERS` on the path."""
    chosen = os.environ.get("CXX")
    names = (chosen,) if chosen else COMPILERS
    return next((found for name in names if (found := shutil.which(name))), None)


def compile_kernel(compiler: str, flags: Sequence[str], out: Path) -> str | None:
    """Compile the kernel into a file; return the compiler's message where it failed."""
    command = [compiler, *FLAGS, *flags, "-o", str(out), str(SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr or "no message"


def predefined_macros(compiler: str, flags: Sequence[str]) -> str:
    """Return what the compiler defines by itself: its version, and the instructions it may use.

    Raises `OSError` or `subprocess.SubprocessError` where it does not run.
    """
    command = [compiler, *flags, "-x", "c++", "-dM", "-E", "-"]
    options = {"capture_output": True, "text": True, "timeout": COMPILE_TIMEOUT}
    done = subprocess.run(command, input="", check=True, **options)  # type: ignore[call-overload]
    return str(done.stdout)


def compiler_name(macros: str) -> str:
    """Return a compiler's name and version in words, such as g++ 12.2.0, from its macros."""
    defined = dict(re.findall(r"^#define (\w+) (.*)$", macros, re.M))
    kind = "clang" if "__clang__" in defined else "g++" if "__GNUC__" in defined else "compiler"
    version = defined.get("__VERSION__", "").strip('"')
    number = re.search(r"\d+(\.\d+)+", version)
    return f"{kind} {number[0]}" if number else kind


def build_variants(compiler: str, folder: Path) -> Mapping[str, str]:
    """Compile every variant into a folder; return the messages of those that failed, by name."""
    failures = {}
    for variant in VARIANTS:
        flags = (*variant.flags, *CARRIED_FLAGS)
        failure = compile_kernel(compiler, flags, folder / variant.file)
        if failure is not None:
            failures[variant.march] = failure
    record = {
        "compiler": compiler_name(predefined_macros(compiler, ())),
        "flags": {v.march: " ".join((*FLAGS, *v.flags)) for v in VARIANTS},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return failures


def glibc_needed(libraries: Sequence[Path]) -> tuple[int, int]:
    """Return the newest version of glibc whose symbols these libraries use, at least 2.17."""
    # The names of versions stand in the libraries as they are: nobody needs a reader of ELF files.
    found = [
        (int(major), int(minor))
        for library in libraries
        for major, minor in re.findall(rb"\bGLIBC_(\d+)\.(\d+)", library.read_bytes())
    ]
    return max([(2, 17), *found])
