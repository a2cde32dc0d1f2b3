"""`Refine` in Python: what it is given is checked at once, its rows are those of a job's output,
and it can be recorded and resumed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model

import ostinato.runs
from ostinato.checks import Contains, Length, Repetition
from ostinato.decode import SamplingParams
from ostinato.errors import InputError, OstinatoError, RunError
from ostinato.journal import Journal
from ostinato.models import LanguageModel
from ostinato.refine import Refine, Resample
from ostinato.refine.results import Result
from ostinato.remote import Server, ServerLanes

ITEMS = [{"message": "We can"}, {"message": "The room"}]


def short(text: str) -> bool:
    return len(text) < 500


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model()


def refined(loaded: LanguageModel, **more: Any) -> Refine:
    given = {"prompt": "{message}", "checks": [short], "max_new_tokens": 4, "items": ITEMS, **more}
    return Refine(given.pop("model", loaded), given.pop("items"), **given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"checks": []}, r"checks must be at least one check, function or name, got \[\]"),
        ({"checks": [3]}, "Check 1 of checks must be a check, a function or a name, got 3"),
        ({"checks": [short, "lenght"]}, "Check 2 of checks .*'lenght'. Did you mean 'length'"),
        ({"checks": ["length"]}, r"Check 1 of checks, 'length', must have .*Write Length\(…\)"),
        ({"checks": "regex"}, r"The check 'regex' must have 'pattern', got none"),
        ({"checks": "python"}, "Check 1 of checks must be the function itself, got 'python'"),
        ({"checks": ["repetition", "repetition"]}, "must be unique, got 'repetition' twice"),
        ({"checks": [short, Length]}, "Check 2 of checks must be a check, a function or a name"),
        ({"checks": [short, short]}, "names of checks must be unique, got 'short' twice"),
        ({"strategy": "resampel"}, "strategy must be .* Did you mean 'resample'"),
        ({"strategy": 3}, "strategy must be a Strategy or one of backtrack"),
        ({"prompt": "{mesage}"}, "Item 1 .* column 'mesage', .*prompt.* Did you mean 'message'"),
        ({"prompt": 3}, "prompt must be a template or a function, got 3"),
        (
            {"checks": [Contains(column="asked")]},
            "column 'asked', which the check 'contains'",
        ),
        ({"items": ITEMS[0]}, "items must be a list of mappings"),
        ({"items": ["x"]}, "Item 1 must be a mapping"),
        ({"max_new_tokens": "4"}, "max_new_tokens must be a whole number, got '4'"),
        ({"slots": 0}, "slots must be at least 1, got 0"),
        ({"tokens": 0}, "tokens must be above 0, got 0"),
        ({"seconds": float("nan")}, "seconds must be a number"),
        ({"sampling": {"temperature": 1}}, "sampling must be a SamplingParams"),
        ({"model": "smolm2"}, "Did you mean 'smollm2'"),
    ],
)
def test_what_cannot_work_is_refused_at_once_by_name(
    model: LanguageModel, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message) as caught:
        refined(model, **wrong)
    assert type(caught.value).__module__ == "ostinato.errors"


@pytest.mark.parametrize("checks", [short, [short], (Length(max=400), "repetition", short)])
@pytest.mark.parametrize("strategy", [None, "resample", "backtrack", "feedback"])
def test_functions_and_names_of_strategies_are_taken(
    model: LanguageModel, checks: Any, strategy: str | None
) -> None:
    refine = refined(model, checks=checks, strategy=strategy)
    assert refine.checks[-1].name == "short" and refine.strategy.kind == (strategy or "backtrack")
    assert Repetition() in refine.checks or len(refine.checks) == 1


def test_rows_have_the_keys_of_a_job_s_output_and_the_item_s_columns(model: LanguageModel) -> None:
    rows = refined(model).run()
    assert [row["columns"] for row in rows] == ITEMS
    assert all(row["accepted"] and isinstance(row["reply"], str) for row in rows)
    keys = set(Result.__dataclass_fields__)
    assert set(rows[0]) == keys | {"outcome"}
    assert sorted(map(str, refined(model))) == sorted(map(str, rows))


def test_why_a_server_is_waited_for_is_said_once_for_all_requests() -> None:
    said: list[str] = []
    server = Server(url="http://127.0.0.1:9/v1", model="m", retries=1)
    refine = Refine(server, ITEMS, prompt="{message}", checks=[short])
    assert isinstance(refine.decode, ServerLanes)
    refine.decode.client.say = said.append
    with pytest.raises(OstinatoError, match="must answer, and failed 2 times in a row"):
        refine.run()
    (line,) = said
    assert line.startswith("Waiting for http://127.0.0.1:9/v1: The connection failed")
    assert "Trying again in " in line and line.endswith("1 more time.")


def test_a_recorded_refine_resumes_and_refuses_other_inputs(
    model: LanguageModel, tmp_path: Path
) -> None:
    with Journal(tmp_path / "j.db") as journal:
        rows = refined(model).run(run="mine", journal=journal)
        stopped = journal.get("mine").stopped
        assert rows == refined(model).run() and stopped is not None
        again = refined(model)
        assert again.run(run="mine", journal=journal) == rows
        assert again.lanes.spent.get("computed", 0) == refined_spent(journal)
        changes: list[tuple[dict[str, Any], str]] = [
            ({"seed": 3}, "seed was 0, is 3"),
            ({"checks": [short, Length(max=9)]}, "checks.length was none, is {'kind': 'length'"),
            ({"prompt": "Say: {message}"}, "prompt was {message}, is Say: {message}"),
            ({"prompt": lambda row, edits: "Say"}, "the hash of prompt's source was none, is "),
            ({"items": ITEMS[:1]}, "the hash of items was "),
            ({"tokens": 9}, "budget.item_tokens was none, is 9"),
            ({"sampling": SamplingParams(temperature=0.5)}, "sampling.temperature was 0.7, is 0.5"),
            ({"strategy": Resample(rounds=3)}, "strategy.kind was backtrack, is resample"),
        ]
        for changed, sentence in changes:
            with pytest.raises(InputError, match=re.escape(sentence)):
                refined(model, **changed).run(run="mine", journal=journal)
        with pytest.raises(RunError, match=r"Call the same Refine\(…\)\.run\(run='mine'\) again"):
            ostinato.runs.build(journal.get("mine"))


def refined_spent(journal: Journal) -> float:
    """Return what the recorded run has computed, by its rows."""
    return sum(float(row["spent"].get("computed", 0)) for _, row in journal.get("mine").results())
