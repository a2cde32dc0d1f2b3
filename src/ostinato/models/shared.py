"""Models that are given by name, loaded once per process.

So that calls one after another with the same name, and a judge beside them, share one network and
what was prepared of it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from ostinato.models.catalog import LLAMA, adapter_folder, split_adapter
from ostinato.models.device import find_device
from ostinato.models.load import LanguageModel, find_model, load_model
from ostinato.models.memory import check_memory

KEPT = 2
"""Models kept at most: two judges may share a job, more would fill the memory."""

_Key = tuple[str, ...]
_State = tuple[tuple[str, int, int], ...]

_models: OrderedDict[_Key, tuple[_State, LanguageModel]] = OrderedDict()
_one_at_a_time = Lock()


def shared_model(name: str, *, slots: int = 1, device: str | None = None) -> LanguageModel:
    """Return the model of a name, the same one as long as its files do not change.

    It is not to be trained: others write with it. `name` and `device` are those of `load_model`;
    `slots` is the number of sequences that must fit into memory beside it. Raises `ModelError` for
    a model that is missing or does not fit.
    """
    with _one_at_a_time:
        paths = _paths(name)
        key = (*(str(path.resolve()) for path in paths), str(find_device(device)))
        # Through llama.cpp or not: the same file is another network.
        key = (LLAMA, *key) if name.startswith(LLAMA) else key
        state = tuple(_stamp(file) for path in paths for file in _files(path))
        kept = _models.get(key)
        if kept is None or kept[0] != state:
            del kept
            _make_room(key)
            check_memory(name, slots=slots, device=device)
            _models[key] = state, load_model(name, device=device)
        _models.move_to_end(key)
        return _models[key][1]


def _make_room(key: _Key) -> None:
    """Drop what another model takes the place of, before that is loaded."""
    _models.pop(key, None)
    while len(_models) >= KEPT:
        _models.popitem(last=False)


def _paths(name: str) -> list[Path]:
    """Return where a model is, and its adapter if it has one."""
    base, adapter = split_adapter(name)
    model = find_model(base.removeprefix(LLAMA))
    return [model, adapter_folder(adapter)] if adapter else [model]


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def _stamp(file: Path) -> tuple[str, int, int]:
    found = os.stat(file)
    return str(file), found.st_mtime_ns, found.st_size
