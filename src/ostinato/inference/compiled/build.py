"""Choose the kernel for this processor: one that the wheel carries, or one compiled here once.

Knows no network. A compiled one is cached under a hash of everything that determines its code.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ostinato.errors import ModelError
from ostinato.inference.compiled.variants import (
    CARRIED,
    COMPILERS,
    FLAGS,
    SOURCE,
    Variant,
    best_variant,
    built_by,
    carried_names,
    compile_kernel,
    compiler_name,
    compiler_path,
    named_variant,
    predefined_macros,
)
from ostinato.models import cache_root, file_hash, instruction_sets, write_atomically
from ostinato.waiting import waiting

MARCH = "OSTINATO_MARCH"
"""The environment variable that names the processor to compute for, such as x86-64-v3 for AVX2."""
NONE_CARRIED = "this installation carries no kernel"


@dataclass(frozen=True)
class Kernel:
    """The compiled kernel of this machine, and why it is this one."""

    library: ctypes.CDLL
    march: str
    """The processor that it is for, as compilers name it."""
    carried: bool
    compiler: str
    reason: str

    def __str__(self) -> str:
        """Return it in words, such as "carried, AVX2 (x86-64-v3), built by g++ 12.2.0"."""
        if not self.carried:
            return f"compiled here by {self.compiler} for {self.march}"
        variant = named_variant(self.march)
        title = variant.title if variant else "unknown"
        return f"carried, {title} ({self.march}), built by {self.compiler}"

    def has_tiles(self) -> bool:
        """Ask the system for the processor's matrix tiles; return whether they can be used."""
        return bool(self.library.ask_tiles())


@cache
def open_kernel() -> ctypes.CDLL:
    """Return the library of `find_kernel`, with the types of its functions."""
    kernel = find_kernel().library
    for number in (kernel.ask_tiles, kernel.most_rows, kernel.scratch_floats):
        number.restype = ctypes.c_int64
    kernel.forward.restype = kernel.pack.restype = kernel.product.restype = None
    return kernel


@cache
def kernel_hash() -> str:
    """Return the hash of the kernel's file; the file may be gone later."""
    return file_hash(Path(open_kernel()._name))


def find_kernel() -> Kernel:
    """Return the best carried kernel that the processor supports, else compile one once.

    OSTINATO_MARCH chooses another. Raises `ModelError` where the processor lacks what it asks for,
    where there is neither a carried kernel nor a compiler, where compilation fails, or where other
    users may write to the cache folder.
    """
    variant, reason = _choice(os.environ.get(MARCH), instruction_sets(), carried_names())
    if variant is not None:
        try:
            library = ctypes.CDLL(str(CARRIED / variant.file))
        except OSError as error:  # such as an older glibc than the wheel is for
            reason = f"the carried kernel does not load: {error}"
        else:
            return Kernel(library, variant.march, True, built_by(), reason)
    return _compiled(reason)


def has_kernel() -> bool:
    """Return whether a kernel is carried for this processor, or a compiler could make one."""
    carried = carried_names()
    return best_variant(instruction_sets(), carried) is not None or has_compiler()


def _choice(
    asked: str | None, features: frozenset[str], carried: list[str]
) -> tuple[Variant | None, str]:
    """Return the carried variant to use, None to compile one; and why."""
    if asked:
        variant = named_variant(asked)
        if variant and not variant.runs_on(features):
            raise ModelError(
                f"{MARCH} must name a processor whose instructions this one has, got {asked}, "
                f"which also needs {', '.join(sorted(variant.needs - features))}. Leave it out."
            )
        return variant if asked in carried else None, f"{MARCH} asks for {asked}"
    best = best_variant(features, carried)
    if best is not None:
        return best, f"the best of {len(carried)} that this processor supports"
    if carried:
        return None, "this processor supports no carried kernel"
    return None, NONE_CARRIED


# Compiled here --------------------------------------------------------------------------------


def _compiled(reason: str) -> Kernel:
    """Return the kernel compiled for this machine; compile it if the cache folder has none."""
    compiler = find_compiler(reason)
    macros = _macros(compiler)
    path = _path(macros)
    if path.parent.exists():
        check_private(path.parent)
    if not _is_whole(path):  # a cut library is not refused by the loader: it ends the process
        with waiting("Compiling code for this processor, once…"):
            compile_to(path, compiler)
    check_private(path.parent)
    library = _opened(path)
    march = os.environ.get(MARCH) or "native"
    return Kernel(library, march, False, compiler_name(macros), reason)


def _path(macros: str) -> Path:
    return cache_root() / "native" / f"{_digest(macros)}.so"


def _is_whole(path: Path) -> bool:
    """Return whether a compiled library is there as it was written."""
    try:
        return path.with_suffix(".sha256").read_text(encoding="ascii") == file_hash(path)
    except (OSError, ValueError):
        return False


def is_private(folder: Path) -> bool:
    """Return whether a folder is this user's, and writable by no other."""
    if not hasattr(os, "getuid"):  # Windows, where a user's cache folder is that user's alone
        return True
    about = folder.stat()
    return about.st_uid == os.getuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def check_private(folder: Path) -> None:
    """Refuse a folder where other users could place code that would run here."""
    if not is_private(folder):
        about = folder.stat()
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


def find_compiler(reason: str = NONE_CARRIED) -> str:
    """Return the path of the C++ compiler: CXX, else the first of `COMPILERS` on the path.

    `reason` says in the error why one is needed.
    """
    found = compiler_path()
    if found is not None:
        return found
    names = os.environ.get("CXX") or ", ".join(COMPILERS)
    ways = ["Install g++"]
    if reason == NONE_CARRIED and (sys.platform, platform.machine()) == ("linux", "x86_64"):
        ways.append("install Ostinato from its wheel, which carries kernels")
    if os.environ.get(MARCH):
        ways.append(f"leave out {MARCH}")
    raise ModelError(
        f"a C++ compiler must be installed to compile a model, got none of {names} ({reason}). "
        f"{', or '.join([*ways, 'leave out compile'])}."
    )


def has_compiler() -> bool:
    """Return whether a C++ compiler is installed."""
    return compiler_path() is not None


def compile_to(path: Path, compiler: str) -> None:
    """Compile the kernel."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # In the same folder, so that the rename below stays within one file system.
        handle, name = tempfile.mkstemp(dir=path.parent)
    except OSError as error:
        raise ModelError(
            f"{path.parent} must be a writable folder for compiled code, got: {error}. Set "
            "OSTINATO_CACHE to another folder, or leave out compile."
        ) from None
    os.close(handle)
    unfinished = Path(name)
    try:
        failure = compile_kernel(compiler, _march_flags(), unfinished)
        if failure is None:
            # The hash last: a library without one, or with another, is compiled again.
            unfinished.replace(path)
            write_atomically(path.with_suffix(".sha256"), file_hash(path))
            return
    finally:
        unfinished.unlink(missing_ok=True)
    raise ModelError(
        f"{compiler} must compile {SOURCE.name}, got: {_first_error(failure)}. "
        f"Set CXX to another compiler or {MARCH} to another processor, or leave out compile."
    )


def _march_flags() -> tuple[str, ...]:
    asked = os.environ.get(MARCH) or "native"
    variant = named_variant(asked)
    return variant.flags if variant else (f"-march={asked}",)


def _digest(macros: str) -> str:
    sources = [SOURCE, *sorted(SOURCE.parent.glob("*.h"))]
    parts = [path.read_text(encoding="utf-8") for path in sources]
    parts += [*FLAGS, *_march_flags(), macros]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _macros(compiler: str) -> str:
    """Return the predefined macros: they tell what `-march=native` is, on every system."""
    try:
        return predefined_macros(compiler, _march_flags())
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelError(
            f"{compiler} must run as a C++ compiler, got: {_told(error)}. Set CXX to another "
            f"compiler or {MARCH} to another processor, or leave out compile."
        ) from None


def _told(error: Exception) -> str:
    """Return what a compiler printed, or else the error itself."""
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        return _first_error(str(error.stderr))
    return str(error)


def _first_error(printed: str) -> str:
    """Return the line of a compiler's output that says what is wrong."""
    lines = printed.strip().splitlines() or ["no message"]
    return next((line for line in lines if "error:" in line), lines[0])[:300]
