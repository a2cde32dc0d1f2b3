"""The kernel gives the same bits by every compiler and processor, an emulated ARM one included.

`kernel_bits.cpp` compares a row's bits alone, in batches, in prompts and by several threads. Its
hashes are compared here with `data/kernel_bits.txt`, its output. A change of the kernel that shall
change bits writes that file anew.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ostinato.inference.compiled.variants import FLAGS, SOURCE, VARIANTS, compiler_path
from ostinato.models import instruction_sets

FOLDER = Path(__file__).parent
TIMEOUT = 240  # seconds: to compile, and to run emulated
AVX2 = frozenset({"avx2", "fma3"})
AVX512 = AVX2 | {f"avx512_{part}" for part in ("f", "bw", "cd", "dq", "vl")}


@dataclass(frozen=True)
class Build:
    """A compiler, its flags, the instruction sets that these need, and what emulates them."""

    compiler: str
    flags: tuple[str, ...]
    needs: frozenset[str] = frozenset()
    emulator: str | None = None

    def __str__(self) -> str:
        return " ".join((Path(self.compiler).name, *self.flags))

    def missing(self) -> list[str]:
        """Return what this machine lacks to compile and run the program."""
        tools = [self.compiler, *([self.emulator] if self.emulator else [])]
        absent = [tool for tool in tools if shutil.which(tool) is None]
        return absent + sorted(self.needs - instruction_sets())


CXX = compiler_path() or "c++"
FUSED = {"fma3"} if platform.machine() in ("x86_64", "AMD64") else set[str]()
NATIVE = Build(CXX, ("-march=native",), frozenset(FUSED))
PLAIN = Build(CXX, ("-march=x86-64",), frozenset({"sse2"}))
BUILDS = [
    NATIVE,
    *(Build(CXX, variant.flags, variant.needs) for variant in VARIANTS),
    Build(CXX, ("-march=x86-64-v4",), AVX512),
    Build("clang++", ("-march=x86-64-v3",), AVX2),
    *(
        Build("aarch64-linux-gnu-g++", ("-static", march), emulator="qemu-aarch64")
        for march in ("-march=armv8-a", "-march=armv8.2-a+dotprod")
    ),
]


def check_runs_here(build: Build) -> None:
    if missing := build.missing():
        pytest.skip(f"this machine lacks {', '.join(missing)}")


def compiled(build: Build, path: Path, *more: str) -> Path:
    """Compile the program as the kernel is, but for the flags in `more`."""
    flags = [flag for flag in FLAGS if flag not in ("-shared", "-fPIC")]
    files = ["-I", str(SOURCE.parent), str(FOLDER / "kernel_bits.cpp"), "-o", str(path)]
    command = [build.compiler, *flags, *build.flags, *more, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return path


def hashes(build: Build, program: Path) -> dict[str, str]:
    """Run the program, which compares rows; return its hash of each number format."""
    command = [*([build.emulator] if build.emulator else []), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def parsed(text: str) -> dict[str, str]:
    return dict(line.split() for line in text.splitlines())


def check_recorded(found: dict[str, str]) -> None:
    """Compare with the hashes on record; those of matrix tiles where the program has them."""
    recorded = parsed((FOLDER / "data" / "kernel_bits.txt").read_text(encoding="utf-8"))
    assert len(recorded) == 27
    has_tiles = any("tiles" in name for name in found)
    assert found == {n: bits for n, bits in recorded.items() if has_tiles or "tiles" not in n}


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_every_compiler_and_processor_gives_the_same_bits(build: Build, tmp_path: Path) -> None:
    check_runs_here(build)
    check_recorded(hashes(build, compiled(build, tmp_path / "program")))


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
def test_without_fused_instructions_a_row_gives_the_same_bits_in_any_batch(tmp_path: Path) -> None:
    """Other bits than with them."""
    check_runs_here(PLAIN)
    assert len(hashes(PLAIN, compiled(PLAIN, tmp_path / "program"))) == 25


@contextmanager
def busy_programs(count: int) -> Iterator[None]:
    command = [sys.executable, "-c", "while True: pass"]
    started = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for program in started:
            program.kill()
            program.wait()


@pytest.mark.slow
def test_neither_other_programs_nor_optimization_change_bits(tmp_path: Path) -> None:
    check_runs_here(NATIVE)
    program = compiled(NATIVE, tmp_path / "program", "-O1")
    with busy_programs(2):
        for _ in range(3):
            check_recorded(hashes(NATIVE, program))
