"""`ostinato runs artifacts`: the images, sounds and tensors of a run, listed or as files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from ostinato.arguments import counted
from ostinato.cli.options import journal_option, json_option
from ostinato.cli.runs.words import opened, size_text
from ostinato.journal import ArtifactRow, encode, safe_name

KINDS = ("image", "sound", "tensor")
SUFFIXES = {"image": ".png", "sound": ".wav", "tensor": ".safetensors"}
SHORT = 12  # digits of a hash that are shown


@click.command()
@click.argument("name")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Write them into this folder."
)
@click.option("--kind", type=click.Choice(KINDS), help="Only images, sounds or tensors.")
@click.option("--all", "every", is_flag=True, help="Also those of steps.  [default: of results]")
@json_option
@journal_option("path")
def artifacts(
    name: str, out: Path | None, kind: str | None, every: bool, as_json: bool, path: Path | None
) -> None:
    """List the images, sounds and tensors of the run NAME, or write them as files.

    Images become PNG files, sounds WAV files, all others safetensors.
    """
    with opened(path) as journal:
        found = chosen(journal.get(name).artifacts(), kind, every=every)
        files = [None] * len(found) if out is None else write_all(found, out)
    if as_json:
        rows = [
            {**each.to_json(), "path": None if file is None else str(file)}
            for each, file in zip(found, files, strict=True)
        ]
        click.echo(encode({"artifacts": rows}))
        return
    for each, file in zip(found, files, strict=True):
        click.echo(file if file is not None else line_of(each))
    if not found:
        click.echo("No artifacts." if every else "No result has artifacts. Those of steps: --all.")


def chosen(rows: Sequence[ArtifactRow], kind: str | None, *, every: bool) -> list[ArtifactRow]:
    """Return the artifacts of a kind: those of results and calls, or all."""
    return [
        row for row in rows if (every or row.key is not None) and kind in (None, row.artifact.kind)
    ]


def summary(rows: Sequence[ArtifactRow]) -> str | None:
    """Return how many there are of each kind, and their size; None where there are none."""
    if not rows:
        return None
    counts = Counter[str](row.artifact.kind for row in rows)
    words = [counted(counts[kind], f"{kind}s") for kind in KINDS if counts[kind]]
    return f"{', '.join(words)}, {size_text(sum(row.bytes for row in rows))}"


def line_of(row: ArtifactRow) -> str:
    """Return the line of an artifact in a list."""
    artifact = row.artifact
    shape = " x ".join(map(str, artifact.shape))
    place = f"{row.source} {row.key}" if row.key is not None else f"{row.source}, tick {row.tick}"
    return (
        f"{artifact.hash[:SHORT]}  {artifact.kind}  {artifact.dtype} {shape}  "
        f"{row.bytes} bytes  {place}"
    )


def write_all(rows: Sequence[ArtifactRow], folder: Path) -> list[Path]:
    """Write artifacts into a folder, each under a name of its own; return the paths.

    A name is that of the result or the tick, with the hash: the same content has the same name,
    and no key of a result leads out of the folder.
    """
    return [row.artifact.save(folder / _name(row)) for row in rows]


def _name(row: ArtifactRow) -> str:
    place = f"{row.tick:06}" if row.key is None else safe_name(row.key)
    return f"{place}-{row.artifact.hash[:SHORT]}{SUFFIXES[row.artifact.kind]}"
