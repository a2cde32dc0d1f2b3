"""`ostinato train music` and `ostinato sample music`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.journal import StopKind, Stopped
from ostinato.loop import LaneResult
from ostinato.music import MusicWork, Score, music_model, read_midi, write_midi
from ostinato.train import save_model

PIECE = Score(((67, 64, 60, 48), (69, 65, 60, 53), (67, 62, 59, 43), (67, 64, 60, 48)) * 2)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(folder: Path) -> str:
    """An untrained model."""
    model = music_model(layers=1, width=16, heads=1)
    save_model(folder / "tiny", model.llama(), model.tokenizer)
    return "tiny"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def pieces_of(*arguments: str) -> list[dict[str, Any]]:
    pieces: list[dict[str, Any]] = json.loads(run(*arguments, "--json").stdout)["pieces"]
    return pieces


def test_the_shipped_model_plays_at_once(folder: Path) -> None:
    """A short melody, so that it takes a second: harmonized, and held to the checks."""
    melody = Score(tuple((pitch, 0, 0, 0) for pitch in (67, 69, 71, 72, 71, 69, 67)))
    write_midi(melody, folder / "melody.mid")
    out = ["--out", "a.wav", "--out", "a.mid", "--out", "a.png"]
    arguments = ["--melody", "melody.mid", "--key", "G major", "--until-passes"]
    (piece,) = pieces_of("sample", "music", *out, *arguments)
    assert piece["accepted"] and piece["chords"] == 7
    assert all((folder / name).stat().st_size > 300 for name in ("a.wav", "a.mid", "a.png"))
    score = read_midi(folder / "a.mid")
    assert [chord[0] for chord in score.chords] == [67, 69, 71, 72, 71, 69, 67]
    assert score.chords[-1][3] % 12 == 7


def test_the_first_chords_are_continued(folder: Path, tiny: str) -> None:
    write_midi(PIECE, folder / "a.mid")
    out = "--out", "b.mid", "--min-p", "0"
    (piece,) = pieces_of("sample", "music", tiny, "--start", "a.mid", "--first", "3", *out)
    lines = piece["text"].splitlines()
    assert lines[:3] == ["S:G4 B:C3 A:E4 T:C4", "S:A4 B:F3 A:F4 T:C4", "S:G4 B:G2 A:D4 T:B3"]


def test_a_start_that_is_too_long_is_refused_with_the_fix(folder: Path, tiny: str) -> None:
    write_midi(Score(PIECE.chords * 21), folder / "a.mid")
    with pytest.raises(InputError, match=r"at most 160 chords long, got 168 in a\.mid.* --first"):
        run("sample", "music", tiny, "--start", "a.mid", "--out", "b.mid")


def test_an_input_file_is_not_overwritten(folder: Path, tiny: str) -> None:
    write_midi(PIECE, folder / "a.mid")
    with pytest.raises(InputError, match="--out must not be an input file"):
        run("sample", "music", tiny, "--start", "a.mid", "--out", "a.mid")
    assert read_midi(folder / "a.mid") == PIECE


def test_a_piece_without_chords_is_reported_and_the_others_are_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Stopped(StopKind.ENDED, "It wrote the end of text.")
    results = [
        LaneResult(key=str(index), index=index, output=text, accepted=True, stopped=ended)
        for index, text in enumerate(("S:G4 B:C3 A:E4 T:C4", ""))
    ]
    monkeypatch.setattr("ostinato.cli.sample.music.results_of", lambda *given, **more: results)
    monkeypatch.setattr(MusicWork, "results", results)
    made = run("sample", "music", "--count", "2", "--out", "a.wav", "--out", "a.png")
    assert made.exit_code == 1 and "Wrote a-1.wav, a-1.png: 1 chords." in made.stdout
    assert made.stderr.startswith("Piece 2 is not written: it has no chords.")
    assert not list(folder.glob("a-2.*"))


def test_a_piece_that_does_not_pass_is_written_and_the_exit_code_says_so(
    folder: Path, tiny: str
) -> None:
    write_midi(Score(PIECE.chords[:2]), folder / "a.mid")
    arguments = "sample", "music", tiny, "--start", "a.mid", "--out", "b.mid", "--min-p", "0"
    assert run(*arguments).exit_code == 0
    made = run(*arguments, "--until-passes", "--rounds", "1", "--strategy", "resample")
    assert (
        made.exit_code == 1
        and "Wrote b.mid: " in made.stdout
        and " It is out of rounds: " in made.stdout
    )


def test_a_run_that_is_finished_is_written_again_and_other_inputs_refused(
    folder: Path, tiny: str
) -> None:
    write_midi(Score(PIECE.chords[:4]), folder / "a.mid")
    arguments = "sample", "music", tiny, "--melody", "a.mid", "--out", "b.mid", "--run", "one"
    first = pieces_of(*arguments, "--count", "2")
    (folder / "b-1.mid").unlink(missing_ok=True)
    assert pieces_of(*arguments, "--count", "2") == first
    assert first[0]["text"] != first[1]["text"]
    with pytest.raises(InputError, match="--seed was 0, is 1"):
        run(*arguments, "--count", "2", "--seed", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.mp3"], "--out must end in"),
        (["--out", "a.mid", "--rounds", "2"], "--rounds must come with --until-passes"),
        (["--out", "a.mid", "--first", "2"], "--first must come with --start"),
        (["--out", "a.mid", "--tempo", "1"], "--tempo must be"),
        (["--out", "a.mid", "--key", "H"], "A key must be one of"),
    ],
)
def test_conflicting_options_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run("sample", "music", *arguments)


def test_a_model_is_trained_on_midi_files_and_resumes(folder: Path) -> None:
    for n in range(4):
        write_midi(PIECE.moved(n), folder / "pieces" / f"{n}.mid")
    shape = ["--layers", "1", "--width", "16", "--heads", "1", "--batch-tokens", "256"]
    arguments = ["train", "music", "pieces", "--out", "made", "--hold-out", "0.25", *shape]
    started = run(*arguments, "--steps", "20", "--until", "Steps(10)", "--valid-every", "5")
    assert "to train on, 1 to validate with" in started.stdout
    assert "valid" in started.stdout and (folder / "made" / "model.safetensors").exists()
    on = run(*arguments, "--steps", "20", "--until", "Steps(20)", "--valid-every", "5")
    assert "Resuming from step 10." in on.stdout
    assert (
        run("sample", "music", "made", "--out", "a.mid", "--start", "pieces/0.mid").exit_code == 0
    )
    with pytest.raises(InputError, match=r"^--width must be heads"):
        run(*arguments[:5], "--width", "15", "--heads", "2")
