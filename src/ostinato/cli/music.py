"""`ostinato train music` and `ostinato sample music`: chorales, token by token."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.exit_codes import Exit
from ostinato.cli.rows import rows_of
from ostinato.cli.runs.recorded_command import begun_by
from ostinato.cli.runs.run_guard import refuse_another
from ostinato.cli.train.shared import (
    OPTIONS,
    begun_steps,
    condition_of,
    config_options,
    drive,
    journal_at,
    name_of,
    require_folder,
    run_of,
    run_options,
    steps_of,
)
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.journal import JSON
    from ostinato.music import Key, Score
    from ostinato.refine import Refine, Strategy

MUSIC_OPTIONS = {name: option for name, option in OPTIONS.items() if name != "sample_every"}
WRITTEN = (".wav", ".mid", ".midi", ".png")


@click.command("music")
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Write it there.")
@click.option(
    "--hold-out", type=float, default=0.1, show_default=True, help="Share of a FOLDER to validate."
)
@click.option("--layers", type=int, default=4, show_default=True)
@click.option("--width", type=int, default=128, show_default=True)
@click.option("--heads", type=int, default=4, show_default=True)
@run_options
@config_options(MUSIC_OPTIONS)
def train_music(
    source: Path,
    out: Path,
    hold_out: float,
    layers: int,
    width: int,
    heads: int,
    until: str | None,
    epochs: float | None,
    patience: int | None,
    checkpoint_every: int,
    fresh: bool,
    journal: Path | None,
    run_name: str | None,
    **given: Any,
) -> None:
    """Learn to write music for four voices: SOURCE is a FOLDER of MIDI files, or a JSON file.

    The JSON file holds chorales as the JSB-Chorales-dataset has them (its quarter.json). Each
    piece is learned in every key in which it can be sung.
    """
    from ostinato.music import RECIPE, examples, music_model, read_pieces
    from ostinato.train import TextTask, Training, save_model

    require_folder(out)
    _require_shape(hold_out, layers, width, heads)
    config = dataclasses.replace(RECIPE, **{k: v for k, v in given.items() if v is not None})
    condition = condition_of(config.steps, until, epochs, patience)
    pieces = read_pieces(source, hold_out=hold_out, seed=config.seed)
    model = music_model(layers=layers, width=width, heads=heads, seed=config.seed)
    train, valid = examples(pieces.train), examples(pieces.valid, every_key=False)
    if not train:
        raise InputError(
            f"{source} must hold pieces that four voices can sing, got none. Transpose single "
            "voices by octaves."
        )
    task = TextTask(train, valid)
    if given["steps"] is None:
        steps = begun_steps(journal, name_of(run_name, out), fresh)
        if steps is None and epochs is not None:
            steps = steps_of(epochs, task.lengths, config)
        config = dataclasses.replace(config, steps=steps or config.steps)
        condition = condition_of(config.steps, until, epochs, patience)
    network = model.llama()
    process = Training(network, task, config)
    settings = repr((pieces.fingerprint(), layers, width, heads))

    def save() -> None:
        with process.best_weights():
            save_model(out, network, model.tokenizer)

    with journal_at(journal) as opened:
        drive(
            process,
            run_of(opened, "music", settings, dataclasses.asdict(config), out, fresh, run_name),
            condition,
            checkpoint_every,
            counts=(len(train), len(valid)),
            show=lambda step: None,
            save=save,
            out=out,
        )


def _require_shape(hold_out: float, layers: int, width: int, heads: int) -> None:
    if not 0 <= hold_out < 1:
        raise InputError(f"--hold-out must be in [0, 1), got {hold_out}. Give a share such as 0.1.")
    for name, value in {"layers": layers, "width": width, "heads": heads}.items():
        if value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}. Give more.")
    if width % heads or (width // heads) % 2:
        raise InputError(
            f"--width must be --heads times an even number, got {width} and {heads}. Give a width "
            f"such as {32 * heads}."
        )


@click.command("music")
@click.argument("model", default="chorales")
@click.option(
    "--out",
    "outs",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="A .wav, .mid or .png (a piano roll) to write; more: each.",
)
@click.option("--key", help="Such as 'G minor'; else that of --start or --melody, or C major.")
@click.option("--count", type=click.IntRange(min=1), default=1, help="Pieces to write.")
@click.option(
    "--start", type=click.Path(path_type=Path), help="Go on from the chords of this MIDI file."
)
@click.option("--first", type=click.IntRange(min=1), help="Only so many chords of --start.")
@click.option(
    "--melody",
    type=click.Path(path_type=Path),
    help="Harmonize this: the highest voice of a MIDI file is the soprano.",
)
@click.option("--temperature", type=float, help="0: the likeliest.  [0.9]")
@click.option("--min-p", type=float, help="Leave out what is less likely than this share.  [0.03]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--until-passes", is_flag=True, help="Go on until the checks of music pass.")
@click.option(
    "--strategy",
    type=click.Choice(["backtrack", "resample", "smc"]),
    help="What is done where a check fails.  [backtrack]",
)
@click.option("--rounds", type=click.IntRange(min=1), help="Begin a piece so often.  [8]")
@click.option(
    "--tempo", type=float, default=72.0, show_default=True, help="Quarter notes a minute."
)
@click.option("--run", "run_name", help="Journal it as a run; the same name goes on where it was.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def sample_music(
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
    Exit codes: 0 all pieces are written; 1 some have no chords, or do not pass; 2 something given
    is wrong; 130 interrupted.
    """
    from ostinato.music import SAMPLING, TOKENS, all_checks, load_music, prompt, score_of
    from ostinato.refine import Refine

    _require_targets(outs, [path for path in (start, melody) if path is not None], tempo)
    chosen = _strategy(until_passes, strategy, rounds)
    asked = _asked(key, start, first, melody)
    sampling = dataclasses.replace(
        SAMPLING,
        temperature=SAMPLING.temperature if temperature is None else temperature,
        min_p=SAMPLING.min_p if min_p is None else min_p,
    )
    loaded = load_music(model)
    refine = Refine(
        loaded,
        [(f"{number:04}", asked) for number in range(1, count + 1)],
        prompt=prompt,
        checks=all_checks() if until_passes else [],
        strategy=chosen,
        sampling=sampling,
        max_new_tokens=TOKENS,
        seed=seed,
        slots=min(count, 16),
    )
    order: dict[str, JSON] = {
        "weights": _digest(model),
        "asked": dict(asked),
        "count": count,
        "sampling": str(sampling),
        "strategy": str(chosen),
        "checks": until_passes,
        "seed": seed,
    }
    rows = _rows(refine, run_name, order)
    if len(rows) < count:
        click.echo(f"{len(rows)} of {count} pieces are done.", err=True)
        on = "Run the same command again: it goes on."
        click.echo(on if run_name else "They are not kept: --run NAME would keep them.", err=True)
        sys.exit(Exit.INTERRUPTED)
    refused = [row["stopped"]["sentence"] for row in rows if row["stopped"]["kind"] == "error"]
    if refused:
        raise InputError(refused[0])
    scores = [score_of(str(row["output"])) for row in rows]
    files = _write(scores, outs, tempo)
    _tell(rows, scores, files, as_json)
    passed = all(row["accepted"] for row in rows) or not until_passes
    sys.exit(Exit.DONE if passed and all(score.chords for score in scores) else Exit.NOT_ALL)


# What is asked for -----------------------------------------------------------------------------


def _require_targets(outs: Sequence[Path], read: Sequence[Path], tempo: float) -> None:
    for out in outs:
        if out.resolve() in [path.resolve() for path in read]:
            raise InputError(f"--out must not be what is read, got {out} for both. Name another.")
        if out.suffix.lower() not in WRITTEN or out.is_dir():
            raise InputError(
                f"--out must end in {', '.join(WRITTEN)}, got {out}. Name such a file."
            )
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--out must lie in a folder that can be made, got {out}: {error}. Name another."
            ) from None
    if not 10 <= tempo <= 400:
        raise InputError(f"--tempo must be 10 to 400, got {tempo}. Take 72.")


def _strategy(until_passes: bool, name: str | None, rounds: int | None) -> Strategy:
    """Return what answers a piece that fails; without checks one that accepts all."""
    from ostinato.refine import Backtrack, Resample, Smc

    if not until_passes:
        for option, value in (("--strategy", name), ("--rounds", rounds)):
            if value is not None:
                raise InputError(f"{option} must come with --until-passes, got {value}. Give both.")
        return Resample(rounds=1)
    rounds = rounds or 8
    if name == "resample":
        return Resample(rounds=rounds)
    return Smc(rounds=rounds) if name == "smc" else Backtrack(rounds=rounds, patience=4)


def _asked(
    key: str | None, start: Path | None, first: int | None, melody: Path | None
) -> dict[str, str]:
    """Return the columns of each item."""
    from ostinato.music import LONGEST, Key, Score, melody_of, read_midi, score_text

    if start is not None and melody is not None:
        raise InputError("--start and --melody must not be given both: a melody is whole.")
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
    """Return the key of a file by its last bass."""
    try:
        return score.key()
    except InputError:
        raise InputError(f"--key must be given for {source}, which has no bass.") from None


def _digest(model: str) -> str:
    """Return a hash of the weights that a name or folder stands for."""
    from ostinato.music import folder_of

    weights = (folder_of(model) / "model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest()


def _rows(refine: Refine, run_name: str | None, order: dict[str, JSON]) -> list[dict[str, Any]]:
    """Write the pieces, or go on with the run of this name; refuses one of another order."""
    from ostinato.journal import Journal

    if run_name is None:
        return rows_of(refine.loop(), None)
    refuse_another(run_name, "order", order)
    spec: dict[str, JSON] = {"sample": "music", "order": order, **begun_by()}
    with Journal() as journal:
        run = journal.find(run_name) or journal.create(run_name, kind="refine", spec=spec)
        return rows_of(refine.loop(run=run), run_name)


# What came of it -------------------------------------------------------------------------------


def _write(scores: Sequence[Score], outs: Sequence[Path], tempo: float) -> list[list[Path]]:
    """Write each piece that has chords into each file; several are numbered."""
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


def _tell(
    rows: Sequence[dict[str, Any]],
    scores: Sequence[Score],
    files: Sequence[Sequence[Path]],
    as_json: bool,
) -> None:
    told = [
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
        click.echo(json.dumps({"pieces": told}))
        return
    for number, one in enumerate(told, 1):
        if not one["files"]:
            mend = "Lower --temperature, or take another --seed."
            click.echo(f"Piece {number} is not written, as it has no chords. {mend}", err=True)
            continue
        names = ", ".join(one["files"])
        click.echo(f"Wrote {names}: {one['chords']} chords. {one['stopped']['sentence']}")
