"""The extraction example: its conversations hold what is to be extracted, and its job is one."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ostinato.checks import judge_all
from ostinato.refine.job.file import read_job
from ostinato.refine.job.job_items import read_items

FOLDER = Path(__file__).parents[1] / "examples" / "extract"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"extract_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_every_wanted_value_was_said_and_the_wanted_records_pass_all_checks() -> None:
    job, build = read_job(FOLDER / "job.toml"), script("build")
    items = read_items(job)
    assert len(items) >= 150
    assert len({item.columns["service"] for item in items}) >= 5
    passed = 0
    for item in items:
        record, talk = item.columns["record"], str(item.columns["talk"])
        assert isinstance(record, dict) and len(record) >= 3
        assert all(build.is_said(value, talk) for value in record.values())
        assert set(record) <= set(str(item.columns["fields"]).split(", "))
        text = json.dumps({name: record[name] for name in sorted(record)})
        passed += all(verdict.passed for verdict in judge_all(job.checks, text, item.columns))
    assert passed / len(items) > 0.9


def test_the_prompt_names_the_services_fields() -> None:
    job = read_job(FOLDER / "job.toml")
    build = script("build")
    (item,) = read_items(job, 1)
    messages = job.router().route(item.columns).messages
    assert [message["role"] for message in messages] == [
        "system",
        *(["user", "assistant"] * 3),
        "user",
    ]
    talk, fields = (str(item.columns[name]) for name in ("talk", "fields"))
    assert messages[-1]["content"] == build.asked(talk, fields)


def test_the_worked_examples_are_of_other_conversations_and_right() -> None:
    job = read_job(FOLDER / "job.toml")
    talks = {str(item.columns["talk"]) for item in read_items(job)}
    lines = (FOLDER / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [json.loads(line) for line in lines]
    assert len(cases) == 64
    for case in cases:
        assert not any(case["question"].startswith(talk) for talk in talks)
        record = json.loads(case["answer"])
        assert list(record) == sorted(record)
        assert set(record) <= set(re.findall(r"\w+", case["question"].split("Fields:")[1]))


def test_fields_have_kinds() -> None:
    measure = script("measure")
    names = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))["properties"]
    kinds = {name: measure.kind_of(name) for name in names}
    assert set(kinds.values()) == set(measure.KINDS)
    assert kinds["visit_date"] == "dates and times" and kinds["movie_name"] == "names"
    assert kinds["city_of_event"] == "places" and kinds["number_of_beds"] == "counts"
    fates = measure.by_kind(
        [{"price": "$5", "rent": "$9", "fare": "1"}], [{"price": "$5", "rent": ""}]
    )
    assert fates["money"] == (1, 1, 1)


def test_measures_count_records_and_fields() -> None:
    measure = script("measure")
    wanted = [{"city": "San Jose", "time": "5 pm"}, {"city": "Rome"}, {"city": "Oslo"}]
    texts = ['{"city": "san  jose", "time": "6 pm"}', '{"city": "Rome"}', "Oslo"]
    rows = [
        {"reply": text, "accepted": n < 2, "tokens": {"reply": 10, "computed": 15}}
        for n, text in enumerate(texts)
    ]
    told = measure.measures(wanted, rows)
    assert told["records"] == pytest.approx(1 / 3)
    assert told["wanted_right"] == pytest.approx(1 / 3)
    assert told["fields"] == pytest.approx(2 / 4)
    assert told["precision"] == pytest.approx(2 / 3)
    assert told["json"] == pytest.approx(2 / 3)
    assert told["tokens"] == pytest.approx(45 / 20)


def test_the_same_data_give_the_same_rows() -> None:
    build = script("build")
    turns = [
        ["user", "A table for 2 in Rome at 5 pm, please."],
        ["assistant", "For 2 in Rome at 5 pm?", {"city": "Rome", "slots": "2", "time": "5 pm"}],
        ["user", "Yes."],
        ["assistant", "It is done.", {"city": "Rome", "request": "done", "address": "1 Via Appia"}],
    ]
    row = build.candidate({"id": "1", "services": ["R"], "turns": turns})
    assert row["record"] == {"city": "Rome", "slots": "2", "time": "5 pm"}
    assert row["talk"].startswith("Customer: A table") and row["talk"].count("\n") == 1
    assert build.with_fields([row])[0]["fields"] == "city, slots, time"
    assert build.candidate({"id": "2", "services": ["R", "S"], "turns": turns}) is None
