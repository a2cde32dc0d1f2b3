"""Imports Python files that the user names: once, and under names that hide no other module."""

from __future__ import annotations

import importlib.util
import sys
import types
from hashlib import sha256
from pathlib import Path

from ostinato.errors import InputError


def module_at(path: Path, what: str, *, imports_beside: bool = False) -> types.ModuleType:
    """Import a file; `what` it is begins the message of an error.

    `imports_beside`: the file may import others of its folder, as a program does. Raises
    `InputError` where it cannot be imported.
    """
    name = f"ostinato_file_{sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{what} must be a Python file (.py), got {path.name}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if imports_beside and str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(
            f"{what} must import, got {type(error).__name__}: {error} in {path.name}. Fix it there."
        ) from error
    return module
