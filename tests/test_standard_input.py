"""A job's input from a pipe: kept as a file, so that the run resumes without the pipe."""

from __future__ import annotations

import gzip
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from refine_scribe import JOB, scribe_loop, write_job

from ostinato.cli.jobs import job_input
from ostinato.cli.jobs.refine import refine
from ostinato.cli.main import cli
from ostinato.errors import InputError, OutputError
from ostinato.refine import keep_input, read_job
from ostinato.refine.job.job_run import JobRun
from ostinato.refine.job.standard_input import ending_of
from ostinato.row_files import read_rows

ROWS = [{"id": f"p{n}", "message": message} for n, message in enumerate(["Hello", "Thanks a lot"])]
PIPED = JOB.replace('"messages.jsonl"', '"-"')


def jsonl(rows: list[dict[str, str]] = ROWS) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_text() -> bytes:
    return ("id,message\n" + "".join(f"{r['id']},{r['message']}\n" for r in ROWS)).encode()


def parquet_bytes() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), file)
    return file.getvalue()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    write_job(tmp_path, ["from the file"])
    yield tmp_path


def run(*arguments: str, piped: bytes = b"") -> Result:
    """Run `ostinato refine`; errors of ours are raised as they are."""
    result = CliRunner().invoke(refine, ["mail.toml", *arguments], input=piped)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def ids() -> list[str]:
    return [json.loads(line)["id"] for line in Path("mail.replies.jsonl").read_text().splitlines()]


def kept() -> list[Path]:
    folder = Path(".ostinato/inputs/journal")
    return sorted(folder.iterdir()) if folder.exists() else []


# The command --------------------------------------------------------------------------------------


def packed() -> bytes:
    return gzip.compress(jsonl(), mtime=0)  # the time in it would make it another input


@pytest.mark.parametrize("make", [jsonl, csv_text, parquet_bytes, packed])
@pytest.mark.parametrize("named", ["option", "job"])
def test_a_job_takes_its_items_from_a_pipe(make: object, named: str, folder: Path) -> None:
    assert callable(make)
    if named == "job":
        (folder / "mail.toml").write_text(PIPED)
    result = run(*(["--input", "-"] if named == "option" else []), piped=make())
    assert result.exit_code == 0, result.output
    assert ids() == ["p0", "p1"]
    # Again, with the same pipe: the same file and the same run.
    again = run("--input", "-", piped=make())
    assert "The job is finished" in again.output and len(kept()) == 1


def test_the_run_is_resumed_without_the_pipe(folder: Path) -> None:
    (folder / "mail.toml").write_text(PIPED)
    run("--limit", "1", piped=jsonl())
    (path,) = kept()
    Path("mail.replies.jsonl").unlink()
    resumed = CliRunner().invoke(cli, ["runs", "resume", "mail"])
    assert "The job is finished" in resumed.output and ids() == ["p0"]
    result = run("--limit", "1", "--input", str(path))
    assert "The job is finished" in result.output
    assert "1 of 2 replies" not in result.output


def test_on_a_terminal_the_newest_run_s_input_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def typed() -> Result:
        with monkeypatch.context() as patch:
            patch.setattr(job_input, "_pipe", lambda: None)
            return run("--input", "-")

    with pytest.raises(InputError, match=r"must come from a pipe or a file, got none\. Pipe the"):
        typed()
    run("--input", "-", piped=jsonl(ROWS[:1]))
    run("--input", "-", "--fresh", piped=jsonl())
    result = typed()
    assert "The job is finished" in result.output and ids() == ["p0", "p1"]


def test_a_dry_run_of_a_pipe_leaves_nothing_behind(folder: Path) -> None:
    result = run("--input", "-", "--dry-run", piped=jsonl())
    assert (
        "2 items from" in result.output and "Thanks a lot" not in result.output.split("is answ")[0]
    )
    assert not Path(".ostinato").exists()


@pytest.mark.parametrize("piped", [b"", b"\n \n"])
def test_an_empty_pipe_is_refused_and_leaves_no_run(piped: bytes, folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"^Standard input must hold at least one item, got none\."
    ):
        run("--input", "-", piped=piped)
    assert not Path(".ostinato").exists()


def test_a_bad_row_of_a_pipe_is_told_with_its_line(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"^standard-input-[0-9a-f]{16}\.jsonl, line 2: it must be a JSON object"
    ):
        run("--input", "-", piped=b'{"id": 1, "message": "a"}\n[1]\n')


def test_a_kept_input_goes_when_no_run_uses_it(folder: Path) -> None:
    run("--input", "-", piped=jsonl())
    (used,) = kept()
    for piped in (b"[1]\n", jsonl([{"id": "x", "message": "Hi"}])):
        with pytest.raises(InputError):  # a bad row; and a changed input
            run("--input", "-", piped=piped)
        assert kept() == [used]
    fresh, old = used.with_name("fresh.jsonl"), used.with_name("old.jsonl")
    for path, age in ((fresh, 3600), (old, 2 * 24 * 3600), (used, 9 * 24 * 3600)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    run("--input", "-", piped=jsonl())
    assert set(kept()) == {used, fresh}


# --input ------------------------------------------------------------------------------------------


def test_input_replaces_the_job_s_own_which_need_not_exist(folder: Path) -> None:
    (folder / "messages.jsonl").unlink()
    outside = folder / "elsewhere"
    outside.mkdir()
    (outside / "rows.csv").write_bytes(csv_text())
    assert run("--input", "elsewhere/rows.csv").exit_code == 0
    assert ids() == ["p0", "p1"]
    (folder / "mail.toml").write_text(JOB.replace('input = "messages.jsonl"\n', ""))
    assert "The job is finished" in run("--input", "elsewhere/rows.csv").output


def test_an_input_that_is_no_file_is_refused(folder: Path) -> None:
    for name, told in (("none.jsonl", "a file that exists, got"), (".", r"a file, got .*Pipe it")):
        with pytest.raises(InputError, match=rf"^--input must be {told}"):
            read_job("mail.toml", input=name)


def test_an_output_never_replaces_the_input_that_is_given(folder: Path) -> None:
    Path("mail.replies.jsonl").write_bytes(jsonl())
    with pytest.raises(InputError, match=r"output.*must be another file than the input"):
        read_job("mail.toml", input="mail.replies.jsonl")
    with pytest.raises(InputError, match="--output must be another file than the input"):
        read_job("mail.toml", input="messages.jsonl", output="messages.jsonl")


# The kept file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "ending"),
    [
        (b'{"a": 1}', ".jsonl"),
        (b'\xef\xbb\xbf \n{"a": 1}', ".jsonl"),
        ('\ufeff{"a": 1}'.encode("utf-16-le"), ".jsonl"),
        ('\ufeff{"a": 1}'.encode("utf-16-be"), ".jsonl"),
        (b"[1]", ".jsonl"),
        (b"a,b\n", ".csv"),
        (b'"a",b\n', ".csv"),
        (b"PAR1", ".parquet"),
        (gzip.compress(b"{}", mtime=0), ".jsonl.gz"),
        (gzip.compress(b"a,b\n" * 99, mtime=0)[:20], ".csv.gz"),
        (b"\x1f\x8bxx", ".jsonl.gz"),
    ],
)
def test_the_first_bytes_tell_the_format(first: bytes, ending: str) -> None:
    assert ending_of(first) == ending


def test_a_file_is_kept_whole_or_not_at_all(folder: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 2**19:
                raise KeyboardInterrupt
            return super().read(size)

    rows = jsonl([{"id": str(n), "message": "x" * 200} for n in range(9000)])
    with pytest.raises(KeyboardInterrupt):
        keep_input(Broken(rows), folder / "inputs")
    assert not list((folder / "inputs").iterdir())
    path = keep_input(io.BytesIO(rows), folder / "inputs")
    assert keep_input(io.BytesIO(rows), folder / "inputs") == path
    assert [p.name for p in (folder / "inputs").iterdir()] == [path.name]
    assert len(read_rows(path)) == 9000


def test_a_folder_that_cannot_hold_it_is_told(folder: Path) -> None:
    (folder / "inputs").write_text("a file")
    with pytest.raises(
        OutputError, match=r"inputs must be a folder that standard input can be kept"
    ):
        keep_input(io.BytesIO(b"{}"), folder / "inputs")
