"""The part of a job file that says which model writes, and how it computes. Loads no model."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError
from ostinato.refine.job.toml_reader import Table
from ostinato.remote import Server, is_server

DEVICE = re.compile(r"cpu|cuda(:(0|[1-9][0-9]*))?")


def read_weights(root: Table, folder: Path, key: str, needed: str = "") -> str:
    """Read a model's, adapter's or encoder's name, or its place in the job's folder."""
    name = root.text(key, "", needed=needed)
    if not name or (key == "model" and is_server(name)):
        return name
    mend = "Give a model elsewhere on the command line: --model FOLDER."
    return _placed(root, folder, key, name, key, mend)


def read_judging(table: Table, folder: Path, name: str, what: Literal["model", "encoder"]) -> str:
    """Return the model of a check: its path in the job's folder, or its name."""
    return _placed(table, folder, "model", name, what, "Move it there, or name another.")


def _placed(table: Table, folder: Path, key: str, name: str, what: str, mend: str) -> str:
    """Return the path of weights in the job's folder, or their name; note what is neither.

    `what` is a model, an adapter or an encoder; `mend` says what to do about one elsewhere.
    """
    from ostinato.models import LLAMA, is_hub_name

    prefix = LLAMA if what == "model" and name.startswith(LLAMA) else ""
    bare = name.removeprefix(prefix)
    path = (folder / bare).resolve()
    inside = path.is_relative_to(folder)
    if Path(bare).is_absolute() or bare.startswith("~") or (path.exists() and not inside):
        table.wrong(key, f"It must be a name or lie in the job's folder, got {bare!r}. {mend}")
    elif bare and path.exists():
        return prefix + str(path)
    elif what == "model" and not prefix and is_hub_name(bare):
        return name
    elif prefix or re.search(r"[/\\]", bare):
        kind = "file" if prefix else "folder"
        table.wrong(key, f"The {kind} must exist in {folder}, got {bare!r}.")
    else:
        _refuse_unknown(table, key, bare, what)
    return name


def read_ways(root: Table, model: str) -> dict[str, Any]:
    """Read how the model computes, and where. Whether the device is there, is not asked."""
    ways: dict[str, Any] = {"compile": None, "int8": root.flag("int8", False)}
    if root.has("compile"):
        ways["compile"] = root.flag("compile", False)
    device = root.text("device", "cpu")
    compiled = [key for key, value in ways.items() if value]
    if is_server(model):
        for key in [*compiled, *(["device"] if device != "cpu" else [])][:1]:
            root.wrong(key, "It must be left out with a model on a server. Take it out.")
    elif not DEVICE.fullmatch(device):
        guess = did_you_mean(device, ("cpu", "cuda"))
        root.wrong("device", f"It must be cpu, cuda or cuda:N, got {device!r}.{guess}")
    elif device != "cpu" and compiled:
        told = f'It must be left out with device = "{device}", which runs nothing compiled.'
        root.wrong(compiled[0], f"{told} Take one of them out.")
    elif ways["int8"] and ways["compile"] is False:
        root.wrong("int8", "It must be given without compile = false. Leave one out.")
    return {**ways, "device": device}


def read_server(root: Table, name: str) -> Server | None:
    """Read how the server is talked to that the model of this name is on."""
    table = root.table("server")
    if not is_server(name):
        if table is not None:
            table.wrong("", "It must be left out, as the model is on no server. Take it out.")
        return None
    if root.has("adapter"):
        root.wrong("adapter", "It must be left out with a model on a server. Take it out.")
    settings = {} if table is None else _server_settings(table)
    try:
        return Server.of(name, **settings)
    except InputError as error:
        where = next((key for key in settings if f"server's {key} " in str(error)), "")
        if table is not None and where:
            table.wrong(where, str(error))
        else:
            root.wrong("model", str(error))
        return None


def _refuse_unknown(root: Table, key: str, name: str, what: str) -> None:
    """Refuse a name that is neither known nor a folder beside the job."""
    from ostinato.models import known_models, shipped_adapters

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
            root.wrong(
                key,
                f"It must be {' or '.join(names)}, or a folder beside the job file, got {part!r}."
                f"{did_you_mean(part, names)}",
            )


def _server_settings(table: Table) -> dict[str, Any]:
    """Return what a table says of a server: its fields besides URL and model."""
    named = [spec for spec in fields(Server) if spec.name not in ("url", "model")]
    read = {spec.name: read_option(table, spec.name, spec.default) for spec in named}
    table.close()
    return {name: value for name, value in read.items() if table.has(name)}


def read_option(table: Table, name: str, default: object) -> object:
    """Read an option as the kind of value that its default is."""
    if isinstance(default, bool):
        return table.flag(name, default)
    if isinstance(default, int):
        return table.whole(name, default)
    if isinstance(default, float):
        return table.number(name, default, lambda v: v == v, "a number")
    return table.text(name, str(default))
