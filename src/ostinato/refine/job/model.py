"""The part of a job file that says which model writes, and how it computes. Loads no model."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError
from ostinato.models import LLAMA, is_hub_name, known_models, shipped_adapters
from ostinato.refine.job.toml_reader import Table
from ostinato.remote import Server, is_server

DEVICE = re.compile(r"cpu|cuda(:(0|[1-9][0-9]*))?")


def read_weights(root: Table, folder: Path, key: str, needed: str = "") -> str:
    """Read the name of a model, adapter or encoder, or its path in the job's folder."""
    name = root.text(key, "", if_missing=needed)
    if not name or (key == "model" and is_server(name)):
        return name
    fix = "Set a model outside it on the command line: --model FOLDER."
    return _path_or_name(root, folder, key, name, key, fix)


def read_judging(table: Table, folder: Path, name: str, what: Literal["model", "encoder"]) -> str:
    """Return the model of a check: its path in the job's folder, or its name."""
    return _path_or_name(table, folder, "model", name, what, "Move it there, or name another.")


def _path_or_name(table: Table, folder: Path, key: str, name: str, what: str, fix: str) -> str:
    """Return the path of weights in the job's folder, or their name; record what is neither.

    `what` is a model, an adapter or an encoder; `fix` is the remedy for one outside the folder.
    """
    prefix = LLAMA if what == "model" and name.startswith(LLAMA) else ""
    bare = name.removeprefix(prefix)
    path = (folder / bare).resolve()
    inside = path.is_relative_to(folder)
    if Path(bare).is_absolute() or bare.startswith("~") or (os.path.exists(path) and not inside):
        table.add_problem(key, f"It must be a name or lie in the job's folder, got {bare!r}. {fix}")
    # A folder beside the job wins over a name of the catalog.
    elif bare and os.path.exists(path):
        return prefix + str(path)
    elif what == "model" and not prefix and is_hub_name(bare):
        return name
    elif prefix or re.search(r"[/\\]", bare):
        kind = "file" if prefix else "folder"
        table.add_problem(key, f"The {kind} must exist in {folder}, got {bare!r}.")
    else:
        _refuse_unknown(table, key, bare, what)
    return name


def read_compute_settings(root: Table, model: str) -> dict[str, Any]:
    """Read how the model computes, and on which device. Does not check that the device exists."""
    # None is not false: it means compiled where that is possible.
    compile = root.flag("compile", False)
    settings: dict[str, Any] = {
        "compile": compile if root.has("compile") else None,
        "bits": _bits(root),
    }
    device = root.text("device", "cpu")
    compiled = [key for key, value in settings.items() if value]
    if is_server(model):
        for key in [*compiled, *(["device"] if device != "cpu" else [])][:1]:
            root.add_problem(key, "It must be left out with a model on a server. Remove it.")
    elif not DEVICE.fullmatch(device):
        guess = did_you_mean(device, ("cpu", "cuda"))
        root.add_problem("device", f"It must be cpu, cuda or cuda:N, got {device!r}.{guess}")
    elif device != "cpu" and compiled:
        root.add_problem(
            compiled[0],
            f'It must be left out with device = "{device}", which runs nothing compiled. Remove '
            "one of the two.",
        )
    elif settings["bits"] and settings["compile"] is False:
        root.add_problem("bits", "It must be left out with compile = false. Remove one of the two.")
    return {**settings, "device": device}


def _bits(root: Table) -> int | None:
    """Read the bits of a weight, None where the weights stay as they are stored."""
    bits = root.integer("bits", 0)
    if bits not in (0, 8, 4):
        root.add_problem("bits", f"It must be 8 or 4, got {bits}. Use 8 for accuracy.")
    return bits or None


def read_server(root: Table, name: str) -> Server | None:
    """Read the settings of the server that a model name points to; None for a local model."""
    table = root.table("server")
    if not is_server(name):
        if table is not None:
            table.add_problem("", "It must be left out with a model in this process. Remove it.")
        return None
    if root.has("adapter"):
        root.add_problem("adapter", "It must be left out with a model on a server. Remove it.")
    settings = {} if table is None else server_settings(table)
    try:
        return Server.of(name, **settings)
    except InputError as error:
        if table is not None and error.key in settings:
            table.add_problem(error.key, str(error))
        else:
            root.add_problem("model", str(error))
        return None


def _refuse_unknown(root: Table, key: str, name: str, what: str) -> None:
    """Record a name that is neither in the catalog nor a folder beside the job."""
    writers, adapters = known_models(write=True), shipped_adapters()
    base, plus, adapter = name.partition("+")
    if what == "adapter":
        parts = [(name, adapters)]
    elif what == "encoder":
        parts = [(name, known_models(write=False))]
    else:
        parts = [(base, writers), *([(adapter, adapters)] if plus else [])]
    for part, names in parts:
        if part not in names:
            root.add_problem(
                key,
                f"It must be {' or '.join(names)}, or a folder beside the job file, got {part!r}."
                f"{did_you_mean(part, names)}",
            )


def server_settings(table: Table) -> dict[str, Any]:
    """Return the fields of `Server` that a table sets, without URL and model."""
    named = [spec for spec in fields(Server) if spec.name not in ("url", "model")]
    read = {spec.name: read_option(table, spec.name, spec.default) for spec in named}
    table.close()
    return {name: value for name, value in read.items() if table.has(name)}


def read_option(table: Table, name: str, default: object) -> object:
    """Read an option with the type of its default."""
    # First: in Python, a bool is an int.
    if isinstance(default, bool):
        return table.flag(name, default)
    if isinstance(default, int):
        return table.integer(name, default)
    if isinstance(default, float):
        return table.number(name, default, lambda v: v == v, "a number")
    return table.text(name, str(default))
