"""What a run of a job has done is never written again and never lost: limits, order, more items,
changes that were put back, interrupts, two processes, a full disk."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from refine_scribe import JOB, Scribe, scribe_loop, write_job

from ostinato.cli.jobs.refine import refine
from ostinato.errors import InputError, OstinatoError, RunLocked
from ostinato.journal import Journal, RunSession
from ostinato.loop import Lane, Step
from ostinato.refine.job.job_run import JobRun

MESSAGES = [f"Message {n}" for n in range(8)]
REPLIES = Path("mail.replies.jsonl")


@pytest.fixture(autouse=True)
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the items that the scribe starts; a job of eight items is finished."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    keys: list[str] = []
    start = Scribe.start

    def counted(self: Scribe, lane: Lane, item: object) -> None:
        keys.append(lane.key)
        start(self, lane, item)

    monkeypatch.setattr(Scribe, "start", counted)
    write_job(tmp_path, MESSAGES)
    assert run().exit_code == 0
    keys.clear()
    return keys


def run(*options: str) -> Result:
    result = CliRunner().invoke(refine, ["mail.toml", *options])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def replies(path: Path = REPLIES) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def names() -> list[str]:
    with Journal() as journal:
        return [found.name for found in journal.runs()]


def rows_of_input() -> list[str]:
    return Path("messages.jsonl").read_text("utf-8").splitlines()


def write_input(rows: list[str]) -> None:
    Path("messages.jsonl").write_text("".join(f"{row}\n" for row in rows), "utf-8")


def test_a_limit_below_what_is_done_writes_nothing_and_keeps_the_output(started: list[str]) -> None:
    before = REPLIES.read_bytes()
    told = run("--limit", "3").output
    assert "The job is finished" in told and "3 of 3 accepted" in told
    assert "kept     mail.replies.jsonl has 8 replies, more than the 3 of this run." in told
    assert "delete it first; or name another with --output" in told
    assert REPLIES.read_bytes() == before and started == [] and names() == ["mail"]
    value = json.loads(run("--limit", "3", "--json").stdout)
    assert value["kept"] == 8 and value["accepted"] == 3
    REPLIES.unlink()
    run("--limit", "3")
    assert [reply["id"] for reply in replies()] == ["m0", "m1", "m2"] and started == []


def test_items_in_another_order_are_put_in_order_and_not_written(started: list[str]) -> None:
    before = replies()
    write_input(rows_of_input()[::-1])
    assert run().exit_code == 0
    assert replies() == before[::-1] and started == [] and names() == ["mail"]


def test_more_items_are_written_beside_those_that_are_done(started: list[str]) -> None:
    before = replies()
    write_input(['{"id": "new", "message": "Hello"}', *rows_of_input()])
    assert "8 of 9 replies are taken over from earlier runs of the job." in run().stderr
    assert replies()[1:] == before and set(started) == {"new"}


@pytest.mark.parametrize("output", ["mail.replies.jsonl", "other.jsonl"])
def test_a_higher_limit_or_another_output_reuses_what_is_done(
    started: list[str], output: str
) -> None:
    whole = replies()
    run("--limit", "2", "--output", "other.jsonl", "--fresh")
    started.clear()
    Path(output).unlink()
    run("--limit", "5", "--output", output)
    assert replies(Path(output)) == whole[:5] and started == []


def test_a_smaller_output_is_refused_before_any_work(started: list[str]) -> None:
    before = REPLIES.read_bytes()
    with pytest.raises(InputError, match=r"mail\.replies\.jsonl has 8, and this run would leave 2"):
        run("--limit", "2", "--fresh")
    assert REPLIES.read_bytes() == before and started == [] and names() == ["mail"]
    assert run("--limit", "2", "--fresh", "--output", "two.jsonl").exit_code == 0
    assert replies(Path("two.jsonl")) == replies()[:2]


def test_removed_items_leave_the_output_only_with_update(started: list[str]) -> None:
    before = replies()
    write_input(rows_of_input()[2:])
    with pytest.raises(InputError, match=r"2 items \(m0, m1\) no longer in the input"):
        run()
    assert replies() == before
    run("--update")
    assert replies() == before[2:] and started == []


def test_an_interrupted_update_keeps_the_whole_output(
    started: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = REPLIES.read_bytes()
    page = Path("mail.replies.report.html").read_bytes()
    write_job(tmp_path, MESSAGES, JOB.replace("max = 6", "max = 5"))

    def step(self: object, step: Step) -> None:
        if step.tick == 9:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("ostinato.refine.progress.PlainProgress.step", step)
        stopped = run("--update")
    assert stopped.exit_code == 130
    assert "It is replaced when all of this run are done." in stopped.output
    assert REPLIES.read_bytes() == before
    assert Path("mail.replies.report.html").read_bytes() == page
    assert run().exit_code == 0
    assert REPLIES.read_bytes() != before and len(replies()) == 8
    assert names() == ["mail-2", "mail"]


@pytest.mark.parametrize("updated", [False, True], ids=["refused", "updated"])
def test_a_job_that_is_put_back_finds_its_finished_run(
    started: list[str], tmp_path: Path, updated: bool
) -> None:
    before = REPLIES.read_bytes()
    write_job(tmp_path, MESSAGES, JOB.replace("max = 6", "max = 5"))
    with pytest.raises(InputError, match="8 of 8 items would be written again"):
        run()
    if updated:
        run("--update")
    started.clear()
    write_job(tmp_path, MESSAGES)
    told = run()
    assert "The job is finished" in told.output and "run      mail\n" in told.output
    assert REPLIES.read_bytes() == before and started == []


def test_what_an_update_has_written_is_not_written_by_the_next(
    started: list[str], tmp_path: Path
) -> None:
    changed = "seed = 4\n" + JOB
    write_job(tmp_path, MESSAGES, changed)
    run("--update", "--limit", "3", "--output", "try.jsonl")
    started.clear()
    with pytest.raises(InputError, match="5 of 8 items would be written again"):
        run()
    run("--update")
    assert set(started) == {f"m{n}" for n in range(3, 8)}
    assert replies()[:3] == replies(Path("try.jsonl"))


STRICTER = JOB.replace("max = 6", "max = 5")


def too_long(rows: list[dict[str, Any]]) -> set[str]:
    """The items whose accepted replies have more words than the stricter job allows."""
    return {row["id"] for row in rows if row["accepted"] and len(row["reply"].split()) > 5}


def test_replies_that_pass_changed_checks_stay(started: list[str], tmp_path: Path) -> None:
    before = replies()
    again = too_long(before) | {row["id"] for row in before if not row["accepted"]}
    assert 0 < len(again) < 8
    write_job(tmp_path, MESSAGES, STRICTER)
    with pytest.raises(InputError, match="but for accepted replies that pass the changed checks"):
        run()
    told = run("--update", "--details")
    assert f"{8 - len(again)} of 8 replies are taken over" in told.output
    assert set(started) == again
    for row, old in zip(replies(), before, strict=True):
        if row["id"] not in again:
            assert row["reply"] == old["reply"] and row["accepted"]
            assert [verdict["passed"] for verdict in row["verdicts"]] == [True, True]
    with Journal() as journal:
        rows = dict(journal.runs()[0].results())
    kept = {key: row for key, row in rows.items() if row.get("carried")}
    assert kept.keys() == {row["id"] for row in before} - again
    assert all(row["carried_from"] == "mail" and row["judged_anew"] for row in kept.values())


def test_a_dry_run_tells_what_an_update_would_do(started: list[str], tmp_path: Path) -> None:
    before = replies()
    refused = {row["id"] for row in before if not row["accepted"]}
    long, files = too_long(before), sorted(tmp_path.rglob("*.jsonl"))
    write_job(tmp_path, MESSAGES, STRICTER)
    told = json.loads(run("--update", "--dry-run", "--json").output)["update"]
    accepted = 8 - len(refused)
    assert told == {
        "same": 0,
        "judged": accepted,
        "passed": accepted - len(long),
        "written": len(long | refused),
    }
    shown = run("--update", "--dry-run").output
    assert f"{accepted} accepted replies are judged by the changed checks" in shown
    assert len(names()) == 1 and replies() == before and sorted(tmp_path.rglob("*.jsonl")) == files
    Path(".ostinato/journal.db").rename("away.db")
    assert "--update:" not in run("--update", "--dry-run").output


def test_a_new_check_judges_what_was_accepted_and_a_removed_one_nothing(
    started: list[str], tmp_path: Path
) -> None:
    before = replies()
    accepted = {row["id"] for row in before if row["accepted"]}
    word = before[0]["reply"].split()[0]
    extra = f'\n[[check]]\nkind = "excludes"\nname = "word"\ntexts = ["{word}"]\n'
    write_job(tmp_path, MESSAGES, JOB + extra)
    run("--update", "--details")
    held = {row["id"] for row in before if word in row["reply"]}
    assert started and set(started) >= held and accepted - set(started) <= accepted - held
    assert all("word" in [v["check"] for v in row["verdicts"]] for row in replies())
    kept = {row["id"] for row in replies() if row["accepted"]}
    started.clear()
    write_job(tmp_path, MESSAGES, JOB.replace("max = 6", "max = 60"))
    run("--update")
    assert not set(started) & kept & accepted


def test_a_process_that_dies_while_it_judges_is_finished_by_the_next(
    started: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = replies()
    again = too_long(before) | {row["id"] for row in before if not row["accepted"]}
    write_job(tmp_path, MESSAGES, STRICTER)
    done, result = [], RunSession.result

    def dies(self: RunSession, key: str, row: Any) -> None:
        result(self, key, row)
        done.append(key)
        if len(done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunSession, "result", dies)
    run("--update")
    monkeypatch.setattr(RunSession, "result", result)
    assert started == [] and len(names()) == 2
    run()  # without --update: the run is there
    assert set(started) == again and len(names()) == 2


def test_an_output_that_another_process_writes_is_refused_before_any_work(
    started: list[str],
) -> None:
    with Journal() as journal, RunSession(journal.get("mail")):
        for options in ((), ("--fresh",), ("--limit", "2")):
            with pytest.raises(RunLocked, match=r"is written by the run 'mail', which the process"):
                run(*options)
    assert started == [] and names() == ["mail"]
    assert run().exit_code == 0


def test_a_full_disk_leaves_the_output_and_says_where_the_replies_are(
    started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = REPLIES.read_bytes()
    write_input([*rows_of_input(), '{"id": "new", "message": "Hello"}'])

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        # Of the output only: what is written before the work has room.
        patch.setattr("ostinato.output_files.os", SimpleNamespace(**{**vars(os), "fsync": full}))
        with pytest.raises(OstinatoError, match=r"no space left on device.*the same command"):
            run()
    assert REPLIES.read_bytes() == before
    assert not [path for path in Path().iterdir() if path.name.startswith(f".{REPLIES}")]
    started.clear()
    assert run().exit_code == 0
    assert len(replies()) == 9 and started == []
