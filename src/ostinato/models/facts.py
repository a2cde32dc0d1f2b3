"""What was found out about this machine, kept in the cache folder: self-tests, timings.

A fact is stored under everything that determines it. Losing one costs only the time to find it out
again, so a file that is missing, damaged or not writable is no error. Knows no kind of fact.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ostinato.models.catalog import cache_root
from ostinato.models.device import CPU
from ostinato.models.files.hashing import write_atomically
from ostinato.models.processor import instruction_sets, processor_name

FACTS = "OSTINATO_FACTS"
"""The environment variable that turns facts off: `off` reads, stores and times nothing."""
# Libraries choose other code by these, and so other bits and speeds.
LIBRARY_VARIABLES = ("ATEN_", "BLIS_", "DNNL_", "MKL_", "ONEDNN_", "OPENBLAS_")

Key = Mapping[str, Any]
"""What determines a fact, in JSON values."""

_found: dict[Path, object] = {}  # by this process: for a folder that cannot be written


def facts_are_kept() -> bool:
    """Return whether facts are read and stored."""
    return os.environ.get(FACTS, "").lower() != "off"


def recall(kind: str, key: Key) -> Any:
    """Return the value of a fact, or None where it is not known."""
    if not facts_are_kept():
        return None
    text = _spelled(key)
    path = _path(kind, text)
    if path in _found:
        return _found[path]
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return stored["value"] if _spelled(stored["key"]) == text else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def remember(kind: str, key: Key, value: object) -> None:
    """Store a fact; `value` holds JSON values and is not None."""
    if not facts_are_kept():
        return
    path = _path(kind, _spelled(key))
    _found[path] = value
    with suppress(OSError):
        write_atomically(path, json.dumps({"value": value, "key": key}, indent=1))


def machine() -> dict[str, object]:
    """Return what the speed and the bits of every computation on this CPU depend on."""
    chosen = {name: os.environ[name] for name in os.environ if name.startswith(LIBRARY_VARIABLES)}
    return {
        "torch": torch.__version__,
        "build": _hash(torch.__config__.show()),  # its libraries and their versions
        "processor": processor_name(),
        "features": sorted(instruction_sets()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": bool(torch.backends.mkldnn.enabled),
        "precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "variables": dict(sorted(chosen.items())),
    }


def network_key(network: nn.Module, config: Any) -> dict[str, object]:
    """Return what self-tests of a network on the CPU depend on: its class, shape and types.

    A network that was just made may be full of zeros, which hide differences in the order of sums.
    So which weights begin with zeros is part of it.
    """
    weights = [weight.detach() for weight in network.parameters() if weight.device == CPU]
    return {
        "class": _name(type(network)),
        "config": asdict(config),
        "dtypes": sorted({str(weight.dtype) for weight in weights}),
        "zeros": [i for i, weight in enumerate(weights) if not weight[:1].any()],
    }


def is_known_code(kind: type) -> bool:
    """Return whether a class is part of this package, so that `source_hash` covers its code."""
    return kind.__module__.startswith("ostinato.")


@cache
def source_hash(folder: Path) -> str:
    """Return a hash of a folder's source files: what was found out with other code is not known."""
    sources = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".cpp", ".h"))
    return _hash("\0".join(path.read_text(encoding="utf-8") for path in sources))


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _path(kind: str, text: str) -> Path:
    return cache_root() / "facts" / f"{kind}-{_hash(text)}.json"


def _spelled(key: object) -> str:
    return json.dumps(key, sort_keys=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
