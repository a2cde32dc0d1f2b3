"""`ostinato sample music`: write chorales token by token."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.arguments import require
from ostinato.cli.options import json_option, run_option, seed_option
from ostinato.cli.run_loop import Exit, exit_interrupted, refuse_errors, rows_of
from ostinato.cli.runs.run_guard import run_settings
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.journal import JSON, Run
    from ostinato.music import Key, Score
    from ostinato.refine import Refine, Strategy

FORMATS = (".wav", ".mid", ".midi", ".png")
ROUNDS = 8


@click.command()
@click.argument("model", default="chorales")
@click.option(
    "--out",
    "outs",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="File to write: .wav, .mid or .png (a piano roll); repeatable.",
)
@click.option(
    "--key", help="Key, such as 'G minor'.  [default: that of --start or --melody, or C major]"
)
@click.option("--count", type=click.IntRange(min=1), default=1, help="Pieces to write.")
@click.option(
    "--start", type=click.Path(path_type=Path), help="Continue the chords of this MIDI file."
)
@click.option("--first", type=click.IntRange(min=1), help="Use only the first N chords of --start.")
@click.option(
    "--melody",
    type=click.Path(path_type=Path),
    help="Harmonize this MIDI file: its highest voice is the soprano.",
)
@click.option("--temperature", type=float, help="Sampling temperature; 0: greedy.  [default: 0.9]")
@click.option(
    "--min-p", type=float, help="Min-p: cutoff as a share of the top probability.  [default: 0.03]"
)
@seed_option
@click.option("--until-passes", is_flag=True, help="Generate until the music checks pass.")
@click.option(
    "--strategy",
    type=click.Choice(["backtrack", "resample", "smc"]),
    help="Strategy where a check fails.  [default: backtrack]",
)
@click.option(
    "--rounds", type=click.IntRange(min=1), help=f"Drafts per piece.  [default: {ROUNDS}]"
)
@click.option("--tempo", type=float, default=72.0, help="Quarter notes per minute, 10 to 400.")
@run_option
@json_option
def music(
    model: str,
    outs: tuple[Path, ...],
    key: str | None,
    count: int,
    start: Path | None,
    first: int | None,
    melody: Path | None,
    temperature: float | None,
    min_p: float | None,
    seed: int,
    until_passes: bool,
    strategy: str | None,
    rounds: int | None,
    tempo: float,
    run_name: str | None,
    as_json: bool,
) -> None:
    """Write a chorale with MODEL: the shipped `chorales`, or a folder of `ostinato train music`.

    Checks: ranges of the voices, crossing, parallel fifths and octaves, repeats, and the cadence.
    Exit codes: 0 all pieces are written; 1 some have no chords, or do not pass; 2 an argument or a
    file is wrong; 130 interrupted.
    """
    from ostinato.music import SAMPLING, TOKENS, all_checks, load_music, prompt, score_of
    from ostinato.refine import Refine

    _require_outputs(outs, [path for path in (start, melody) if path is not None], tempo)
    chosen = _strategy(until_passes, strategy, rounds)
    columns = _columns(key, start, first, melody)
    sampling = dataclasses.replace(
        SAMPLING,
        temperature=SAMPLING.temperature if temperature is None else temperature,
        min_p=SAMPLING.min_p if min_p is None else min_p,
    )
    refine = Refine(
        load_music(model),
        [(f"{number:04}", columns) for number in range(1, count + 1)],
        prompt=prompt,
        checks=all_checks() if until_passes else [_anything],
        strategy=chosen,
        sampling=sampling,
        max_new_tokens=TOKENS,
        seed=seed,
        slots=min(count, 16),  # more pieces wait, as each slot holds a cache
    )
    inputs: dict[str, JSON] = {
        "weights": _weights_digest(model),
        "asked": dict(columns),  # older than the name `columns`: existing runs have this key
        "count": count,
        "sampling": str(sampling),
        "strategy": str(chosen),
        "checks": until_passes,
        "seed": seed,
    }
    rows, run = _rows(refine, run_name, inputs)
    if len(rows) < count:
        exit_interrupted(len(rows), count, "pieces", run)
    refuse_errors(rows)
    scores = [score_of(str(row["output"])) for row in rows]
    _report(rows, scores, _write(scores, outs, tempo), as_json)
    passed = all(row["accepted"] for row in rows) or not until_passes
    sys.exit(Exit.DONE if passed and all(score.chords for score in scores) else Exit.NOT_ALL)


def _anything(text: str) -> bool:
    return True


# Inputs -----------------------------------------------------------------------------------------


def _require_outputs(outs: Sequence[Path], inputs: Sequence[Path], tempo: float) -> None:
    """Raise `InputError` before any work for a file that could not be written at the end."""
    for out in outs:
        if out.resolve() in [path.resolve() for path in inputs]:
            raise InputError(f"--out must not be an input file, got {out}. Name another.")
        if out.suffix.lower() not in FORMATS or out.is_dir():
            raise InputError(
                f"--out must end in {', '.join(FORMATS)}, got {out}. Name such a file."
            )
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--out must lie in a folder that can be made, got {out}: {error}. Name another."
            ) from None
    require(10 <= tempo <= 400, "--tempo", "10 to 400", tempo, "Take 72.")


def _strategy(until_passes: bool, name: str | None, rounds: int | None) -> Strategy:
    """Return the strategy for drafts that fail; without checks, one that accepts every draft."""
    from ostinato.refine import Backtrack, Resample, Smc

    if not until_passes:
        for option, value in (("--strategy", name), ("--rounds", rounds)):
            if value is not None:
                raise InputError(f"{option} must come with --until-passes, got {value}. Give both.")
        return Resample(rounds=1)
    rounds = rounds or ROUNDS
    match name:
        case "resample":
            return Resample(rounds=rounds)
        case "smc":
            return Smc(rounds=rounds)
        case _:
            return Backtrack(rounds=rounds, patience=4)  # it passed all of 32 pieces


def _columns(
    key: str | None, start: Path | None, first: int | None, melody: Path | None
) -> dict[str, str]:
    """Return the columns of each item: its key, and the chords or the melody to start from."""
    from ostinato.music import LONGEST, Key, Score, melody_of, read_midi, score_text

    if start is not None and melody is not None:
        raise InputError("Only one of --start and --melody must be given, got both.")
    if first is not None and start is None:
        raise InputError(f"--first must come with --start, got {first}. Give both.")
    source = start or melody
    if source is None:
        return {"key": str(Key.of(key or "C major"))}
    score = read_midi(source, melody=melody is not None)
    named = Key.of(key) if key is not None else _key_of(score, source)
    if melody is not None:
        return {"key": str(named), "melody": melody_of(score)}
    chords = score.chords[:first]
    if len(chords) > LONGEST:
        raise InputError(
            f"--start must be at most {LONGEST} chords long, got {len(chords)} in {start}. Take "
            "only the first with --first."
        )
    return {"key": str(named), "start": score_text(Score(chords))}


def _key_of(score: Score, source: Path) -> Key:
    """Return the key of a score by its last bass note."""
    try:
        return score.key()
    except InputError:
        raise InputError(f"--key must be given for {source}, which has no bass.") from None


def _weights_digest(model: str) -> str:
    from ostinato.music import folder_of

    # By content, as a training may have written others into the same folder.
    weights = (folder_of(model) / "model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest()


def _rows(
    refine: Refine, run_name: str | None, inputs: dict[str, JSON]
) -> tuple[list[dict[str, Any]], Run | None]:
    """Write the pieces, or resume the run of this name; return its rows and itself."""
    from ostinato.journal import Journal

    if run_name is None:
        return rows_of(refine.loop()), None
    # `Refine` takes a run, not its name: the kind "refine" lets `ostinato why` explain it.
    spec = run_settings(run_name, "order", inputs, sample="music")["spec"]
    with Journal() as journal:
        run = journal.find(run_name) or journal.create(run_name, kind="refine", spec=spec)
        return rows_of(refine.loop(run=run)), run


# Outputs ----------------------------------------------------------------------------------------


def _write(scores: Sequence[Score], outs: Sequence[Path], tempo: float) -> list[list[Path]]:
    """Write each piece that has chords into each file; several pieces are numbered."""
    from ostinato.music import piano_roll, write_midi, write_wav

    files = []
    for number, score in enumerate(scores, 1):
        paths: list[Path] = []
        for out in outs if score.chords else ():
            path = out if len(scores) == 1 else out.with_stem(f"{out.stem}-{number}")
            if out.suffix.lower() == ".png":
                paths.append(piano_roll(score, path))
            else:
                write = write_wav if out.suffix.lower() == ".wav" else write_midi
                paths.append(write(score, path, tempo=tempo))
        files.append(paths)
    return files


def _report(
    rows: Sequence[dict[str, Any]],
    scores: Sequence[Score],
    files: Sequence[Sequence[Path]],
    as_json: bool,
) -> None:
    pieces = [
        {
            "files": [str(path) for path in paths],
            "chords": len(score.chords),
            "accepted": row["accepted"],
            "tokens": row["spent"].get("tokens", 0),
            "computed": row["spent"].get("computed", 0),
            "stopped": row["stopped"],
            "text": str(row["output"]).strip(),
        }
        for row, score, paths in zip(rows, scores, files, strict=True)
    ]
    if as_json:
        click.echo(json.dumps({"pieces": pieces}))
        return
    for number, piece in enumerate(pieces, 1):
        if not piece["files"]:
            fix = "Lower --temperature, or take another --seed."
            click.echo(f"Piece {number} is not written: it has no chords. {fix}", err=True)
            continue
        names = ", ".join(piece["files"])
        click.echo(f"Wrote {names}: {piece['chords']} chords. {piece['stopped']['sentence']}")
