"""A name that is not known is answered with the one that is meant, wherever names are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from refine_scribe import JOB, write_job

from ostinato.arguments import did_you_mean, nearest
from ostinato.checks import from_spec
from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.loop import parse
from ostinato.refine import read_job
from ostinato.server.body_fields import BodyFields, RequestError
from ostinato.synonyms import SYNONYMS


@pytest.mark.parametrize(
    ("typed", "known", "meant"),
    [
        ("words", ["name", "texts", "patterns"], "texts"),
        ("stopwords", ["name", "texts"], "texts"),
        ("max_tokens", ["temperature", "max_new_tokens"], "max_new_tokens"),
        ("max_new_tokens", ["max_tokens", "temperature"], "max_tokens"),
        ("--learning-rate", ["--lr", "--layers"], "--lr"),
        ("batch", ["batch_tokens", "lr"], "batch_tokens"),
        ("prompt-template", ["prompt", "input"], "prompt"),
        ("samples", ["rounds", "n"], "n"),
        ("n", ["rounds", "samples"], "samples"),
        ("top-p", ["top_p", "top_k"], "top_p"),
        ("--top_p", ["--top-p", "--top-k"], "--top-p"),
        ("Random State", ["seed", "steps"], "seed"),
        ("num_epochs", ["epochs", "steps"], "epochs"),
        ("threshold", ["name", "min", "max"], "min"),
        ("threshold", ["name", "above", "below"], "above"),
        ("minimum", ["min", "max"], "min"),
        ("lenght", ["length", "excludes"], "length"),
        ("entirely other", ["length", "excludes"], ""),
    ],
)
def test_the_name_that_is_meant(typed: str, known: list[str], meant: str) -> None:
    assert nearest(typed, known) == meant
    assert did_you_mean(typed, known) == (f" Did you mean {meant!r}?" if meant else "")


def test_every_group_has_names_once_and_as_they_are_compared() -> None:
    for group in SYNONYMS:
        assert len(set(group)) == len(group) >= 2
        assert all(name == name.lower() and "-" not in name for name in group)


@pytest.mark.parametrize(
    ("table", "meant"),
    [
        ({"kind": "excludes", "words": ["obviously"]}, "texts"),
        ({"kind": "excludes", "banned": ["obviously"]}, "texts"),
        ({"kind": "length", "maximum": 9}, "max"),
        ({"kind": "on_topic", "column": "a", "threshold": 0.5}, "min"),
        ({"kind": "regex", "expression": "a"}, "pattern"),
    ],
)
def test_arguments_of_checks(table: dict[str, object], meant: str) -> None:
    with pytest.raises(InputError, match=f"Did you mean '{meant}'"):
        from_spec("", table)


@pytest.mark.parametrize(
    ("line", "new", "meant"),
    [
        ("seed = ", "random_state = ", "seed"),
        ("[strategy]", "[strategy]\nretries = 3", "rounds"),
        ("[sampling]", "[sampling]\nmax_tokens = 9", "max_new_tokens"),
        ("prompt = ", "prompt_template = ", "prompt"),
    ],
)
def test_keys_of_jobs(tmp_path: Path, line: str, new: str, meant: str) -> None:
    text = JOB if line in JOB else f"{JOB}\n{line}\n" if line.startswith("[") else f"{line}7\n{JOB}"
    write_job(tmp_path, ["Hello"], text.replace(line, new, 1))
    with pytest.raises(InputError, match=f"Did you mean '{meant}'"):
        read_job(tmp_path / "mail.toml")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Exceeds('loss', threshold=4)", "above"),
        ("Plateau('loss', 3, tolerance=1)", "min_delta"),
        ("Plateau('loss', early_stopping=3)", "patience"),
    ],
)
def test_arguments_of_conditions(text: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"Did you mean '{meant}'"):
        parse(text)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("generate Hi --max-tokens 5", "--max-new-tokens"),
        ("generate Hi --top_p 0.5", "--top-p"),
        ("train text a.txt --out b --learning-rate 1", "--lr"),
        ("train text a.txt --out b --num-epochs 1", "--epochs"),
        ("train text a.txt --out b --batch 1", "--batch-tokens"),
        ("sample image --random-state 1", "--seed"),
        ("refine job.toml --data a.jsonl", "--input"),
    ],
)
def test_options(words: str, meant: str) -> None:
    result = CliRunner().invoke(cli, words.split())
    assert result.exit_code == 2
    assert f"Did you mean '{meant}'?" in result.output


def test_fields_of_requests() -> None:
    fields = BodyFields({"max_new_tokens": 5})
    fields.value("max_tokens")
    with pytest.raises(RequestError, match="Did you mean 'max_tokens'"):
        fields.close()
