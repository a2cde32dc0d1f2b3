"""`ostinato sample music`: write chorales token by token."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ostinato.cli.following import View, view_options
from ostinato.cli.options import flag_of, seed_option
from ostinato.cli.presenters import drive
from ostinato.cli.recording import Recording, recording_options
from ostinato.cli.run_loop import Exit, exit_interrupted, refuse_errors, results_of
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.journal import RunSource
    from ostinato.loop import LaneResult
    from ostinato.music import Key, MusicWork, SampleMusicRun, Score

ROUNDS = 8


def spelled(name: str) -> str:
    """Return how a field is called on the command line."""
    names = {"model": "MODEL", "outs": "--out", "weights": "MODEL (its files have changed)"}
    return names.get(name) or flag_of(name)


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
@view_options
@recording_options(spelled)
def music(
    recording: Recording,
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
    strategy: Literal["backtrack", "resample", "smc"] | None,
    rounds: int | None,
    tempo: float,
    view: View,
) -> None:
    """Write a chorale with MODEL: the shipped `chorales`, or a folder of `ostinato train music`.

    Checks: ranges of the voices, crossing, parallel fifths and octaves, repeats, and the cadence.
    Exit codes: 0 all pieces are written; 1 some have no chords, or do not pass; 2 an argument or a
    file is wrong; 130 interrupted.
    """
    from ostinato.music import SAMPLING, SampleMusicRun, music_digest

    _require_outputs(outs, [path for path in (start, melody) if path is not None])
    _require_checks(until_passes, strategy, rounds)
    config = SampleMusicRun(
        model=_place_of(model),
        outs=outs,
        count=count,
        temperature=SAMPLING.temperature if temperature is None else temperature,
        min_p=SAMPLING.min_p if min_p is None else min_p,
        until_passes=until_passes,
        strategy=strategy or "backtrack",
        rounds=rounds or ROUNDS,
        seed=seed,
        tempo=tempo,
        weights=music_digest(model),
        **_columns(key, start, first, melody),
    )
    sys.exit(drive(config, recording, view, spelled))


def present(config: SampleMusicRun, run: RunSource | None, view: View) -> Exit:
    """Write the pieces when all are done, and say how each one ended."""
    from ostinato.music import MusicWork
    from ostinato.runs import build_config

    work = build_config(config, run=run)
    assert isinstance(work, MusicWork)
    results = results_of(work, config.count, view)
    if len(results) < config.count:
        exit_interrupted(len(results), config.count, "pieces", work.loop.recorded_as)
    refuse_errors(results)
    work.finish()
    _report(work, results, view.as_json)
    passed = all(result.accepted for result in results) or not config.until_passes
    return Exit.DONE if passed and all(score.chords for score in work.scores) else Exit.NOT_ALL


# Inputs -----------------------------------------------------------------------------------------


def _require_outputs(outs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Raise `InputError` for an output that is an input, or of no known format."""
    from ostinato.music import FORMATS

    for out in outs:
        if out.resolve() in [path.resolve() for path in inputs]:
            raise InputError(f"--out must not be an input file, got {out}. Name another.")
        if out.suffix.lower() not in FORMATS or out.is_dir():
            raise InputError(
                f"--out must end in {', '.join(FORMATS)}, got {out}. Name such a file."
            )


def _require_checks(until_passes: bool, strategy: str | None, rounds: int | None) -> None:
    """Raise `InputError` for options that have no effect without checks."""
    for option, value in (("--strategy", strategy), ("--rounds", rounds)):
        if value is not None and not until_passes:
            raise InputError(f"{option} must come with --until-passes, got {value}. Give both.")


def _place_of(model: str) -> str:
    """Return a model's name for a record: the absolute path of a folder, or a shipped name."""
    from ostinato.music import folder_of

    path = Path(model)
    return str(path.absolute()) if folder_of(model) == path and path.exists() else model


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


# Outputs ----------------------------------------------------------------------------------------


def _report(work: MusicWork, results: Sequence[LaneResult], as_json: bool) -> None:
    pieces: list[dict[str, Any]] = [
        {
            "files": [str(path) for path in work.files_of(number)] if score.chords else [],
            "chords": len(score.chords),
            "accepted": result.accepted,
            "tokens": result.spent.get("tokens", 0),
            "computed": result.spent.get("computed", 0),
            "stopped": result.stopped.to_json(),
            "text": str(result.output).strip(),
        }
        for number, (result, score) in enumerate(zip(results, work.scores, strict=True), 1)
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
