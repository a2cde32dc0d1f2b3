"""Compiles `kernel.cpp` for this processor once, and opens what came out."""

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
INCLUDED = ("attention.h", "products.h", "tiles.h", "vectors.h")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-fPIC", "-shared", "-w")
SECONDS = 120


@cache
def open_kernel() -> ctypes.CDLL:
    """Return the compiled kernel, made now where this machine has none yet.

    It is kept in the cache folder under a hash of its source, flags, compiler and processor.
    Raises `ModelError` where there is no compiler, or it fails, or others may write to the folder.
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
    kernel.scratch_floats.restype = kernel.ask_tiles.restype = ctypes.c_int64
    kernel.forward.restype = kernel.product.restype = None
    return kernel


def check_private(folder: Path) -> None:
    """Refuse a folder into which others could put code that is run here."""
    about = folder.stat()
    if about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ModelError(
            f"{folder} must be yours and writable by you alone, as compiled code is run from it; "
            f"got mode {stat.S_IMODE(about.st_mode):o} of user {about.st_uid}. Remove it, or name "
            "another folder in OSTINATO_CACHE."
        )


def _opened(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ModelError(
            f"{path} must be opened as compiled code, got: {error}. Name a cache folder from which "
            "code may run in OSTINATO_CACHE, or leave out compile."
        ) from None


def find_compiler() -> str:
    """Return the path of the C++ compiler: CXX, else the first of `COMPILERS` that is there."""
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
    """Tell whether a C++ compiler is there."""
    try:
        find_compiler()
    except ModelError:
        return False
    return True


def compile_to(path: Path, compiler: str) -> None:
    """Compile the kernel; where the compiler knows no OpenMP, for one thread."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=path.parent)
    except OSError as error:
        raise ModelError(
            f"compiled code must be kept in {path.parent}, got: {error}. Make room there, or leave "
            "out compile."
        ) from None
    os.close(handle)
    unfinished = Path(name)
    try:
        said = _compiled(compiler, unfinished)
        if said is None:
            unfinished.replace(path)  # whole or not at all, also beside another process
            return
    finally:
        unfinished.unlink(missing_ok=True)
    raise ModelError(
        f"{compiler} must compile {SOURCE.name}, got: {said.strip()[:300]}. "
        "Name another compiler in CXX, or leave out compile."
    )


def _compiled(compiler: str, out: Path) -> str | None:
    """Compile into a file; return what the compiler said where it failed."""
    said = ""
    for more in (("-fopenmp",), ()):
        command = [compiler, *FLAGS, *more, "-o", str(out), str(SOURCE)]
        try:
            made = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        if made.returncode == 0:
            return None
        said = said or made.stderr
    return said or "nothing"


def _digest(compiler: str) -> str:
    version = _version(compiler)
    sources = [SOURCE, *map(SOURCE.with_name, INCLUDED)]
    parts = [path.read_text(encoding="utf-8") for path in sources]
    parts += [*FLAGS, version, platform.machine(), _processor()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _version(compiler: str) -> str:
    command = [compiler, "--version"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelError(
            f"{compiler} must run as a C++ compiler, got: {error}. Name another in CXX, or leave "
            "out compile."
        ) from None


def _processor() -> str:
    """Return what tells processors apart for which the compiler makes other code."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
