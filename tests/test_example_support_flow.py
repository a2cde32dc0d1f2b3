"""The support job as a flow: rules and cases first, then a text that passes the job's checks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from faulty_server import Faults, serving

from ostinato.flow import FlowFunction, flow_of
from ostinato.refine import read_job

FOLDER = Path(__file__).parents[1] / "examples" / "support"
WRONG = "As an AI language model, I can help you."
FORMS = ("asked", "asked_too", "offer", "repeats", "repeats_too", "outcome", "untrue")

Row = dict[str, Any]


@cache
def rows() -> tuple[list[Row], list[Row]]:
    """Return rows that a rule or a past case answers, and others."""
    router = read_job(FOLDER / "job.toml").router()
    lines = (FOLDER / "messages.jsonl").read_text(encoding="utf-8").splitlines()
    both: tuple[list[Row], list[Row]] = [], []
    for row in map(json.loads, lines):
        both[router.route(row).reply is None].append(row)
    return both


@pytest.fixture
def answer() -> Any:
    return flow_of(FOLDER / "flow.py")


def answered(answer: FlowFunction[..., Any], some: list[Row]) -> dict[str, Any]:
    return dict(answer.over(some))  # type: ignore[attr-defined]


def writing(answer: Any, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(answer.function.__globals__, "MODEL", model)


def test_rules_and_cases_answer_without_a_model(
    answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing(answer, "there is none", monkeypatch)
    human = {**rows()[1][0], "id": "human", "message": "I want to talk to a real person."}
    ready = [*rows()[0], {**human, **{name: [] for name in FORMS}}]
    found = answered(answer, ready)
    assert Counter(each.source for each in found.values()) == {"rule": 1, "case": 13}
    router = read_job(FOLDER / "job.toml").router()
    for row in ready:
        assert found[row["id"]].reply == router.route(row).reply
        assert found[row["id"]].accepted


def test_the_model_writes_until_the_checks_of_the_job_pass(
    answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = rows()[1][:4]
    references = {row["message"]: row["reference"] for row in some[1:]}
    asked = Counter[str]()

    def writes(body: Mapping[str, Any]) -> str:
        said = [m["content"] for m in body["messages"] if m["role"] == "user"][-1]
        asked[said] += 1
        return references.get(said, WRONG) if asked[said] > 1 else WRONG

    with serving(Faults(writes=writes)) as url:
        writing(answer, f"{url}#m", monkeypatch)
        found = answered(answer, some)
    never = found.pop(some[0]["id"])
    assert (never.accepted, never.source) == (False, "model")
    for row in some[1:]:
        told = found[row["id"]]
        assert (told.reply, told.accepted, told.rounds) == (row["reference"], True, 2)
