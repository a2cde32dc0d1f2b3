"""`--only`: items that were not accepted are worked on again, and accepted replies are kept."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from refine_scribe import JOB, Scribe, scribe_loop, write_job
from test_refine_killed import start

from ostinato.cli.jobs.refine import refine
from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.journal import Journal, RunSession
from ostinato.loop import Lane
from ostinato.refine.job.job_run import JobRun

MESSAGES = [*(f"Message {n}" for n in range(12)), "broken", "Thanks"]
HARD = JOB.replace("rounds = 40", "rounds = 8")


RECORD = RunSession.result


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the items that the scribe starts; some of the job's items are not accepted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    keys: list[str] = []
    begin = Scribe.start

    def counted(self: Scribe, lane: Lane, item: object) -> None:
        if lane.key not in keys:
            keys.append(lane.key)
        begin(self, lane, item)

    monkeypatch.setattr(Scribe, "start", counted)
    write_job(tmp_path, MESSAGES, HARD)
    assert run().exit_code == 1
    outcomes = set(by_outcome())
    assert outcomes >= {"accepted", "given up", "error"}
    keys.clear()
    return keys


def run(*options: str) -> Result:
    """Run `ostinato refine`; errors of ours are raised as they are."""
    result = CliRunner().invoke(refine, ["mail.toml", *options])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def replies() -> dict[str, dict[str, Any]]:
    lines = Path("mail.replies.jsonl").read_text("utf-8").splitlines()
    return {line["id"]: line for line in map(json.loads, lines)}


def by_outcome() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key, line in replies().items():
        found.setdefault(line["outcome"], set()).add(key)
    return found


def names() -> list[str]:
    with Journal() as journal:
        return [found.name for found in journal.runs()]


@pytest.mark.parametrize(
    ("only", "outcomes"),
    [("failed", {"given up", "error"}), ("errors", {"error"}), ("given-up", {"given up"})],
)
def test_only_these_items_are_worked_on_again(
    only: str, outcomes: set[str], started: list[str]
) -> None:
    before, found = replies(), by_outcome()
    wanted = set().union(*(found[outcome] for outcome in outcomes))
    result = run("--only", only, "--seed", "1")
    assert set(started) == wanted
    after = replies()
    assert list(after) == list(before)
    assert all(after[key] == before[key] for key in before if key not in wanted)
    assert names() == ["mail-2", "mail"]
    kept = len(MESSAGES) - len(wanted)
    assert f"{kept} of {len(MESSAGES)} replies are taken over" in result.output


def test_again_and_again_until_all_are_accepted(started: list[str]) -> None:
    text = Path("messages.jsonl").read_text()
    Path("messages.jsonl").write_text(text.replace("broken", "Hi"))
    run("--update")
    for seed in range(1, 60):
        given_up = by_outcome().get("given up", set())
        if not given_up:
            break
        started.clear()
        run("--only", "failed", "--seed", str(seed))
        assert set(started) == given_up
    started.clear()
    made = names()
    result = run("--only", "failed", "--seed", "99")
    assert result.exit_code == 0 and "The job is finished" in result.output
    assert not started and names() == made and set(by_outcome()) <= {"accepted", "revised"}


def test_another_strategy_may_do_it(started: list[str]) -> None:
    failed = by_outcome()["given up"]
    run("--only", "given-up", "--strategy", "backtrack")
    assert set(started) == failed
    with Journal() as journal:
        assert journal.get("mail-2").spec["only"]["which"] == "given-up"  # type: ignore[index, call-overload]


def test_new_and_changed_items_are_written_too(started: list[str]) -> None:
    lines = Path("messages.jsonl").read_text().splitlines()
    done = sorted(by_outcome()["revised"])
    number = int(done[0][1:])
    lines[number] = lines[number].replace("Message", "Other")
    lines.append('{"id": "new", "message": "Hello"}')
    Path("messages.jsonl").write_text("".join(f"{line}\n" for line in lines))
    errors = by_outcome()["error"]
    run("--only", "errors")
    assert set(started) == {done[0], "new"} | errors


def test_a_finished_run_is_followed_by_another_and_an_unfinished_one_resumed(
    started: list[str],
) -> None:
    failed = by_outcome()["given up"] | by_outcome()["error"]
    before = Path("mail.replies.jsonl").read_bytes()
    Path("mail.toml").write_text(HARD + "[budget]\njob_tokens = 1\n")
    result = run("--only", "failed", "--seed", "5")
    assert result.exit_code == 3 and "  kept     " in result.output
    assert Path("mail.replies.jsonl").read_bytes() == before
    Path("mail.toml").write_text(HARD)
    run("--only", "failed", "--seed", "5")
    assert names() == ["mail-2", "mail"] and set(started) == failed
    run("--only", "failed", "--seed", "5")
    assert names() == ["mail-3", "mail-2", "mail"]


def test_other_items_are_worked_on_in_another_run(started: list[str]) -> None:
    found = by_outcome()
    Path("mail.toml").write_text(HARD + "[budget]\njob_tokens = 1\n")
    assert run("--only", "given-up", "--seed", "5").exit_code == 3
    Path("mail.toml").write_text(HARD)
    started.clear()
    run("--only", "errors", "--seed", "5")
    assert names() == ["mail-3", "mail-2", "mail"]
    assert found["error"] < set(started) <= found["error"] | found["given up"]
    assert len(replies()) == len(MESSAGES)


def test_the_run_is_resumed_by_its_name(started: list[str]) -> None:
    Path("mail.toml").write_text(HARD + "[budget]\njob_tokens = 1\n")
    run("--only", "failed", "--seed", "5")
    Path("mail.toml").write_text(HARD)
    CliRunner().invoke(cli, ["runs", "resume", "mail-2"])
    assert names() == ["mail-2", "mail"]
    with Journal() as journal:
        assert len(dict(journal.get("mail-2").results())) == len(MESSAGES)


def test_what_was_taken_over_from_another_seed_is_not_taken_as_that_of_the_seed(
    started: list[str],
) -> None:
    run("--only", "failed", "--seed", "1")
    started.clear()
    run("--seed", "1", "--output", "other.jsonl", "--limit", "12")
    with Journal() as journal:
        again = dict(journal.get("mail-2").results())
    own = {key for key, row in again.items() if not row.get("carried")}
    assert set(started) == {f"m{n}" for n in range(12)} - own
    lines = [json.loads(line) for line in Path("other.jsonl").read_text().splitlines()]
    run("--seed", "1", "--output", "alone.jsonl", "--limit", "12", "--fresh")
    alone = [json.loads(line) for line in Path("alone.jsonl").read_text().splitlines()]
    assert lines == alone


@pytest.fixture
def dies(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends once it has taken over two results."""
    taken = 0

    def killed(self: RunSession, key: str, row: Any) -> None:
        nonlocal taken
        taken += 1
        if taken > 2:
            self.flush()
            raise KeyboardInterrupt
        RECORD(self, key, row)

    monkeypatch.setattr(RunSession, "result", killed)


def lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunSession, "result", RECORD)
    with Journal() as journal:
        assert journal.get("mail-2").count_results() == 2


def test_a_process_killed_while_it_takes_over_is_completed(
    started: list[str], dies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [key for key, line in replies().items() if line["accepted"]]
    failed = set(replies()) - set(kept)
    assert run("--only", "failed", "--seed", "1").exit_code == 130
    lives(monkeypatch)
    run("--seed", "1")  # as it is resumed by its recorded command
    assert names() == ["mail-2", "mail"] and set(started) == failed
    assert all(replies()[key]["accepted"] for key in kept)


@pytest.mark.parametrize("again", [[], ["--update"]])
def test_an_update_killed_while_it_takes_over_writes_no_reply_again(
    again: list[str], started: list[str], dies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = replies()
    with Path("messages.jsonl").open("a") as file:
        file.write('{"id": "new", "message": "Hello"}\n')
    assert run("--update").exit_code == 130
    lives(monkeypatch)
    run(*again)
    assert names() == ["mail-2", "mail"] and started == ["new"]
    after = replies()
    assert {key: after[key] for key in before} == before and list(after)[-1] == "new"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--fresh"], r"^--only must be given without --fresh, got both\. Leave one out\.$"),
        (["--update"], r"^--only must be given without --update, got both\."),
        (["--run", "x"], r"^--run must be given without --only, got 'x'\."),
        (["--output", "o.jsonl"], r"^--only must come after a run of mail\.toml with the output"),
        (["--limit", "12"], r"^The output must not lose replies: "),
    ],
)
def test_what_only_cannot_do_is_told(options: list[str], told: str, started: list[str]) -> None:
    with pytest.raises(InputError, match=told):
        run("--only", "failed", *options)
    assert names() == ["mail"] and not started


def test_other_checks_are_refused(started: list[str]) -> None:
    Path("mail.toml").write_text(HARD.replace("max = 6", "max = 7"))
    with pytest.raises(InputError, match=r"^The checks of mail\.toml must be those of its run"):
        run("--only", "failed")
    assert names() == ["mail"] and not started


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_replies(tmp_path: Path) -> None:
    write_job(tmp_path, [f"Hello {n}" for n in range(40)], HARD)
    assert start(tmp_path).wait() == 1
    lines = (tmp_path / "mail.replies.jsonl").read_text().splitlines()
    kept = {line["id"]: line for line in map(json.loads, lines) if line["accepted"]}
    child = start(tmp_path, "--only", "failed", "--seed", "3")
    while child.poll() is None:
        time.sleep(0.01)
        with Journal(tmp_path / ".ostinato" / "journal.db") as journal:
            found = journal.find("mail-2")
            if found and found.count_results() > len(kept) + 2:
                break
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert start(tmp_path, "--only", "failed", "--seed", "3").wait() in (0, 1)
    with Journal(tmp_path / ".ostinato" / "journal.db") as journal:
        assert [found.name for found in journal.runs()] == ["mail-2", "mail"]
    killed = (tmp_path / "mail.replies.jsonl").read_text().splitlines()
    after = {line["id"]: line for line in map(json.loads, killed)}
    assert {key: after[key] for key in kept} == kept and len(after) == 40
    assert start(tmp_path, "--seed", "3", "--fresh").wait() == 1
    alone = (tmp_path / "mail.replies.jsonl").read_text().splitlines()
    for line in map(json.loads, alone):
        assert line["id"] in kept or line == after[line["id"]]
