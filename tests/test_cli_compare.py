"""`ostinato compare` and `ostinato report`: runs of a job side by side, and pages made again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from refine_scribe import JOB, scribe_loop, write_job

from ostinato.cli.main import cli
from ostinato.journal import JSON, Journal, RunSession, StopKind, Stopped
from ostinato.loop import Verdict
from ostinato.refine import compare, comparison_page
from ostinato.refine.job.job_run import JobRun
from ostinato.refine.report.compare import word_difference
from ostinato.refine.results import Result as ItemResult
from ostinato.refine.results import Tokens

MESSAGES = ["Hello", "Thanks a lot", "Where are you?", "A refund", "Are you open?", "Call me"]


def item(
    id: str, reply: str, *, passed: bool = True, rounds: int = 1, check: str = "c"
) -> ItemResult:
    return ItemResult(
        id=id,
        reply=reply,
        accepted=passed,
        stopped=Stopped(StopKind.PASSED if passed else StopKind.FAILED, "It stopped."),
        verdicts=(Verdict(check, passed),),
        rounds=rounds,
        tokens=Tokens(reply=4, accepted=4 * passed, computed=8, discarded=4),
    )


def test_what_changed_is_told_by_item_and_check() -> None:
    before = [
        item("same", "A reply."),
        item("mended", "No.", passed=False),
        item("lost", "Yes."),
        item("other", "It is a big table."),
        item("later", "Late."),
    ]
    after = [
        item("same", "A reply.", check="d"),
        item("mended", "Yes.", check="d"),
        item("lost", "No.", passed=False, check="d"),
        item("other", "It is one table here.", check="d"),
        item("later", "Late.", rounds=2, check="d"),
    ]
    found = compare(("a", "b"), (["c"], ["d"]), zip(before, after, strict=True))
    assert [(each.id, each.kind) for each in found.changes] == [
        ("lost", "no longer accepted"),
        ("mended", "now accepted"),
        ("other", "another reply"),
        ("later", "another outcome"),
    ]
    assert [tuple(check) for check in found.checks] == [
        ("c", (1, None), (1, None)),
        ("d", (None, 1), (None, 1)),
    ]
    assert found.items == 5 and found.summaries[0].accepted == found.summaries[1].accepted == 4
    assert ("accepted", "4 (80.0%)", "4 (80.0%)") in found.figures()
    assert ("tokens computed per accepted token", "2.50", "2.50") in found.figures()
    assert found.how().startswith("1 no longer accepted, 1 now accepted")
    pieces = found.changes[2].pieces()
    assert "".join(each.text for each in pieces if each.sign != "+") == "It is a big table."
    assert "".join(each.text for each in pieces if each.sign != "-") == "It is one table here."
    assert [each.text for each in pieces] == ["It is", " a big table.", " one table here."]


@pytest.mark.parametrize(("one", "other"), [("", ""), ("", "a b"), ("a b", ""), ("a\n b", "a b")])
def test_a_difference_has_both_texts(one: str, other: str) -> None:
    pieces = word_difference(one, other)
    assert "".join(each.text for each in pieces if each.sign != "+") == one
    assert "".join(each.text for each in pieces if each.sign != "-") == other


def test_texts_on_a_page_are_texts() -> None:
    before, after = item("<i>", "<script>a()</script>"), item("<i>", "<b>x</b> \ud800")
    page = comparison_page(compare(("<u>", "b"), (["c"], ["c"]), [(before, after)]))
    assert "<script>" not in page and "<u>" not in page and "<i>" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page and page.encode("utf-8")


# The commands -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    write_job(tmp_path, MESSAGES)
    yield tmp_path


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == code, (result.output, result.exception)
    return result


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code != 0
    return f"{result.output} {result.exception}"


def names() -> list[str]:
    with Journal() as journal:
        return [each.name for each in reversed(list(journal.runs()))]


def test_two_runs_of_a_job(folder: Path) -> None:
    run("refine", "mail.toml", "--limit", "5")
    run("refine", "mail.toml", "--seed", "5", "--output", "other.jsonl")
    first, second = names()
    told: dict[str, Any] = json.loads(run("compare", first, second, "--json").stdout)
    assert told["runs"] == [first, second] and told["items"] == 5 and told["only"] == [0, 1]
    lines = [json.loads(line) for line in Path("mail.replies.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in Path("other.jsonl").read_text().splitlines()]
    others = {row["id"]: row for row in rows}
    changed = {
        row["id"]: [row["reply"], others[row["id"]]["reply"]]
        for row in lines
        if (row["reply"], row["outcome"])
        != (others[row["id"]]["reply"], others[row["id"]]["outcome"])
    }
    assert {each["id"]: each["replies"] for each in told["changes"]} == changed and changed
    assert told["summaries"][0]["accepted"] == sum(row["accepted"] for row in lines)

    shown = run("compare", first, second, "--limit", "1", "--out", "page.html")
    assert f"{len(changed)} of 5 items changed" in shown.stdout
    assert f"1 more in {second} alone." in shown.stdout
    assert (f"{len(changed) - 1} more: see them" in shown.stdout) == (len(changed) > 1)
    assert "[-" in shown.stdout or "{+" in shown.stdout
    page = Path("page.html").read_text("utf-8")
    assert page.startswith("<!doctype html>") and page.count("<ins>") >= 1


def test_a_list_says_what_a_run_works_with_and_how_well(folder: Path) -> None:
    run("refine", "mail.toml")
    rows = [json.loads(line) for line in Path("mail.replies.jsonl").read_text().splitlines()]
    accepted = sum(row["accepted"] for row in rows)
    listed = run("runs").stdout.splitlines()
    assert listed[1] == f"  smollm2, abort, mail.replies.jsonl, {accepted} of 6 accepted"
    (told,) = json.loads(run("runs", "--json").stdout)["runs"]
    assert told["headline"]["output"] == "mail.replies.jsonl" and told["name"] == "mail"


@pytest.mark.parametrize(
    ("kind", "measure", "words"),
    [
        ("train text", "loss/valid", "smollm2, out, best loss/valid 1.25"),
        ("train policy", "return/valid", "smollm2, out, best return/valid 3"),
        ("generate", "loss/valid", "smollm2, out"),
        ("train vae", "loss/train", "smollm2, out"),
        ("of another version", "loss/valid", "smollm2, out"),
    ],
)
def test_a_list_has_the_best_value_of_a_training(
    folder: Path, kind: str, measure: str, words: str
) -> None:
    config: dict[str, JSON] = {"model": "models/smollm2", "out": "/somewhere/out"}
    with Journal() as journal:
        made = journal.create("a", kind=kind, spec={"config": config})
        with RunSession(made) as session:
            for tick, value in enumerate((3.0, 1.25, None, 2.0), 1):
                session.step(tick, tick, {} if value is None else {measure: value})
    assert run("runs").stdout.splitlines()[1] == f"  {words}"


def test_runs_that_cannot_be_compared(folder: Path) -> None:
    run("refine", "mail.toml", "--limit", "2")
    (first,) = names()
    with Journal() as journal:
        journal.create("training", kind="train text")
        journal.create("empty", kind="refine")
    assert "got 'mail' twice" in refused("compare", first, first)
    assert "got 'training', which is train text" in refused("compare", first, "training")
    assert "none in common" in refused("compare", first, "empty")
    assert "--out must name an .html file" in refused("compare", first, "empty", "--out", "a.txt")
    assert "nowhere" in refused("compare", first, "nowhere")


def test_a_report_is_made_again(folder: Path) -> None:
    run("refine", "mail.toml", "--limit", "5")
    first = names()[0]
    written = Path("mail.replies.report.html").read_text("utf-8")
    assert "page     again.html" in run("report", first, "--out", "again.html").stderr
    again = Path("again.html").read_text("utf-8")
    assert again.partition("Made by Ostinato")[0] == written.partition("Made by Ostinato")[0]
    run("refine", "mail.toml", "--fresh", "--limit", "5")  # the output is that of a newer run
    run("report", first)
    kept = Path(f"{first}.html").read_text("utf-8")
    assert kept.partition("Made by Ostinato")[0] == written.partition("Made by Ostinato")[0]
    with Journal() as journal:
        journal.create("training", kind="train text")
    assert "must be one of `ostinato refine`" in refused("report", "training")
    Path("mail.toml").write_text(JOB.replace('"length"', '"length"\nname = "brief"'))
    assert "must be unchanged" in refused("report", first)
