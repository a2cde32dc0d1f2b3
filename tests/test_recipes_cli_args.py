"""Recipes report bad input in one sentence, with exit code 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from recipes import chorales, code, masked_text
from recipes.cli_args import run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "input.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "input.txt").write_text("To be, or not to be.")
    (tmp_path / "high.json").write_text(json.dumps({"train": [[[100, 20]]], "valid": []}))
    return tmp_path


@pytest.mark.parametrize(
    ("recipe", "words", "message"),
    [
        (code, "train --out out --data empty", "at least 20 Python files, got 0 in empty"),
        (
            code,
            "train --out out --steps 0",
            "--steps: must be a whole number of at least 1, got '0'",
        ),
        (code, "evaluate --model no --count -3", "--count: must be a whole number"),
        (masked_text, "train --data empty --out out", "empty/input.txt must be text in UTF-8"),
        (masked_text, "train --data bad --out out", "bad/input.txt must be text in UTF-8"),
        (masked_text, "evaluate --data short --model no", "must have more than 960 characters"),
        (chorales, "train --data no.json --out out", "no.json must exist"),
        (chorales, "evaluate --data high.json --model no", "A music model must be a folder"),
        (chorales, "evaluate --data high.json", "must hold pieces that four voices can sing"),
        (chorales, "piano-roll --out a.mp3", "--out must end in .png, got a.mp3"),
        (chorales, "train --data high.json --out high.json", "--out must be a folder"),
    ],
)
def test_bad_input_is_reported(
    recipe: ModuleType,
    words: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["recipe", *words.split()])
    with pytest.raises(SystemExit) as ended:
        run(recipe.main)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_what_is_no_python_is_not_completed() -> None:
    assert list(code.openings("def (")) == [] == list(code.openings("x = '\0'"))


def test_a_folder_named_as_a_file_is_no_source(folder: Path) -> None:
    (folder / "a.py").mkdir()
    (folder / "b.py").write_text("x = 1\n")
    assert code.read_sources(folder) == ["x = 1\n"]


def test_a_gap_lies_in_the_middle_third() -> None:
    (piece,) = masked_text.gap_examples("x" * 200, 1, masked_text.LONGEST)
    assert piece.end - piece.start == masked_text.LONGEST
    with pytest.raises(ValueError, match="--gap must be from 1 to 31, got 32"):
        masked_text.gap_examples("x" * 200, 1, masked_text.LONGEST + 1)


def test_no_piece_that_fits_passes_nothing() -> None:
    assert chorales.pass_rates([], []) == {"all": 0}
