"""Compile `kernel.cpp` for this processor once, and open the shared library.

Knows no network. The library is cached under a hash of everything that determines its code.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from ostinato.errors import ModelError
from ostinato.models import cache_root

SOURCE = Path(__file__).with_name("kernel.cpp")
INCLUDED = (
    "attention.h",
    "groups.h",
    "pack.h",
    "pool.h",
    "products.h",
    "tiles.h",
    "vectors.h",
)
COMPILERS = ("c++", "g++", "clang++")
# -ffp-contract=fast fuses multiplication and addition: faster, and still one order of sums.
FLAGS = ("-O3", "-ffp-contract=fast", "-std=c++17", "-fPIC", "-shared", "-pthread", "-w")
MARCH = "OSTINATO_MARCH"
"""The environment variable that names the processor to compile for, such as x86-64-v3 for AVX2."""
COMPILE_TIMEOUT = 120  # seconds


@cache
def open_kernel() -> ctypes.CDLL:
    """Return the compiled kernel; compile it if the cache folder has none for this machine.

    Its file name is a hash of source, flags, compiler and processor. Raises `ModelError` where no
    compiler is installed, compilation fails, or other users may write to the folder.
    """
    compiler = find_compiler()
    path = cache_root() / "native" / f"{_digest(compiler)}.so"
    if not path.exists():
        compile_to(path, compiler)
    check_private(path.parent)
    try:
        kernel = ctypes.CDLL(str(path))
    except OSError:  # a damaged file
        path.unlink(missing_ok=True)
        compile_to(path, compiler)
        kernel = _opened(path)
    for number in (kernel.ask_tiles, kernel.most_rows, kernel.scratch_floats):
        number.restype = ctypes.c_int64
    kernel.forward.restype = kernel.pack.restype = kernel.product.restype = None
    return kernel


def check_private(folder: Path) -> None:
    """Refuse a folder where other users could place code that would run here."""
    about = folder.stat()
    if about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ModelError(
            f"{folder} must be yours and writable by you alone, as compiled code runs from it, "
            f"got mode {stat.S_IMODE(about.st_mode):o} of user {about.st_uid}. Remove it, or set "
            "OSTINATO_CACHE to another folder."
        )


def _opened(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ModelError(
            f"{path} must be a loadable library, got: {error}. Set OSTINATO_CACHE to a folder from "
            "which code may run, or leave out compile."
        ) from None


def find_compiler() -> str:
    """Return the path of the C++ compiler: CXX, else the first of `COMPILERS` on the path."""
    chosen = os.environ.get("CXX")
    names = (chosen,) if chosen else COMPILERS
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    raise ModelError(
        f"a C++ compiler must be installed to compile a model, got none of {', '.join(names)}. "
        "Install g++, or leave out compile."
    )


def has_compiler() -> bool:
    """Return whether a C++ compiler is installed."""
    try:
        find_compiler()
    except ModelError:
        return False
    return True


def compile_to(path: Path, compiler: str) -> None:
    """Compile the kernel."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # In the same folder, so that the rename below stays within one file system.
        handle, name = tempfile.mkstemp(dir=path.parent)
    except OSError as error:
        raise ModelError(
            f"{path.parent} must be writable for compiled code, got: {error}. Free some space, or "
            "leave out compile."
        ) from None
    os.close(handle)
    unfinished = Path(name)
    try:
        failure = _compile(compiler, unfinished)
        if failure is None:
            unfinished.replace(path)  # atomic: another process sees the whole file or none
            return
    finally:
        unfinished.unlink(missing_ok=True)
    raise ModelError(
        f"{compiler} must compile {SOURCE.name}, got: {failure.strip()[:300]}. "
        f"Set CXX to another compiler or {MARCH} to another processor, or leave out compile."
    )


def _compile(compiler: str, out: Path) -> str | None:
    """Compile into a file; return the compiler's message where it failed."""
    command = [compiler, *_flags(), "-o", str(out), str(SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr or "no message"


def _flags() -> tuple[str, ...]:
    return (*FLAGS, f"-march={os.environ.get(MARCH) or 'native'}")


def _digest(compiler: str) -> str:
    version = _version(compiler)
    sources = [SOURCE, *map(SOURCE.with_name, INCLUDED)]
    parts = [path.read_text(encoding="utf-8") for path in sources]
    parts += [*_flags(), version, platform.machine(), _processor()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _version(compiler: str) -> str:
    command = [compiler, "--version"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelError(
            f"{compiler} must run as a C++ compiler, got: {error}. Set CXX to another compiler, or "
            "leave out compile."
        ) from None


def _processor() -> str:
    """Return the features of the processor, by which `-march=native` chooses instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
