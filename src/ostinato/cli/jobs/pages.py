"""Pages that commands write where they are told to."""

from __future__ import annotations

from pathlib import Path

import click

from ostinato.errors import InputError
from ostinato.output_files import require_writable, told_when_not_written, write_whole


def page_path(path: Path) -> Path:
    """Return the path of a page. Raises `InputError` or `OutputError` where none can be written."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out must name an .html file, got {path.name}. Rename it.")
    require_writable(path.absolute(), "--out")
    return path


def write_page(path: Path, html: str) -> None:
    """Write a page, and say where."""
    with told_when_not_written("Name another with --out."):
        write_whole(path, [html])
    click.echo(f"  page     {path}", err=True)
