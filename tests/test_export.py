"""Results as Parquet, CSV and JSONL: every value comes back, whatever the items hold."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from click.testing import Result as Called
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refine_scribe import JOB, scribe_loop, write_job

from ostinato import parquet_files
from ostinato.cli.jobs.refine import refine
from ostinato.errors import InputError, OutputError
from ostinato.journal import StopKind, Stopped
from ostinato.loop import Verdict
from ostinato.refine import Result, read_job, write_export
from ostinato.refine.export import RESULT_COLUMNS
from ostinato.refine.job.job_run import JobRun
from ostinato.row_files import read_rows


def result(id: str, columns: Mapping[str, object], reply: str = "Hi", **more: Any) -> Result:
    return Result(
        id=id,
        reply=reply,
        accepted=True,
        stopped=Stopped(StopKind.PASSED, "Every check passed.", "passed"),
        verdicts=(Verdict("length", True), Verdict("tone", False, 0.5, "Be kind.")),
        columns=columns,
        **more,
    )


def results_of(rows: list[dict[str, object]], reply: str = "Hi") -> list[Result]:
    return [result(f"r{n}", row, reply) for n, row in enumerate(rows)]


def exported(path: Path, rows: list[dict[str, object]], reply: str = "Hi") -> list[dict[str, Any]]:
    write_export(path, results_of(rows, reply), rows)
    return [row for _, row in read_rows(path)]


# Every value comes back ---------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
KINDS: list[st.SearchStrategy[Any]] = [TEXTS, INTEGERS, st.floats(allow_nan=False), st.booleans()]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_value_comes_back_from_parquet_with_its_type(tmp_path: Path, data: st.DataObject) -> None:
    columns = {f"c{n}": st.none() | data.draw(st.sampled_from(KINDS)) for n in range(3)}
    rows = data.draw(st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=9))
    reply = data.draw(TEXTS)
    for got, row in zip(exported(tmp_path / "a.parquet", rows, reply), rows, strict=True):
        assert got["reply"] == reply
        for name, value in row.items():
            infinite = isinstance(value, float) and math.isinf(value)  # no item holds one
            assert infinite or (got[name] == value and type(got[name]) is type(value))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.fixed_dictionaries({"a": TEXTS, "b,\n": TEXTS}), min_size=1, max_size=9))
def test_a_text_comes_back_from_csv_as_it_is(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    for name in ("a.csv", "a.csv.gz"):
        got = exported(tmp_path / name, rows, reply='=1+1 "x",\r\n')
        assert [{key: row[key] for key in ("a", "b,\n")} for row in got] == rows
        assert got[0]["reply"] == '=1+1 "x",\r\n' and got[0]["accepted"] == "true"


@pytest.mark.parametrize("details", [False, True])
def test_jsonl_has_the_lines_of_the_output(tmp_path: Path, details: bool) -> None:
    results = results_of([{"a": [1, {"b": None}]}, {"a": "é\ud83d"}])
    wanted = [one.to_json() if details else one.line() for one in results]
    for name in ("a.jsonl", "a.jsonl.gz"):
        exported = write_export(tmp_path / name, iter(results), [], details=details)
        assert exported.rows == 2
        assert [row for _, row in read_rows(tmp_path / name, keep_halves=True)] == wanted


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [
        ([1, None, 2], pa.int64(), [1, None, 2]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([True, None], pa.bool_(), [True, None]),
        ([True, 1], pa.string(), ["true", "1"]),
        (["a", 1, None, 1.5], pa.string(), ["a", "1", None, "1.5"]),
        ([[1, "é"], {"x": None}], pa.string(), ['[1, "é"]', '{"x": null}']),
        ([2**63, 1], pa.string(), [str(2**63), "1"]),
        ([None, None], pa.string(), [None, None]),
        (["\ud83d"], pa.string(), ["\\ud83d"]),
    ],
)
def test_a_column_has_the_type_that_holds_all_its_values(
    values: list[object], kind: pa.DataType, wanted: list[object], tmp_path: Path
) -> None:
    exported(tmp_path / "a.parquet", [{"c": value} for value in values])
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.field("c").type == kind and table["c"].to_pylist() == wanted


def test_rows_without_a_column_have_null_there(tmp_path: Path) -> None:
    got = exported(tmp_path / "a.parquet", [{"a": 1}, {"b": "x"}])
    assert [(row["a"], row["b"]) for row in got] == [(1, None), (None, "x")]


def test_an_item_s_column_never_replaces_one_of_the_result(tmp_path: Path) -> None:
    row: dict[str, object] = {"id": 7, "reply": "old", "item.id": "mine", "item.item.id": "too"}
    (got,) = exported(tmp_path / "a.parquet", [row])
    assert got["id"] == "r0" and got["reply"] == "Hi" and got["item.reply"] == "old"
    assert (got["item.id"], got["item.item.id"], got["item.item.item.id"]) == ("mine", "too", 7)


def test_the_columns_of_a_result_are_flat_and_what_is_nested_is_json(tmp_path: Path) -> None:
    (got,) = exported(tmp_path / "a.parquet", [{}])
    assert list(got) == list(RESULT_COLUMNS)
    assert (
        got["score"] == 0.75 and got["stopped"] == "passed" and got["why"] == "Every check passed."
    )
    assert [verdict["check"] for verdict in json.loads(got["verdicts"])] == ["length", "tone"]
    assert json.loads(got["drafts"]) == []


def test_cells_that_a_spreadsheet_runs_are_counted_and_kept(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"a": "=1"}, {"a": "-x"}, {"a": -1}, {"a": " =1"}, {"a": "@b"}]
    note = write_export(tmp_path / "a.csv", results_of(rows, "+49 30"), rows)
    assert (note.rows, note.formulas) == (5, 3 + 5 + 1)  # -1 became a text among texts
    assert write_export(tmp_path / "n.csv", results_of([{"a": -1}]), [{"a": -1}]).formulas == 0


def test_row_groups_are_written_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "ROW_GROUP", 10)
    ahead = 0

    def counted() -> Iterator[Result]:
        nonlocal ahead
        for number in range(95):
            ahead = number
            yield result(str(number), {"n": number})

    write_export(tmp_path / "a.parquet", counted(), ({"n": n} for n in range(95)))
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert ahead == 94 and file.num_row_groups == 10 and file.metadata.num_rows == 95
    assert [row["n"] for _, row in read_rows(tmp_path / "a.parquet")] == list(range(95))


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz", "a.jsonl"])
def test_a_crash_leaves_the_older_export(name: str, tmp_path: Path) -> None:
    def broken() -> Iterator[Result]:
        yield result("a", {})
        raise KeyboardInterrupt

    write_export(tmp_path / name, results_of([{}]), [{}])
    before = (tmp_path / name).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_export(tmp_path / name, broken(), [{}])
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(OutputError, match=r"must be a file that can be written"):
        write_export(tmp_path / name / name, results_of([{}]), [{}])


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"a": n} for n in range(9)]
    for ending in (".parquet", ".csv.gz", ".jsonl.gz"):
        for name in ("one", "other"):
            write_export(tmp_path / (name + ending), results_of(rows), rows)
        one, other = ((tmp_path / (name + ending)).read_bytes() for name in ("one", "other"))
        assert one == other


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    write_job(tmp_path, ["Hello", "Thanks a lot", "A refund"])
    return tmp_path


def run(*arguments: str) -> Called:
    """Run `ostinato refine`; errors of ours are raised as they are."""
    called = CliRunner().invoke(refine, ["mail.toml", *arguments])
    if called.exception and not isinstance(called.exception, SystemExit):
        raise called.exception
    return called


def test_the_command_exports_beside_its_output(folder: Path) -> None:
    called = run("--export", "out.parquet", "--export", "tables/out.csv", "--details")
    assert called.exit_code == 0, called.output
    assert "  export   out.parquet (3 rows)\n" in called.output
    lines = [row for _, row in read_rows(Path("mail.replies.jsonl"))]
    for name in ("out.parquet", "tables/out.csv"):
        rows = [row for _, row in read_rows(Path(name))]
        assert [row["reply"] for row in rows] == [line["reply"] for line in lines]
        assert [row["message"] for row in rows] == ["Hello", "Thanks a lot", "A refund"]
        assert [row["item.id"] for row in rows] == [row["id"] for row in rows]
        assert [json.loads(row["drafts"]) for row in rows] == [line["drafts"] for line in lines]


def test_a_finished_job_is_exported_without_work(folder: Path) -> None:
    run()
    called = run("--export", "out.csv.gz", "--json")
    told = json.loads(called.output)
    assert told["exports"] == [str(folder / "out.csv.gz")] and told["exit"] == 0
    with gzip.open("out.csv.gz", "rt", encoding="utf-8", newline="") as file:
        assert [row["id"] for row in csv.DictReader(io.StringIO(file.read()))] == ["m0", "m1", "m2"]
    assert run("--export", "out.csv.gz").exit_code == 0  # its own file is replaced


def test_an_export_is_left_as_it_is_where_the_output_is(folder: Path) -> None:
    run("--export", "out.csv")
    before = Path("out.csv").read_bytes()
    run("--fresh", "--limit", "3")
    Path("mail.replies.jsonl").write_text("{}\n" * 9)
    Path("mail.toml").write_text(JOB + "[budget]\njob_tokens = 1\n")
    called = run("--fresh", "--export", "out.csv")
    assert "  kept     out.csv, like the output." in called.output, called.output
    assert Path("out.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("out.xlsx", r"a \.parquet, \.csv or \.jsonl file, or .*, got out\.xlsx\. Rename it\.$"),
        ("messages.jsonl", r"another file than the input, got messages\.jsonl\. Name another\.$"),
        ("mail.replies.jsonl", r"another file than the output, got"),
        ("twice.csv", r"another file than an earlier --export, got"),
        ("foreign.csv", r"a new file, or one that this job wrote, got foreign\.csv\. Name another"),
    ],
)
def test_an_export_that_cannot_be_is_refused_before_any_work(
    name: str, told: str, folder: Path
) -> None:
    Path("foreign.csv").write_text("mine")
    with pytest.raises(InputError, match=rf"^--export must name {told}"):
        run("--export", name, *(["--export", name] if name == "twice.csv" else []))
    assert Path("foreign.csv").read_text() == "mine"
    assert not Path("mail.replies.jsonl").exists()


def test_the_place_of_an_export_is_checked_before_any_work(folder: Path) -> None:
    Path("file").touch()
    with pytest.raises(OutputError, match=r"^The export must be a file that can be written, got"):
        run("--export", "file/out.csv")
    assert read_job("mail.toml") and not Path("mail.replies.jsonl").exists()
