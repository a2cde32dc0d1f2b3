"""`ostinato doctor`: what this machine offers, what is used of it, and what is missing.

Bug reports paste it, so it names no user and no home folder.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ostinato.cli.models import folder_bytes
from ostinato.cli.options import journal_option, json_option

NAME_WIDTH = 11
READ_BYTES = 768 << 20  # more than the caches of any processor in use hold
WRITE_BYTES = 64 << 20
SYNCS = 5
# Of the dozens that a processor has, those that decide how fast a model runs.
DECISIVE = (
    *("avx2", "fma3", "avx_vnni", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("neon", "dot", "bf16", "i8mm", "sve", "sve2", "sme"),
)
HOMES = re.compile(r"(/home/|/Users/|[A-Za-z]:\\Users\\)[^/\\\s'\"]+")


@dataclass(frozen=True)
class Finding:
    """What is known of one part: a line (or several) to read, and the same as data."""

    text: str
    data: dict[str, Any]


@click.command()
@journal_option()
@json_option
def doctor(journal: Path | None, as_json: bool) -> None:
    """Describe this machine: what is used, how fast it is, what is missing and how to get it.

    Paste it into a bug report: it holds no user names, and no paths but the cache folder's.
    """
    found = {}
    for name, read in _parts(journal).items():
        found[name] = _read(read)
        if not as_json:
            click.echo(f"{name:{NAME_WIDTH}}{without_homes(found[name].text)}")
    if as_json:
        told = {name: _without_homes_inside(finding.data) for name, finding in found.items()}
        click.echo(json.dumps(told))


def _parts(journal: Path | None) -> dict[str, Callable[[], Finding]]:
    return {
        "ostinato": _versions,
        "system": _system,
        "processor": _processor,
        "threads": _threads,
        "kernel": _kernel,
        "gpu": _gpu,
        "memory": _memory,
        "disk": lambda: _disk(journal),
        "cache": _cache,
        "extras": _extras,
        "models": _models,
    }


def _read(read: Callable[[], Finding]) -> Finding:
    """Return a finding; a part that cannot be read says why, and the others are still told."""
    try:
        return read()
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error)
        told = f"{type(error).__name__}: {reason}"
        return Finding(f"cannot be read: {told}", {"error": told})


def without_homes(text: str) -> str:
    """Return a text with every user's home folder as ~."""
    home = os.path.expanduser("~")  # "~" itself for a user without one
    if len(home) > 1:  # not /, the home of a container's user
        text = re.sub(re.escape(home) + r"(?=[/\\\s'\":,;.)]|$)", "~", text)
    return HOMES.sub("~", text)


def _without_homes_inside(value: Any) -> Any:
    if isinstance(value, str):
        return without_homes(value)
    if isinstance(value, dict):
        return {key: _without_homes_inside(one) for key, one in value.items()}
    return [_without_homes_inside(one) for one in value] if isinstance(value, list) else value


# The machine ----------------------------------------------------------------------------------


def _versions() -> Finding:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    version, torch = map(importlib.metadata.version, ("ostinato", "torch"))
    return Finding(
        f"{version}, {python}, PyTorch {torch}",
        {"version": version, "python": python, "torch": torch},
    )


def _system() -> Finding:
    name = _distribution() or f"{platform.system()} {platform.release()}"
    libc = " ".join(platform.libc_ver()).strip()
    text = ", ".join(filter(None, [name, platform.machine(), libc]))
    return Finding(text, {"name": name, "machine": platform.machine(), "libc": libc})


def _distribution() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):  # not Linux, or a container without the file
        return ""
    return f"{name}, Linux {platform.release()}"


def _processor() -> Finding:
    from ostinato.models import instruction_sets, processor_name

    name, features, cores = processor_name(), instruction_sets(), _usable_cores()
    decisive = " ".join(one for one in DECISIVE if one in features)
    sets = decisive or ("older than AVX2" if features else "instruction sets unknown")
    there = f" of {os.cpu_count()}" if os.cpu_count() != cores else ""
    return Finding(
        f"{name}, {cores}{there} cores usable: {sets}",
        {"name": name, "cores": cores, "instruction_sets": sorted(features)},
    )


def _usable_cores() -> int:
    import psutil

    process = psutil.Process()
    # macOS has no affinity.
    usable = process.cpu_affinity() if hasattr(process, "cpu_affinity") else None
    return len(usable) if usable else os.cpu_count() or 1


def _threads() -> Finding:
    import torch

    threads = torch.get_num_threads()
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")
    settings = {name: os.environ.get(name) for name in names}
    told = ", ".join(f"{name}={value or 'not set'}" for name, value in settings.items())
    return Finding(f"{threads}, {told}", {"threads": threads, **settings})


def _kernel() -> Finding:
    from ostinato.errors import ModelError
    from ostinato.inference import find_kernel

    try:
        kernel = find_kernel()
    except ModelError as error:
        return Finding(f"none: {error}", {"missing": str(error)})
    tiles = kernel.has_tiles()
    return Finding(
        f"{kernel}{', matrix tiles' * tiles}: {kernel.reason}",
        {
            "carried": kernel.carried,
            "march": kernel.march,
            "compiler": kernel.compiler,
            "tiles": tiles,
            "reason": kernel.reason,
        },
    )


def _gpu() -> Finding:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(number) for number in range(count)]
    return Finding(", ".join(names) or "none that PyTorch finds", {"names": names})


def _memory() -> Finding:
    import psutil

    from ostinato.models import CPU, read_gb_s

    memory = psutil.virtual_memory()
    gb_s = read_gb_s(CPU, min(READ_BYTES, memory.available // 4))
    return Finding(
        f"{_size(memory.total)}, {_size(memory.available)} free, read at {gb_s:.1f} GB/s",
        {"total": memory.total, "free": memory.available, "read_gb_s": round(gb_s, 2)},
    )


# The disk -------------------------------------------------------------------------------------


def _disk(journal: Path | None) -> Finding:
    from ostinato.journal import DEFAULT

    folder = _existing((journal or DEFAULT).absolute().parent)
    free = shutil.disk_usage(folder).free
    data: dict[str, Any] = {"free": free}
    text = f"{_size(free)} free for the journal"
    if free < 4 * WRITE_BYTES:
        return Finding(f"{text}, too little to measure", data)
    speed, seconds = _write_speed(folder)
    data |= {"write_mb_s": round(speed / 1e6, 1), "sync_ms": round(seconds * 1e3, 3)}
    synced = f"a small synced write takes {seconds * 1e3:.1f} ms"
    return Finding(f"{text}, written at {_size(speed)}/s, {synced}", data)


def _size(count: float) -> str:
    from ostinato.models import size_text

    return size_text(int(count))


def _existing(folder: Path) -> Path:
    """Return the folder, or else its nearest parent that is there."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _write_speed(folder: Path) -> tuple[float, float]:
    """Return the bytes per second of a long synced write, and the seconds of a short one."""
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        _write_synced(file.fileno(), os.urandom(1 << 20) * (WRITE_BYTES >> 20))
        speed = WRITE_BYTES / (time.perf_counter() - start)
        seconds = []
        for _ in range(SYNCS):
            start = time.perf_counter()
            _write_synced(file.fileno(), bytes(4096))
            seconds.append(time.perf_counter() - start)
    return speed, statistics.median(seconds)


def _write_synced(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
    os.fsync(file)


def _cache() -> Finding:
    from ostinato.inference import is_private
    from ostinato.models import cache_root

    root = cache_root()
    data: dict[str, Any] = {"path": str(root), "writable": os.access(_existing(root), os.W_OK)}
    writable = "" if data["writable"] else ", not writable: set OSTINATO_CACHE to a folder that is"
    if not root.is_dir():
        return Finding(f"{root}, not there yet{writable}", data)
    sizes = {path.name: folder_bytes(path) for path in sorted(root.iterdir()) if path.is_dir()}
    data |= {"bytes": sizes, "private": is_private(root)}
    inside = ", ".join(f"{name} {_size(size)}" for name, size in sizes.items())
    shared = "" if data["private"] else ", not private: others may write to it or own it"
    return Finding(f"{root}: {inside or 'empty'}{writable}{shared}", data)


# What is installed ----------------------------------------------------------------------------


def _extras() -> Finding:
    extras = _packages_of_extras()
    installed = [extra for extra in extras if all(map(_is_installed, extras[extra]))]
    missing = [extra for extra in extras if extra not in installed]
    commands = {extra: f"pip install 'ostinato[{extra}]'" for extra in missing}
    lines = [", ".join(installed) or "none installed", *map(_indented, commands.values())]
    return Finding("\n".join(lines), {"installed": installed, "missing": commands})


def _packages_of_extras() -> dict[str, list[str]]:
    """Return the packages that each extra needs."""
    extras: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("ostinato") or []:
        found = re.fullmatch(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)['\"].*", requirement)
        if found:
            extras.setdefault(found[2], []).append(found[1])
    return extras


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _models() -> Finding:
    from ostinato.models import CATALOG, is_installed

    installed = [name for name in CATALOG if is_installed(name)]
    commands = {n: f"ostinato models get {n}" for n in CATALOG if n not in installed}
    lines = [", ".join(installed) or "none installed", *map(_indented, commands.values())]
    return Finding("\n".join(lines), {"installed": installed, "missing": commands})


def _indented(command: str) -> str:
    return f"{'':{NAME_WIDTH}}missing: {command}"
