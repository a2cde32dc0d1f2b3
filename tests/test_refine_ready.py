"""A job that cannot work here is refused before any work: its files, libraries, models and keys.
`--dry-run` says the same as the run."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from refine_scribe import JOB, scribe_loop, write_job

from ostinato.cli.jobs.refine import refine
from ostinato.cli.main import cli
from ostinato.errors import InputError, OstinatoError
from ostinato.output_files import require_writable
from ostinato.refine.job.job_run import JobRun

SERVER = 'model = "http://localhost:1/v1#m"\n'
JUDGE = '\n[[check]]\nkind = "judge"\nquestion = "Is it kind? {output}"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    (tmp_path / "taken").write_text("", "utf-8")
    (tmp_path / "folder").mkdir()
    return tmp_path


def without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def find_spec(module: str, package: str | None = None) -> object:
        return None if module == name else found(module, package)

    monkeypatch.setattr("ostinato.refine.job.preflight.find_spec", find_spec)
    monkeypatch.setattr("ostinato.remote.server.find_spec", find_spec)


@pytest.mark.parametrize("options", [("--dry-run",), ()], ids=["dry run", "run"])
@pytest.mark.parametrize(
    ("more", "arguments", "missing", "message"),
    [
        ("", ("--output", "taken/x.jsonl"), "", "taken is no folder"),
        ("", ("--output", "folder"), "", "must be a file, got the folder"),
        ("", ("--output", "x" * 300), "", "The output must be a file.*too long"),
        ("", ("--strategy", "constrain"), "llguidance", r"ostinato\[constrain\]"),
        ("", ("--model", "smolm2"), "", "Did you mean 'smollm2'"),
        ("", ("--model", "minilm"), "", r"must be one that writes text \(smollm2\)"),
        ("", ("--model", "smollm2+suport"), "", "got 'suport'. Did you mean 'support'"),
        ("", ("--model", "llama:x.gguf"), "llama_cpp", r"ostinato\[llama\]"),
        (SERVER, (), "httpx2", r"ostinato\[server\]"),
        (SERVER + '[server]\nkey_env = "NO_SUCH_KEY"\n', (), "", "NO_SUCH_KEY must hold the key"),
        (JUDGE + 'model = "http://localhost:1/v1#m"\nkey_env = "NO_SUCH_KEY"\n', (), "", "'judge'"),
    ],
)
def test_what_is_missing_is_told_before_any_work(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    more: str,
    arguments: tuple[str, ...],
    missing: str,
    message: str,
) -> None:
    text = JOB.replace('model = "smollm2"\n', "") if more.startswith("model") else JOB
    model, _, rest = more.partition("\n") if more.startswith("model") else ("", "", more)
    write_job(folder, ["Hello"], f"{model}\n{text}\n{rest}")
    without(missing, monkeypatch)
    result = CliRunner().invoke(refine, ["mail.toml", *arguments, *options])
    assert isinstance(result.exception, OstinatoError), result.output
    assert result.exc_info is not None
    with pytest.raises(OstinatoError, match=message):
        raise result.exception
    assert not Path(".ostinato").exists() and "Loading" not in result.output
    assert {path.name for path in folder.iterdir()} == {
        "mail.toml",
        "messages.jsonl",
        "taken",
        "folder",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_refused(folder: Path) -> None:
    (folder / "folder").chmod(0o555)
    with pytest.raises(OstinatoError, match="permission denied"):
        require_writable(folder / "folder" / "x.jsonl", "The output")


def test_a_full_disk_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = type("Disk", (), {"total": 1 << 40, "free": 100})
    monkeypatch.setattr("ostinato.output_files.shutil.disk_usage", lambda folder: disk)
    with pytest.raises(OstinatoError, match="no room is left in"):
        require_writable(folder / "new" / "x.jsonl", "The output")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "mesage\nHi\nHo\nHu\n",
            "every row: the column 'message' is missing.*'mesage'.*are: mesage.",
        ),
        ("mesage,x\nHi,1\n", "line 2: the column 'message' is missing"),
    ],
)
def test_a_mistyped_column_is_told_once(folder: Path, rows: str, message: str) -> None:
    write_job(folder, [], JOB.replace("messages.jsonl", "rows.csv").replace('id = "id"\n', ""))
    (folder / "rows.csv").write_text(rows, "utf-8")
    error = CliRunner().invoke(refine, ["mail.toml", "--dry-run"]).exception
    with pytest.raises(InputError, match=message) as caught:
        raise error or AssertionError
    assert str(caught.value).count("is missing") == 1


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        (["refine", "--limt", "3"], "--limit"),
        (["refine", "--ouput", "x"], "--output"),
        (["generate", "x", "--temprature", "3"], "--temperature"),
        (["train", "text", "--epoch", "3"], "--epochs"),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest_one(typed: list[str], near: str) -> None:
    told = CliRunner().invoke(cli, typed).output
    assert f"Did you mean '{near}'?" in told and "one of" not in told
