"""What a judge on a server costs: in its verdict, in rows, in budgets, and in served answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
import served
from faulty_server import Faults, serving
from tiny import save_tiny, tiny_model

from ostinato.checks import Judge, judge_all
from ostinato.errors import InputError, RunError
from ostinato.journal import StopKind
from ostinato.loop import Budget, Verdict
from ostinato.refine import Resample
from ostinato.refine.job.file import read_job
from ostinato.refine.refine import Refine
from ostinato.remote import Server, SpendLimit
from ostinato.server import Defaults

PRICES = {"price_in": 1000.0, "price_out": 5000.0}
QUESTION = "Is {output} polite? Answer with yes or no."


def says(word: str) -> Faults:
    """Return a server that writes a word, and sends the usage of a request."""
    return Faults(writes=lambda body: word)


def judge(url: str, **more: Any) -> Judge:
    return Judge(question=QUESTION, model=f"{url}#m", **{**PRICES, **more})


def test_a_verdict_contains_what_its_judge_cost() -> None:
    with serving(says("Yes")) as url:
        (verdict,) = judge_all([judge(url)], "Here.", {})
        (free,) = judge_all([judge(url, price_in=0, price_out=0)], "Here.", {})
    tokens = verdict.spent["judged"]
    assert verdict.passed and verdict.spent["tokens"] == tokens == free.spent["tokens"] > 1
    assert verdict.spent["cost"] == pytest.approx(((tokens - 1) * 1000 + 5000) / 1_000_000)
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert "cost" not in free.to_json()


def test_what_a_verdict_spent_is_read_from_rows_of_today_and_of_before() -> None:
    saved = Verdict("polite", True, spent={"calls": 2, "cost": 0.5}).to_json()
    assert (saved["calls"], saved["cost"]) == (2, 0.5)
    read = Verdict.from_json(saved)
    assert read.spent == {"calls": 2, "cost": 0.5} and type(read.spent["calls"]) is int
    before = Verdict("polite", True).to_json() | {"tokens": 40, "cost": 0.5}
    assert Verdict.from_json(before).spent == {"tokens": 40, "cost": 0.5, "judged": 40}
    with pytest.raises(RunError, match="'tokens'"):
        Verdict.from_json(before | {"tokens": "many"})
    with pytest.raises(InputError, match="another name than a verdict's own fields, got 'score'"):
        Verdict("polite", True, spent={"score": 3})


def test_a_judges_price_is_spent_and_ends_a_job_written_in_the_process() -> None:
    with serving(says("No")) as url:
        items = [{"message": str(n)} for n in range(40)]
        refine = Refine(
            tiny_model(),
            items,
            prompt="{message}",
            checks=[judge(url)],
            strategy=Resample(rounds=2),
            max_new_tokens=3,
            slots=2,
        )
        loop = refine.loop(until=Budget("cost", 0.3))
        rows: list[Any] = [one.to_json() for step in loop for one in step.results]
    assert loop.stopped is not None and loop.stopped.kind is StopKind.BUDGET
    assert 0 < len(rows) < 40
    for row in rows:
        verdicts = [verdict for attempt in row["attempts"] for verdict in attempt["verdicts"]]
        assert (
            row["spent"]["cost"] == pytest.approx(sum(verdict["cost"] for verdict in verdicts)) != 0
        )
    assert refine.lanes.spent["cost"] >= 0.3


def test_no_request_is_sent_that_a_budget_does_not_cover_beside_the_judge() -> None:
    judging = says("Yes")
    with serving(judging) as url, serving(says("One two.")) as writer:
        server = Server(url=f"{writer}", model="m", price_out=10_000.0)
        spend_limit = SpendLimit(cost=0.5)
        refine = Refine(
            server,
            [{"message": str(n)} for n in range(40)],
            prompt="{message}",
            checks=[judge(url)],
            max_new_tokens=4,
            slots=1,
            spend_limit=spend_limit,
        )
        loop = refine.loop(until=Budget("cost", 0.5))
        loop.run()
        refine.decode.close()  # type: ignore[union-attr]
    spent = refine.lanes.spent["cost"]
    assert loop.stopped is not None and loop.stopped.kind is StopKind.BUDGET
    assert spend_limit.taken("cost") == pytest.approx(spent)
    judged = spent - sum(2 * 10_000 for _ in judging.bodies) / 1_000_000
    assert judged > 0.05  # it is a part of the cost
    assert spent <= 0.5 + judged / len(judging.bodies)


JOB = """
input = "messages.jsonl"
model = "tiny"
[prompt]
template = "{{message}}"
[[check]]
kind = "judge"
question = "Is {{output}} polite?"
model = "http://127.0.0.1:9/v1#m"
{price}
[budget]
job_cost = 1.0
"""


def test_a_jobs_cost_needs_a_price_of_a_server_or_of_a_judge(tmp_path: Path) -> None:
    (tmp_path / "messages.jsonl").write_text(json.dumps({"message": "Hello"}) + "\n")
    save_tiny(tmp_path / "tiny")
    file = tmp_path / "job.toml"
    file.write_text(JOB.format(price="price_out = 2.5"))
    (check,) = read_job(file).checks
    assert isinstance(check, Judge) and check.price_out == 2.5
    file.write_text(JOB.format(price=""))
    with pytest.raises(InputError, match="must come with the prices of a server"):
        read_job(file)


def test_a_price_without_a_server_is_refused() -> None:
    with pytest.raises(InputError, match=r"'price_in' .* must be left out without a server"):
        Judge(question=QUESTION, price_in=1.0)
    with pytest.raises(InputError, match="price_out must be 0 or more"):
        judge("http://127.0.0.1:9/v1", price_out=-1.0)


def test_a_served_answer_contains_what_its_judge_read_and_wrote() -> None:
    with serving(says("Yes")) as url:
        defaults = Defaults(checks=(judge(url),), strategy=Resample(rounds=1))
        with (
            served.serving(defaults=defaults) as (port, _),
            openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none") as client,
        ):
            (choice,) = client.chat.completions.create(**served.asked(seed=1)).choices
    tokens = served.ours(choice)["tokens"]
    (verdict,) = served.ours(choice)["verdicts"]
    assert tokens["judged"] == verdict["tokens"] > 0
