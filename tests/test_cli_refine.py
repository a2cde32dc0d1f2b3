"""`ostinato refine`, `check` and `why` from the command line, with a scribe in place of a model."""

from __future__ import annotations

import heapq
import io
import json
import math
import os
import random
import re
import signal
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from refine_scribe import JOB, scribe_loop, write_job
from rich.console import Console

from ostinato.cli.jobs.check import check
from ostinato.cli.jobs.refine import refine
from ostinato.cli.jobs.why import why
from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.journal import Journal, Stopped
from ostinato.journal.stops import StopKind
from ostinato.loop import (
    Action,
    GoBack,
    LaneResult,
    LaneStep,
    Loop,
    StartOver,
    Step,
    ends_by_signal,
)
from ostinato.refine.job.job_run import JobRun
from ostinato.refine.progress import LiveProgress
from ostinato.refine.progress_tally import ProgressTally
from ostinato.refine.watched import Watched

MESSAGES = ["Hello", "Thanks a lot", "Where are you?", "A refund", "Are you open?", "Call me"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    yield tmp_path


def run(*arguments: str) -> Result:
    """Run `ostinato refine`; errors of ours are raised as they are."""
    result = CliRunner().invoke(refine, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines(path: str = "mail.replies.jsonl") -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def test_details_are_written_when_they_are_wanted(folder: Path) -> None:
    write_job(folder, MESSAGES)
    run("mail.toml")
    slim = lines()[0]
    assert "failed" in slim and not slim.keys() & {"drafts", "verdicts"}
    run("mail.toml", "--details")
    whole = lines()[0]
    assert whole["drafts"] and whole["verdicts"] and "numbers" in str(whole["stopped"])
    assert whole["reply"] == slim["reply"]
    with Journal() as journal:
        (name,) = [each.name for each in journal.runs()]  # nothing was worked on again
    Path("mail.replies.jsonl").unlink()
    resumed = CliRunner().invoke(cli, ["runs", "resume", name])
    assert resumed.exit_code == 0 and lines()[0] == whole, resumed.output
    run("mail.toml")
    assert lines()[0] == slim
    Path("mail.toml").write_text("details = true\n" + Path("mail.toml").read_text())
    run("mail.toml")
    assert lines()[0] == whole


def test_a_job_writes_output_and_report_and_says_it_is_finished(folder: Path) -> None:
    write_job(folder, MESSAGES)
    result = run("mail.toml")
    assert result.exit_code == 0, result.output
    assert "6 of 6 accepted" in result.output
    assert [line["id"] for line in lines()] == [f"m{n}" for n in range(6)]
    assert [line["source"] for line in lines()].count("rule") == 1
    assert "<title>mail: 6 of 6 accepted</title>" in Path("mail.replies.report.html").read_text()
    again = run("mail.toml")
    assert again.exit_code == 0 and "The job is finished" in again.output
    with Journal() as journal:
        assert [found.name for found in journal.runs()] == ["mail"]


def test_fresh_starts_another_run_and_gives_the_same_replies(folder: Path) -> None:
    write_job(folder, MESSAGES)
    run("mail.toml")
    before = Path("mail.replies.jsonl").read_bytes()
    run("mail.toml", "--fresh")
    assert Path("mail.replies.jsonl").read_bytes() == before
    with Journal() as journal:
        assert [found.name for found in journal.runs()] == ["mail-2", "mail"]


def test_a_changed_job_is_reported_and_update_writes_only_what_it_touches(folder: Path) -> None:
    write_job(folder, MESSAGES)
    run("mail.toml")
    before = {line["id"]: line for line in lines()}
    write_job(folder, ["Hi there", *MESSAGES[1:], "One more"])
    with pytest.raises(InputError) as caught:
        run("mail.toml")
    assert "1 item (m0) changed in the input" in str(caught.value)
    assert "1 item (m6) new in the input" in str(caught.value)
    assert "2 of 7 items would be written again" in str(caught.value)
    result = run("mail.toml", "--update", "--json")
    assert json.loads(result.stdout)["accepted"] == 7
    after = {line["id"]: line for line in lines()}
    assert {key: after[key] for key in before if key != "m0"} == {
        key: before[key] for key in before if key != "m0"
    }
    with Journal() as journal:
        carried = [key for key, row in journal.get("mail-2").results() if row.get("carried")]
    assert sorted(carried) == ["m1", "m2", "m3", "m4", "m5"]
    run("mail.toml", "--fresh")
    assert {line["id"]: line for line in lines()} == after


def test_an_output_of_another_job_is_not_overwritten(folder: Path) -> None:
    write_job(folder, MESSAGES)
    run("mail.toml")
    (folder / "other.toml").write_text('output = "mail.replies.jsonl"\n' + JOB, encoding="utf-8")
    with pytest.raises(InputError, match=r"must belong to this job.*mail\.toml"):
        run("other.toml")
    Path("mine.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(InputError, match="which no job of this journal wrote"):
        run("mail.toml", "--output", "mine.jsonl")
    assert Path("mine.jsonl").read_text("utf-8") == "{}\n"


def test_items_that_cannot_pass_or_be_worked_on_make_exit_code_1(folder: Path) -> None:
    write_job(folder, ["Hello", "broken"], JOB.replace("rounds = 40", "rounds = 1"))
    result = run("mail.toml", "--json")
    output = json.loads(result.stdout)
    assert result.exit_code == 1 and output["errors"] == 1 and output["exit"] == 1
    assert lines()[1]["outcome"] == "error"
    assert "  error    m1, line 2: " in run("mail.toml").stdout


def test_the_items_that_could_not_be_worked_on_are_named_up_to_five(folder: Path) -> None:
    write_job(folder, ["Hello", *["broken"] * 3])
    found = [line for line in run("mail.toml").stdout.splitlines() if "  error  " in line]
    assert [line[:13] for line in found] == [f"  error    m{number}" for number in (1, 2, 3)]
    write_job(folder, ["Hello", *["broken"] * 7])
    found = [
        line for line in run("mail.toml", "--fresh").stdout.splitlines() if "  error  " in line
    ]
    assert len(found) == 6 and found[5] == "  error    and 2 more items"


def test_a_job_that_is_out_of_budget_exits_with_3_and_resumes_when_it_is_raised(
    folder: Path,
) -> None:
    budget = "\n[budget]\njob_tokens = 30\n"
    write_job(folder, MESSAGES * 4, JOB.replace('id = "id"', 'id = "id"') + budget)
    result = run("mail.toml")
    assert result.exit_code == 3 and "The job's budget ended" in result.output
    done = len(lines())
    assert done < 24
    assert run("mail.toml").exit_code == 3 and len(lines()) == done
    write_job(folder, MESSAGES * 4, JOB)
    assert run("mail.toml").exit_code == 0 and len(lines()) == 24
    other = Path("elsewhere.jsonl")
    run("mail.toml", "--output", str(other))
    assert lines(str(other)) == lines()


def test_limit_takes_the_first_items_as_a_run_of_its_own(folder: Path) -> None:
    write_job(folder, MESSAGES)
    run("mail.toml", "--limit", "2")
    assert [line["id"] for line in lines()] == ["m0", "m1"]
    two = lines()
    run("mail.toml")
    assert lines()[:2] == two and len(lines()) == 6


def test_dry_run_shows_prompts_rules_and_checks_and_writes_nothing(folder: Path) -> None:
    write_job(folder, MESSAGES)
    output = run("mail.toml", "--dry-run").output
    assert "6 items from messages.jsonl; 1 answered by rules" in output
    assert "m1 is answered by the rule 'thanks':\n  You are welcome." in output
    assert "user: Hello" in output and 'polite (excludes): texts = ["obviously"]' in output
    assert not Path(".ostinato").exists()
    value = json.loads(run("mail.toml", "--dry-run", "--json").output)
    assert value["by_rule"] == 1 and value["first"][0]["id"] == "m0"


def test_dry_run_reports_a_canned_reply_that_would_not_pass(folder: Path) -> None:
    write_job(folder, MESSAGES, JOB.replace('reply = "You are welcome."', 'reply = "Bye."'))
    output = run("mail.toml", "--dry-run").output
    assert "! failed, length: Add 2 words" in output


def test_new_writes_a_job_once(folder: Path) -> None:
    assert run("--new", "fresh.toml").exit_code == 0
    assert "ostinato refine fresh.toml" in Path("fresh.toml").read_text("utf-8")
    with pytest.raises(InputError, match="must be a new file"):
        run("--new", "fresh.toml")


def test_progress_is_plain_lines_where_there_is_no_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostinato.refine.progress.PLAIN_EVERY", 0.0)
    write_job(folder, MESSAGES)
    output = run("mail.toml").stderr
    assert "6 of 6 done" in output and "\x1b" not in output
    quiet = run("mail.toml", "--fresh", "--quiet")
    assert (quiet.stdout.count("\n"), quiet.stderr) == (1, "")
    assert re.match(r"\d of 6 accepted", quiet.stdout)


def result(key: str, *, accepted: bool = True, output: str = "") -> LaneResult:
    stopped = Stopped(StopKind.PASSED if accepted else StopKind.FAILED, "")
    return LaneResult(key=key, index=0, output=output, accepted=accepted, stopped=stopped, rounds=2)


def test_progress_counts_an_item_once_that_is_given_again_on_resume() -> None:
    tally = ProgressTally(2, again={"a"})
    tally.add(result("a"))  # of the journal
    step = Step(9, 9, {"lanes": {}})
    step.results = [result("a"), result("b", accepted=False)]
    tally.add_step(step)
    assert tally.line(0.0) == "2 of 2 done, 1 accepted (50%)"
    assert (tally.revised, tally.given_up) == (1, 1)


def test_progress_counts_the_tokens_of_the_report_and_after_a_resume_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostinato.refine.progress.PLAIN_EVERY", 0.0)
    write_job(folder, MESSAGES)

    def last(result: Result) -> tuple[int, int]:
        counted = re.findall(r"([0-9,]+) tokens\b(?!/)", result.stderr)[-1]
        reported: Any = [line["tokens"] for line in lines()]
        return int(counted.replace(",", "")), sum(tokens["computed"] for tokens in reported)

    step = ProgressTally.add_step

    def interrupted(self: ProgressTally, taken: Step) -> None:
        step(self, taken)
        if taken.tick == 9:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressTally, "add_step", interrupted)
        assert run("mail.toml").exit_code == 130
    counted, reported = last(run("mail.toml"))
    assert counted == reported > 0


def progress_of_made_up(items: int, spread: float, seed: int) -> list[tuple[float, float]]:
    """Return (share done, estimate / real time left) of a job of log-normal items in 16 slots."""
    rng = random.Random(seed)
    waiting = [rng.lognormvariate(3, spread) for _ in range(items)]
    tally, ends, now = ProgressTally(items, began=0.0), list[tuple[float, str]](), 0.0
    estimates: list[tuple[float, float, float]] = []
    while waiting or ends:
        while waiting and len(ends) < 16:
            key = str(len(waiting))
            heapq.heappush(ends, (now + waiting.pop(), key))
            tally.in_work[key] = 1
        now, key = heapq.heappop(ends)
        tally.add(result(key))
        if (left := tally.left(now)) is not None:
            estimates.append((tally.done / items, now, left))
    return [(share, left / (now - at)) for share, at, left in estimates if now > at]


@pytest.mark.parametrize(("share", "most"), [(0.1, 1.55), (0.3, 1.45), (0.6, 1.55)])
def test_the_remaining_time_is_off_by_less_than_this_factor_on_average(
    share: float, most: float
) -> None:
    errors = []
    for items, spread, seed in product((30, 60, 200), (0.2, 0.4, 0.7), range(8)):
        ratios = progress_of_made_up(items, spread, seed)
        errors.append(next(abs(math.log(ratio)) for done, ratio in ratios if done >= share))
    assert math.exp(sum(errors) / len(errors)) < most


def test_a_terminal_shows_accepted_replies_above_the_line(folder: Path) -> None:
    stream, text = io.StringIO(), "We can help\nyou " * 9
    console = Console(file=stream, force_terminal=True, width=40, color_system=None)
    with LiveProgress(ProgressTally(9), console) as shown:
        step = Step(1, 1, {"lanes": {}})
        step.results = [result(f"m{n}", accepted=n != 1, output=text) for n in range(6)]
        shown.step(step)
    told = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert told.count("✓ m") == 3 and "✓ m1" not in told
    assert "✓ m0  We can help you We can help you W…" in told


def test_watch_writes_what_is_taken_back_in_brackets(folder: Path) -> None:
    write_job(folder, MESSAGES)
    output = run("mail.toml", "--watch").stderr
    assert "m0: " in output and "[-" in output and "again: " in output


def test_a_watched_text_keeps_what_was_struck_in_its_place() -> None:
    watched = Watched()

    def step(position: int, text: str, answer: Action | None = None) -> Step:
        lane = LaneStep(position, {"text": text}, Stopped(StopKind.PASSED, "Done."), answer)
        return Step(position, position, {"lanes": {"a": lane}})

    watched.finished(step(1, "We"))
    watched.finished(step(2, " obviously", GoBack(1)))
    watched.finished(step(2, " can"))
    assert watched.text().plain == "a  We obviously can"
    assert [span.style for span in watched.text().spans][1:] == ["strike red"]
    watched.finished(step(3, " not", StartOver()))
    assert watched.pieces == []


def test_a_kept_signal_pauses_and_a_second_one_ends_at_once() -> None:
    class Fake:
        reasons: list[str] = []  # noqa: RUF012

        def pause(self, reason: str = "") -> None:
            self.reasons.append(reason)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), ends_by_signal(Fake()):
        os.kill(os.getpid(), signal.SIGTERM)
        assert Fake.reasons == ["It was interrupted (SIGTERM)."]
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupted_job_exits_with_130_and_the_same_command_resumes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_job(folder, MESSAGES)
    shown = "ostinato.refine.progress.PlainProgress.step"
    calls = []

    def step(self: object, step: Step) -> None:
        calls.append(step.tick)
        if step.tick == 9:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(shown, step)
        result = run("mail.toml")
    assert result.exit_code == 130 and "To resume: ostinato runs resume mail" in result.output
    assert max(calls) == 9
    assert run("mail.toml").exit_code == 0
    run("mail.toml", "--output", "whole.jsonl", "--fresh")
    assert lines() == lines("whole.jsonl")


def test_a_run_that_was_stopped_for_good_stays_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_job(folder, MESSAGES)

    def loop(work: JobRun, **_: object) -> Loop:
        made = scribe_loop(work)
        made.stop("Enough.")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(JobRun, "loop", loop)
        assert run("mail.toml").exit_code == 130
    again = run("mail.toml")
    assert again.exit_code == 130 and "was stopped for good" in again.output
    assert run("mail.toml", "--fresh").exit_code == 0


def test_why_explains_an_item_and_a_job(folder: Path) -> None:
    write_job(folder, MESSAGES)
    run("mail.toml")
    output = CliRunner().invoke(why, ["mail", "m0"]).output
    assert output.startswith("m0: ") and "round 1" in output and "tokens computed" in output
    value = json.loads(CliRunner().invoke(why, ["mail", "--json"]).output)
    assert [one["check"] for one in value["checks"]] == ["length", "polite"]
    assert value["items"] == 6
    assert "polite: " in CliRunner().invoke(why, ["mail"]).output
    assert value["refused"] == []
    error = CliRunner().invoke(why, ["mail", "m00"]).exception
    assert isinstance(error, InputError) and "Did you mean 'm0'?" in str(error)


def test_why_tells_what_people_noted_on_an_item(folder: Path) -> None:
    write_job(folder, MESSAGES)
    run("mail.toml")
    with Journal() as journal:
        mail = journal.get("mail")
        journal.note(mail, "m0", "edited", value={"output": "Dear you."}, text="Kinder.", by="ada")
        journal.note(mail, "m0", "accepted", by="bob")
    output = CliRunner().invoke(why, ["mail", "m0"]).output
    assert "  edited by ada: output = Dear you.: Kinder.\n  accepted by bob\n" in output
    notes = json.loads(CliRunner().invoke(why, ["mail", "m0", "--json"]).output)["notes"]
    assert [note["verdict"] for note in notes] == ["edited", "accepted"]


def test_why_lists_each_reason_for_which_items_were_not_accepted(folder: Path) -> None:
    write_job(folder, [*MESSAGES, "broken"], f"{JOB}\n[budget]\nitem_tokens = 6\n")
    run("mail.toml")
    output = CliRunner().invoke(why, ["mail"]).output
    cut = [line for line in lines() if line["stopped"]["kind"] == "budget"]  # type: ignore[index]
    assert cut and "given up: its budget ended; its best draft fails: " in output
    assert "  1 error: it could not be worked on\n" in output
    value = json.loads(CliRunner().invoke(why, ["mail", "--json"]).output)["refused"]
    assert sum(one["count"] for one in value if one["kind"] == "budget") == len(cut)
    assert {one["outcome"] for one in value} == {"given up", "error"}
    page = Path("mail.replies.report.html").read_text("utf-8")
    assert "its budget ended; its best draft fails: " in page
    write_job(folder, MESSAGES, JOB.replace("rounds = 40", "rounds = 1"))
    run("mail.toml", "--fresh")
    output = CliRunner().invoke(why, ["mail.toml"]).output
    assert "given up: out of rounds; its best draft fails: " in output


def test_check_judges_texts_from_elsewhere(folder: Path) -> None:
    write_job(folder, MESSAGES)
    (folder / "texts.jsonl").write_text(
        '{"id": "m0", "reply": "We can help you."}\n{"id": "m1", "reply": "Obviously not today."}\n'
    )
    result = CliRunner().invoke(check, ["mail.toml", "texts.jsonl"])
    assert result.exit_code == 1 and "1 of 2 passed every check." in result.output
    assert '    polite: Leave out "Obviously"' in result.output
    (folder / "texts.txt").write_text("We can help you.\n\nWe can help.\n")
    result = CliRunner().invoke(check, ["mail.toml", "texts.txt", "--json"])
    assert result.exit_code == 0 and len(result.output.splitlines()) == 2


def test_check_finds_the_sources_of_grounded_in_the_job_s_input(folder: Path) -> None:
    write_job(folder, ["At 5 pm?"], JOB + '\n[[check]]\nkind = "grounded"\n')
    (folder / "texts.jsonl").write_text('{"id": "m0", "reply": "We open at 5 pm."}\n')
    assert CliRunner().invoke(check, ["mail.toml", "texts.jsonl"]).exit_code == 0
    (folder / "texts.txt").write_text("We open at 5 pm.\n")
    error = CliRunner().invoke(check, ["mail.toml", "texts.txt"]).exception
    assert isinstance(error, InputError) and "read columns (message, conversation," in str(error)


def test_check_finds_columns_in_the_jobs_input(folder: Path) -> None:
    text = JOB + '\n[[check]]\nkind = "contains"\nname = "echo"\ncolumn = "message"\n'
    write_job(folder, ["Hello", "Bye"], text)
    (folder / "texts.jsonl").write_text('{"id": "m1", "reply": "Bye to you all."}\n')
    assert CliRunner().invoke(check, ["mail.toml", "texts.jsonl"]).exit_code == 0
    (folder / "texts.jsonl").write_text('{"id": "m9", "reply": "Bye to you all."}\n')
    error = CliRunner().invoke(check, ["mail.toml", "texts.jsonl"]).exception
    assert isinstance(error, InputError) and "need the column 'message'" in str(error)


def test_an_item_with_half_a_character_is_set_aside_and_the_rest_goes_on(folder: Path) -> None:
    write_job(folder, ["Hello", r"half \ud83d", r"thanks \udce9", "whole \\ud83d\\ude00"])
    dry = run("mail.toml", "--dry-run").output
    told = r"The column 'message' must hold whole characters, got half of one, \ud83d"
    assert "left out: 2." in dry and f"  m1, line 2: {told}" in dry and "m2, line 3" in dry
    result = run("mail.toml")
    assert result.exit_code == 1 and "2 of 4 accepted" in result.output
    assert f"  error    m1, line 2: {told}" in result.output
    assert [line["outcome"] for line in lines()].count("error") == 2
    assert run("mail.toml").exit_code == 1  # nothing is lost or tried again


def test_an_id_with_half_a_character_is_spelled_out(folder: Path) -> None:
    write_job(folder, ["Hello"])
    with (folder / "messages.jsonl").open("a") as file:
        file.write(r'{"id": "m\ud83d", "message": "Hi"}')
    run("mail.toml")
    assert [line["id"] for line in lines()] == ["m0", r"m\ud83d"]


def test_check_fails_a_text_with_half_a_character_by_its_line(folder: Path) -> None:
    write_job(folder, MESSAGES)
    right = '{"id": "m0", "reply": "We can help you\u2028today."}\n'
    (folder / "texts.jsonl").write_text(right + r'{"id": "m1", "reply": "\udc00"}', "utf-8")
    result = CliRunner().invoke(check, ["mail.toml", "texts.jsonl"])
    assert result.exit_code == 1 and "1 of 2 passed every check." in result.output
    assert r"line 2 must hold whole characters, got half of one, \udc00." in result.output
    result = CliRunner().invoke(check, ["mail.toml", "texts.jsonl", "--json"])
    assert "line 2" in json.loads(result.output.split("\n")[1])["error"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_a_line_of_text_ends_at_a_line_break_only(folder: Path, separator: str) -> None:
    write_job(folder, MESSAGES)
    text = f"\ufeffWe can help{separator}you.\n"
    (folder / "texts.txt").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(check, ["mail.toml", "texts.txt", "--json"])
    assert len(result.output.rstrip("\n").split("\n")) == 1
