"""The messages of the example job: real, varied, and answerable by a right reply."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ostinato.checks import judge_all
from ostinato.journal import Journal
from ostinato.loop import PrefixStatus
from ostinato.refine import open_job
from ostinato.refine.job.file import read_job
from ostinato.refine.job.job_items import read_items

FOLDER = Path(__file__).parents[1] / "examples" / "support"
COLUMNS = {
    *("id", "service", "message", "messages", "record"),
    *("asked", "asked_too", "offer", "repeats", "repeats_too", "outcome", "untrue", "reference"),
}
FORMS = ("asked", "asked_too", "offer", "repeats", "repeats_too", "outcome", "untrue")
CHECKS = [check for check in read_job(FOLDER / "job.toml").checks if check.kind != "confidence"]

Row = dict[str, Any]


def rows() -> list[Row]:
    with (FOLDER / "messages.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def module(name: str) -> ModuleType:
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def test_every_row_has_the_columns_of_its_kind() -> None:
    for row in rows():
        assert set(row) == COLUMNS
        assert all(isinstance(row[name], str) and row[name] for name in ("id", "reference"))
        assert all(isinstance(value, str) for value in row["record"].values())
        assert all(isinstance(form, str) and form for name in FORMS for form in row[name])


def test_the_conversation_leads_up_to_the_reply() -> None:
    for row in rows():
        roles = [message["role"] for message in row["messages"]]
        said = [m["content"] for m in row["messages"] if m["role"] == "user"]
        assert said[-1] == row["message"]
        assert roles[-1] != "assistant"
        assert set(roles) <= {"system", "user", "assistant"}


def test_messages_are_spread_over_services() -> None:
    services = Counter(row["service"] for row in rows())
    assert sum(services.values()) >= 200
    assert len(services) >= 15
    assert max(services.values()) <= 2 * min(services.values())


def test_no_message_comes_twice_with_the_same_record() -> None:
    twins = Counter((row["message"].lower(), json.dumps(row["record"])) for row in rows())
    assert max(twins.values()) == 1
    assert len({row["id"] for row in rows()}) == len(rows())


def test_a_third_asks_for_a_value_and_its_reference_says_it() -> None:
    said = module("asked").said
    asking = [row for row in rows() if row["asked"]]
    assert 0.3 <= len(asking) / len(rows()) <= 0.45
    for row in asking:
        assert said(row["reference"], row["asked"]), row["id"]
    for row in rows():
        for name in FORMS[:-1]:
            assert not row[name] or said(row["reference"], row[name]), row["id"]
        assert not said(row["reference"], row["untrue"]), row["id"]


def test_what_is_asked_can_be_known_from_the_record() -> None:
    asked = module("asked")
    for row in rows():
        if row["asked"]:
            fields = asked.asked_of(row["message"], row["record"])
            no = [list(asked.NO)] * bool(asked.denied(row["message"], row["record"]))
            assert row["asked"] in [*(one.forms for one in fields), *no]


def failing(text: str, columns: Mapping[str, object]) -> set[str]:
    """Name the checks that a text fails; the one of the model's probabilities is left out."""
    return {verdict.check for verdict in judge_all(CHECKS, text, columns) if not verdict.passed}


def test_a_right_answer_passes_the_checks() -> None:
    failed = [row["id"] for row in rows() if failing(row["reference"], row)]
    assert len(failed) / len(rows()) <= 0.05, failed


def test_no_beginning_of_an_accepted_answer_is_called_hopeless() -> None:
    for row in rows():
        answer = row["reference"]
        if failing(answer, row):
            continue
        for end in range(1, len(answer), 3):
            for check in CHECKS:
                status = check.check_prefix(answer[:end], row).status
                assert status is not PrefixStatus.IMPOSSIBLE, (check.name, answer[:end])


def test_a_wrong_answer_fails_the_check_that_is_for_it() -> None:
    asking = next(row for row in rows() if row["asked"])
    waiting = next(row for row in rows() if "has been made" in row["untrue"])
    assert "answers" in failing("I would be happy to help you with that.", asking)
    assert "grounded" in failing("You can call them at 555-0100.", asking)
    assert "true to the booking" in failing("Your reservation has been made.", waiting)
    assert "blocked" in failing("As an AI language model, I can help you.", waiting)
    assert "whole sentence" in failing("would you like to book it", waiting)
    assert "tone" in failing("That is a horrible, stupid and ugly question.", waiting)


def test_courtesies_are_answered_from_past_cases_and_the_rest_is_left_to_the_model() -> None:
    job = read_job(FOLDER / "job.toml")
    router = job.router()
    ready = [item for item in read_items(job) if router.route(item.columns).reply is not None]
    assert 0.02 <= len(ready) / len(read_items(job)) <= 0.15
    for item in ready:
        assert re.search(r"thank|bye|no\b|that.*all", str(item.columns["message"]), re.IGNORECASE)
        assert not item.columns["asked"]


def test_an_answer_of_a_past_case_is_used_as_no_model_was_unsure_of_it(tmp_path: Path) -> None:
    router = read_job(FOLDER / "job.toml").router()
    ready = [row for row in rows() if router.ready(row) is not None][:3]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ready))
    output = tmp_path / "replies.jsonl"
    job = read_job(FOLDER / "job.toml", input=tmp_path / "some.jsonl", output=output)
    assert any(check.kind == "confidence" for check in job.checks)
    with Journal(tmp_path / "journal.db") as journal:
        work = open_job(job, journal)
        with work.loop() as loop:
            loop.run()
        work.write(loop.stopped)
    for line in output.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert (row["accepted"], row["source"], row["tokens"]["computed"]) == (True, "case", 0)


def test_a_question_is_never_answered_from_a_past_case() -> None:
    router = read_job(FOLDER / "job.toml").router()
    for row in rows():
        if "?" in row["message"]:
            assert router.route(row).reply is None


def test_canned_replies_pass_the_checks_that_need_no_item() -> None:
    job = read_job(FOLDER / "job.toml")
    known: dict[str, object] = {
        "messages": [],
        "record": {},
        "asked": [],
        "asked_too": [],
        "offer": [],
        "outcome": [],
        "repeats": [],
        "repeats_too": [],
        "untrue": [],
    }
    with (FOLDER / "cases.jsonl").open(encoding="utf-8") as lines:
        replies = {json.loads(line)["reply"] for line in lines}
    replies |= {rule.reply.text for rule in job.rules if rule.reply}
    for reply in replies:
        assert not failing(reply, known)


def test_the_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.jsonl")) < 700_000


@pytest.mark.parametrize(
    ("field", "value", "form"),
    [
        ("rent", "$1,650", "1650 dollars"),
        ("alarm_time", "13:00", "1 pm"),
        ("alarm_time", "12:00", "noon"),
        ("outbound_arrival_time", "12:05 am", "0:05"),
        ("rating", "4.00", "4"),
        ("transfer_time", "1", "one business day"),
        ("phone_number", "+1 646-490-7348", "646-490-7348"),
        ("address", "377 Santana Row #1000", "377 Santana Row"),
    ],
)
def test_a_value_can_be_said_in_other_words(field: str, value: str, form: str) -> None:
    assert form in module("asked").forms_of(field, value)


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("What's their phone number and address?", ["phone_number", "address"]),
        ("Great, how much is it?", ["price"]),
        ("I would like to book a table at 7 pm.", []),
        ("Thanks, bye!", []),
    ],
)
def test_a_question_names_its_field(message: str, asked: list[str]) -> None:
    record = {"phone_number": "408-247-8880", "address": "1 Main Street", "price": "$20"}
    assert [one.field for one in module("asked").asked_of(message, record)] == asked


def test_what_is_to_be_confirmed_is_repeated() -> None:
    repeats = module("required").repeats_of
    booking = {"time": "1 pm", "number_of_seats": "2"}
    assert [forms[0] for forms in repeats([{}, booking])] == ["1 pm", "2"]
    assert repeats([booking, booking]) == []
    assert repeats([{}, {**booking, "request": "done"}]) == []
    assert repeats([{}, {**booking, "date": "2019-03-01"}]) == []


def test_an_offer_is_named_once_and_an_outcome_told() -> None:
    required = module("required")
    assert required.offer_of([{}, {"hotel_name": "11 Howard, Soho"}])[-1] == "11 Howard"
    assert required.offer_of([{"hotel_name": "Aka"}, {"hotel_name": "Aka"}]) == []
    assert required.offer_of([{"request": "done", "hotel_name": "Aka"}]) == []
    assert required.outcome_of({"request": "done", "ride_fare": "$9"})[0] == "on the way"
    assert "sorry" in required.outcome_of({"request": "failed"})
    assert required.outcome_of({"hotel_name": "Aka"}) == []


@pytest.mark.parametrize(
    ("message", "denied"),
    [
        ("Do they have wifi?", True),
        ("Is it a smoking hotel?", False),
        ("Is there wifi, and can I smoke there?", None),
        ("Please find a hotel with wifi.", None),
        ("What's their number?", None),
    ],
)
def test_one_question_of_yes_or_no_is_answered_from_the_record(
    message: str, denied: bool | None
) -> None:
    record = {"has_wifi": "no", "smoking_allowed": "yes"}
    assert module("asked").denied(message, record) is denied


def test_success_is_not_to_be_claimed_before_it_is_recorded() -> None:
    untrue = module("claims").untrue_claims
    assert "has been made" in untrue([{}])
    assert "has been made" in untrue([{}, {"request": "failed"}])
    assert "unable to" in untrue([{}, {"request": "done"}])
    assert untrue([{"request": "done"}, {}]) == []
