"""A job whose budgets are raised in its file goes on: what the old ones ended, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from refine_scribe import JOB, scribe_loop, write_job

from ostinato.cli.jobs.refine import refine
from ostinato.errors import InputError
from ostinato.journal import Journal
from ostinato.refine.job.job_run import JobRun
from ostinato.refine.settings import ItemBudget

MESSAGES = [f"Message {n}" for n in range(12)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(refine, ["mail.toml", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def write(**budget: int) -> None:
    lines = "".join(f"{name} = {value}\n" for name, value in budget.items())
    write_job(Path.cwd(), MESSAGES, f"{JOB}\n[budget]\n{lines}")


def replies() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("mail.replies.jsonl").read_text("utf-8").splitlines()]


def rows(name: str) -> dict[str, dict[str, Any]]:
    with Journal() as journal:
        return dict(journal.get(name).results())


# Of the job -------------------------------------------------------------------------------------


def test_a_raised_budget_of_the_job_is_reported_and_limits_the_run() -> None:
    write(job_tokens=100)
    assert run().exit_code == 3
    first = replies()
    assert run().exit_code == 3 and replies() == first
    write(job_tokens=170)
    on = run()
    told = "was Budget('tokens', limit=100), and is Budget('tokens', limit=170) now."
    assert on.exit_code == 3 and told in on.output
    second = replies()
    assert 0 < len(first) < len(second) < 12
    assert all(reply in second for reply in first)
    again = run()  # the raised one has ended as well
    assert again.exit_code == 3 and replies() == second and "now." not in again.output
    write()
    assert "and is none now." in run().output
    assert len(replies()) == 12
    whole = replies()
    run("--fresh")
    assert replies() == whole


# Of an item -------------------------------------------------------------------------------------


def test_a_raised_budget_of_an_item_writes_only_what_the_lower_one_ended() -> None:
    write(item_tokens=12)
    run()
    before = rows("mail")
    cut = {key for key, row in before.items() if row["spent"]["tokens"] >= 12}
    assert 0 < len(cut) < 12
    assert not all(before[key]["accepted"] for key in cut)
    write(item_tokens=400)
    with pytest.raises(InputError) as caught:
        run()
    named = f"a higher item budget: the lower one ended {len(cut)} items ("
    assert named in str(caught.value)
    assert f"{len(cut)} of 12 items would be written again" in str(caught.value)
    assert "12 of 12 accepted" in run("--update").output
    after = rows("mail-2")
    assert {key for key, row in after.items() if not row.get("carried")} == cut
    updated = replies()
    run("--fresh")
    assert replies() == updated


def test_an_unfinished_job_with_another_item_budget_keeps_what_was_done() -> None:
    write(item_tokens=40, job_tokens=200)
    assert run().exit_code == 3
    done = rows("mail")
    write(item_tokens=80)
    assert run("--update").exit_code in (0, 1)
    carried = {key for key, row in rows("mail-2").items() if row.get("carried")}
    assert carried == {key for key, row in done.items() if row["spent"]["tokens"] < 40} != set()
    updated = replies()
    assert len(updated) == 12
    run("--fresh")
    assert replies() == updated


def test_a_lower_budget_of_an_item_touches_all() -> None:
    write(item_tokens=400)
    run()
    write(item_tokens=12)
    with pytest.raises(InputError, match=r"budget\.item_tokens was 400, is 12"):
        run()


def test_a_budget_is_raised_where_no_limit_is_lower() -> None:
    def limits(tokens: int | None, seconds: float | None) -> ItemBudget:
        return ItemBudget(item_tokens=tokens, item_seconds=seconds)

    assert limits(5, None).raised_to(limits(9, None)) == limits(5, None)
    assert limits(5, 2.0).raised_to(limits(5, None)) == limits(None, 2.0)
    assert limits(5, 2.0).raised_to(limits(9, 1.0)) is None
    assert limits(None, None).raised_to(limits(9, None)) is None
    clock = limits(None, 2.0)
    assert clock.ended({"spent": {}, "by_clock": True}) and not clock.ended({"spent": {}})
