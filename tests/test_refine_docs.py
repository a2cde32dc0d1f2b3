"""docs/jobs.md names every key, option, exit code and output column, and its examples work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from refine_made_up import made_up
from refine_scribe import scribe_loop, write_job

from ostinato.cli.jobs.refine import refine
from ostinato.cli.run_loop import Exit
from ostinato.errors import InputError
from ostinato.loop import LaneResult
from ostinato.refine.export import RESULT_COLUMNS
from ostinato.refine.job.file import read_job
from ostinato.refine.job.job_run import JobRun
from ostinato.refine.job.only import ONLY
from ostinato.refine.results import from_lane

DOC = Path(__file__).parents[1] / "docs" / "jobs.md"
TEXT = DOC.read_text(encoding="utf-8") if DOC.exists() else ""

EVERY_SECTION = """\
x = 1
input = "messages.jsonl"
model = "http://127.0.0.1:1/v1#m"
[prompt]
template = "{message}"
x = 1
[[prompt.messages]]
content = "a"
x = 1
[[rule]]
x = 1
[cases]
x = 1
[[check]]
kind = "length"
max = 3
[strategy]
x = 1
[sampling]
x = 1
[budget]
x = 1
[server]
x = 1
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.S | re.M)


def test_every_key_of_a_job_file_is_documented(tmp_path: Path) -> None:
    path = write_job(tmp_path, ["Hi"], EVERY_SECTION)
    with pytest.raises(InputError) as caught:
        read_job(path)
    lists = re.findall(r"Known here: ([^\n]*)\.", str(caught.value))
    assert len(lists) == 9
    for key in {key for names in lists for key in names.split(", ")}:
        assert re.search(rf"`\[{{0,2}}(prompt\.)?{key}\b", TEXT), key


def test_the_example_jobs_are_jobs(tmp_path: Path) -> None:
    first, *additions = blocks("toml")
    assert read_job(write_job(tmp_path, ["Hi"], first)).checks
    cases = '{"question": "Are you open?", "answer": "Yes."}\n'
    (tmp_path / "cases.jsonl").write_text(cases, encoding="utf-8")
    assert len(additions) == 5
    for addition in additions:
        own_model = addition.startswith("model =")
        base = first.replace('model = "smollm2"\n', "") if own_model else first
        top, _, tables = base.partition("\n[")  # keys of the top come before the first table
        text = f"{top}\n{addition}\n[{tables}"
        assert read_job(write_job(tmp_path, ["Hi"], text)).checks, addition


def test_the_python_example_runs_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    names: dict[str, object] = {}
    for block in blocks("python")[:2]:
        exec(compile(block, str(DOC), "exec"), names)
    run_job, export_job = names["run_job"], names["export_job"]
    assert callable(run_job) and callable(export_job)
    path = write_job(tmp_path, ["Hello", "Thanks", "Where?"])
    assert run_job(path, tmp_path / "journal.db") == 3
    assert run_job(path, tmp_path / "journal.db") == 3
    assert export_job(path, tmp_path / "journal.db", tmp_path / "table.parquet") == 3


def test_every_exit_code_and_option_is_documented() -> None:
    for code in Exit:
        assert f"| {int(code)} |" in TEXT
    for option in refine.params:
        name = option.opts[0]
        assert not name.startswith("--") or name in TEXT, name


def test_every_column_of_an_export_and_choice_of_only_is_documented() -> None:
    between = [name for name in RESULT_COLUMNS if name.startswith("tokens_")]
    assert f"`{between[0]}` to `{between[-1]}`" in TEXT
    for name in (*RESULT_COLUMNS, *ONLY):
        assert name in between or f"`{name}`" in TEXT, name


def test_every_key_of_the_output_is_documented(tmp_path: Path) -> None:
    _, _, rows = made_up(tmp_path)
    line = from_lane(LaneResult.from_json(rows[0])).to_json()
    drafts = line["drafts"]
    assert isinstance(drafts, list) and isinstance(drafts[0], dict)
    assert isinstance(line["tokens"], dict)
    for key in [*line, *line["tokens"], *drafts[0]]:
        assert f"`{key}`" in TEXT, key


def test_the_first_job_is_one(tmp_path: Path) -> None:
    page = (DOC.parent / "quickstart.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"^```(json|toml)\n(.*?)^```", page, re.S | re.M))
    (tmp_path / "messages.jsonl").write_text(found["json"], encoding="utf-8")
    (tmp_path / "job.toml").write_text(found["toml"], encoding="utf-8")
    job = read_job(tmp_path / "job.toml")
    lines = found["json"].splitlines()
    assert [check.kind for check in job.checks] == ["length", "grounded", "contains"]
    assert all(set(job.needed_columns()) <= set(json.loads(line)) for line in lines)
