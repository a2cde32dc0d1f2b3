"""Rows of JSONL, CSV and Parquet: the same rows from each, as a stream, with their places."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
import math
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostinato import row_files
from ostinato.errors import InputError, MissingExtra
from ostinato.row_files import iter_rows, place, read_rows, row_format


def parquet(path: Path, columns: dict[str, Any], **more: Any) -> Path:
    pq.write_table(pa.table(columns), path, **more)
    return path


# The same rows from each --------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NAMES = ["a", "bé", "c d"]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=9))
def test_every_format_gives_the_same_rows(tmp_path: Path, rows: list[tuple[str, ...]]) -> None:
    wanted = [dict(zip(NAMES, row, strict=True)) for row in rows]
    lines = "".join(json.dumps(row) + "\n" for row in wanted).encode()
    with (tmp_path / "in.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([NAMES, *rows])
    (tmp_path / "in.jsonl").write_bytes(lines)
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "in.csv.GZ").write_bytes(gzip.compress((tmp_path / "in.csv").read_bytes()))
    parquet(tmp_path / "in.parquet", {name: [row[name] for row in wanted] for name in NAMES})
    for path in tmp_path.iterdir():
        assert [row for _, row in iter_rows(path)] == wanted, path.name


@pytest.mark.parametrize(
    ("name", "is_format"),
    [
        ("a.jsonl", "jsonl"),
        ("a.NDJSON", "jsonl"),
        ("a.ndjson.gz", "jsonl"),
        ("a.csv.gz", "csv"),
        ("a.b.parquet", "parquet"),
        ("a.parquet.gz", None),
        ("a.gz", None),
        ("jsonl", None),
        (".jsonl", None),
        ("a.json", None),
        ("a.txt", None),
    ],
)
def test_a_format_is_known_by_the_name(name: str, is_format: str | None, tmp_path: Path) -> None:
    assert row_format(Path(name)) == is_format
    if is_format is None:
        with pytest.raises(InputError, match=r"must be a \.jsonl, \.csv or \.parquet file, or"):
            iter_rows(tmp_path / name)


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.csv.gz", "in.parquet", "in.jsonl", "in.csv"])
def test_a_missing_file_and_a_folder_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in\.\S+ must exist\. Check its name\.$"):
        list(iter_rows(tmp_path / name))
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"in\.\S+ must be readable, got: is a directory\.$"):
        list(iter_rows(tmp_path / name))


def test_every_bad_row_is_listed_after_the_good_ones(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("{}\n[]\n" * 20)
    rows = iter_rows(path)
    assert [next(rows)[0] for _ in range(20)] == list(range(1, 41, 2))
    with pytest.raises(
        InputError, match=r"in\.jsonl has 20 problems:(\n  line \d+: .*){8}\n  and 12"
    ):
        next(rows)


def test_csv_is_read_in_batches_with_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.csv"
    path.write_text('a\n1\n"2\n2"\n\n3\n4,4\n5\n"6', newline="")
    for batch in (1, 2, 3, 256):
        monkeypatch.setattr(row_files, "CSV_ROWS", batch)
        rows = iter_rows(path)
        assert [next(rows)[0] for _ in range(4)] == [2, 3, 6, 8]
        told = r"2 problems:\n  line 7: a row must have 1 cells.*\n  line 9: it must be CSV: unexp"
        with pytest.raises(InputError, match=told):
            next(rows)


# Parquet ------------------------------------------------------------------------------------------

BERLIN = "Europe/Berlin"
NS = 1_700_000_000_123_456_789
SOME_ID = uuid.UUID(int=7)
VALUES: list[tuple[pa.DataType, object, object]] = [
    (pa.string(), "é😀", "é😀"),
    (pa.large_string(), "a", "a"),
    (pa.dictionary(pa.int8(), pa.string()), "a", "a"),
    (pa.bool_(), True, True),
    (pa.uint64(), 2**64 - 1, 2**64 - 1),
    (pa.float64(), 1.5, 1.5),
    (pa.float64(), math.nan, None),
    (pa.float32(), math.inf, None),
    (pa.float16(), 1.5, 1.5),
    (pa.decimal128(9, 2), Decimal("1.20"), "1.20"),
    (pa.decimal256(40, 9), Decimal("1E-9"), "0.000000001"),
    (pa.binary(), b"\xff\0", "/wA="),
    (pa.large_binary(), b"a", "YQ=="),
    (pa.binary(2), b"ab", "YWI="),
    (pa.date32(), dt.date(2024, 2, 29), "2024-02-29"),
    (pa.date64(), dt.date(1, 1, 1), "0001-01-01"),
    (pa.time32("s"), dt.time(1, 2, 3), "01:02:03"),
    (pa.time64("us"), dt.time(1, 2, 3, 4), "01:02:03.000004"),
    (pa.time64("ns"), 3_000_000_004, "00:00:03.000000004"),
    (pa.timestamp("s"), 0, "1970-01-01T00:00:00"),
    (pa.timestamp("us"), dt.datetime(2024, 1, 2, 3, 4, 5, 6), "2024-01-02T03:04:05.000006"),
    (pa.timestamp("ms", tz="UTC"), 1500, "1970-01-01T00:00:01.500000+00:00"),
    (pa.timestamp("us", tz=BERLIN), 0, "1970-01-01T01:00:00+01:00"),
    (pa.timestamp("ns"), NS, "2023-11-14T22:13:20.123456789"),
    (pa.timestamp("ns"), NS - 789, "2023-11-14T22:13:20.123456"),
    (pa.timestamp("ns"), -1, "1969-12-31T23:59:59.999999999"),
    (pa.timestamp("ns", tz=BERLIN), 10**9, "1970-01-01T01:00:01+01:00"),
    (pa.timestamp("ns", tz="-02:30"), 1, "1969-12-31T21:30:00.000000001-02:30"),
    (pa.duration("s"), 90, 90),
    (pa.duration("us"), 1_500_000, 1.5),
    (pa.duration("ns"), 2_500_000_000, 2.5),
    (pa.list_(pa.int8()), [1, None], [1, None]),
    (pa.list_(pa.float64(), 2), [1.0, math.nan], [1.0, None]),
    (pa.large_list(pa.timestamp("ns")), [0], ["1970-01-01T00:00:00"]),
    (pa.list_(pa.list_(pa.date32())), [[dt.date(2024, 1, 1)], None], [["2024-01-01"], None]),
    (pa.map_(pa.string(), pa.date32()), [("a", dt.date(2024, 1, 1))], {"a": "2024-01-01"}),
    (pa.map_(pa.int8(), pa.string()), [(1, "a")], [[1, "a"]]),
    (
        pa.struct({"x": pa.list_(pa.binary()), "y": pa.struct({"z": pa.duration("ns")})}),
        {"x": [b"a", None], "y": {"z": 10**9}},
        {"x": ["YQ==", None], "y": {"z": 1}},
    ),
    (pa.null(), None, None),
]


@pytest.mark.parametrize(("kind", "value", "wanted"), VALUES, ids=str)
def test_a_value_of_every_type_is_one_that_json_holds(
    kind: pa.DataType, value: object, wanted: object, tmp_path: Path
) -> None:
    column = pa.array([value, None] * 300, kind)
    path = parquet(tmp_path / "a.parquet", {"c": column, "n": range(600)}, row_group_size=250)
    rows = read_rows(path)
    assert rows[0] == (1, {"c": wanted, "n": 0}) and rows[599] == (600, {"c": None, "n": 599})
    assert type(rows[0][1]["c"]) is type(wanted)
    assert all(row["c"] == (None if row["n"] % 2 else wanted) for _, row in rows)
    json.dumps([row for _, row in rows], allow_nan=False)


def test_an_extension_type_is_its_text(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"id": pa.array([SOME_ID.bytes, None], pa.uuid())})
    assert [row["id"] for _, row in read_rows(path)] == [str(SOME_ID), None]


def test_a_row_group_is_not_held(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        numbers = pa.array([f"{n * 7919 % 10**9:09}" * 30 for n in range(rows)])
        path = parquet(
            tmp_path / "a.parquet",
            {"c": numbers},
            row_group_size=rows,
            use_dictionary=False,
            compression="none",
        )
        before = pa.total_allocated_bytes()
        most = 0
        for _ in iter_rows(path):
            most = max(most, pa.total_allocated_bytes() - before)
        return most

    assert peak(40_000) < 1.3 * peak(10_000) < 2**23


def damaged(kind: str, whole: bytes) -> bytes:
    match kind:
        case "empty":
            return b""
        case "text":
            return b"id,message\n" * 9
        case "cut":
            return whole[:-30]
        case "page":
            return whole[:40] + b"\xff" * 40 + whole[80:]
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "page"])
def test_damaged_parquet_is_told(kind: str, tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"c": [str(n) for n in range(99)]}, compression="none")
    path.write_bytes(damaged(kind, path.read_bytes()))
    with pytest.raises(
        InputError, match=r"^a\.parquet.*: it must be Parquet that can be read, got: "
    ):
        list(iter_rows(path))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: pa.table([[1], [2]], names=["a", "a"]), r"got 'a' 2 times\. Rename it\.$"),
        (lambda: pa.table([[1]], names=[" "]), r"got an empty name\. Rename it\.$"),
        (
            lambda: pa.table(
                {"m": pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int8()))}
            ),
            r"got: a map with the same key twice\.",
        ),
        (
            lambda: pa.table({"d": pa.array([10**9], pa.timestamp("s")).cast(pa.timestamp("s"))}),
            None,
        ),
        (lambda: pa.table({"d": pa.array([10**15], pa.timestamp("us"))}), None),
        (lambda: pa.table({"d": pa.array([2**31 - 1], pa.date32())}), r"must be Parquet that can"),
    ],
)
def test_columns_that_no_row_can_have_are_refused(
    make: Callable[[], pa.Table], told: str | None, tmp_path: Path
) -> None:
    pq.write_table(make(), tmp_path / "a.parquet")
    if told is None:
        assert len(read_rows(tmp_path / "a.parquet")) == 1
        return
    with pytest.raises(InputError, match=told):
        read_rows(tmp_path / "a.parquet")


def test_the_place_of_a_row_is_a_line_or_a_row() -> None:
    assert place(Path("a.csv.gz"), 3) == "line 3" and place(Path("a.parquet"), 3) == "row 3"


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "a.parquet", {"c": [1]})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    told = r"^A Parquet file needs an extra\. Install it with: pip install 'ostinato\[parquet\]'$"
    with pytest.raises(MissingExtra, match=told):
        read_rows(path)
