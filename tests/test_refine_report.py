"""Results, their tallies and the report page, from made-up rows of lanes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import pytest
from refine_made_up import JOB, job_folder, lane_row, made_up

from ostinato.journal import StopKind, Stopped
from ostinato.loop import LaneResult, Verdict, judged
from ostinato.refine.job.changes import Fingerprint, compare
from ostinato.refine.job.config import Job
from ostinato.refine.job.file import read_job
from ostinato.refine.job.item_index import Keys
from ostinato.refine.job.items import Item
from ostinato.refine.job.job_items import read_items, read_job_items
from ostinato.refine.job.settings import JobSettings
from ostinato.refine.report.advice import advise
from ostinato.refine.report.html import Outcome, ReportTally, duration, report_page
from ostinato.refine.report.items import ItemValues
from ostinato.refine.report.sparkline import sparkline
from ostinato.refine.report.summary import Summary, reasons, summarize
from ostinato.refine.report.why import Course, attempt_lines, costly, course_of, lost_by, tally
from ostinato.refine.results import Draft, Result, Tokens, from_lane, write_results
from ostinato.refine.settings import changed_settings


@dataclass
class Made:
    """A job's made-up results, and the report of them."""

    job: Job
    items: list[Item]
    results: list[Result]
    stopped: Stopped | None = None
    seconds: float | None = 90.0

    @property
    def summary(self) -> Summary:
        return summarize(self.results, len(self.items))

    def page(self) -> str:
        tally = ReportTally(self.job, self.job.router())
        for result in self.results:
            tally.add(result)
        summary = tally.summary.summary(len(self.items))
        assert summary == self.summary
        outcome = Outcome(job=self.job, summary=summary, stopped=self.stopped, seconds=self.seconds)
        return report_page(outcome, tally)


def outcome_of(folder: Path, count: int = 60) -> Made:
    job, items, rows = made_up(folder, count)
    router = job.router()
    results = [
        from_lane(LaneResult.from_json(row), router.route(item.columns), item.columns)
        for item, row in zip(items, rows, strict=True)
    ]
    return Made(job, items, results)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return outcome_of(tmp_path_factory.mktemp("job"))


def embedded(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="report">(.*?)</script>', page, re.S)
    assert found is not None
    value = json.loads(found[1])
    assert isinstance(value, dict)
    return value


def draft(number: int, passed: bool | None, *, answer: str = "start over", lost: int = 0) -> Draft:
    """A whole draft on which the check `c` said so; None: it became impossible on the way."""
    verdicts = () if passed is None else (Verdict("c", passed),)
    return Draft(
        round=number, backtracks=0, position=10, lost=lost, before="", taken_back="",
        check=() if passed else ("c",), message="c: no.", answer=answer, verdicts=verdicts,
    )  # fmt: skip


def result(*said: bool | None) -> Result:
    drafts = tuple(draft(n, passed) for n, passed in enumerate(said))
    final = (Verdict("c", bool(said[-1])),)
    stopped = Stopped(StopKind.PASSED if said[-1] else StopKind.FAILED, "")
    return Result(
        id="x", reply="", accepted=bool(said[-1]), stopped=stopped, verdicts=final, drafts=drafts
    )


# Results ----------------------------------------------------------------------------------------


def test_a_row_has_what_was_kept_and_what_was_taken_back(tmp_path: Path) -> None:
    job, items, rows = made_up(tmp_path, 40)
    back = next(
        from_lane(LaneResult.from_json(row))
        for item, row in zip(items, rows, strict=True)
        if row["backtracks"] and row["accepted"]
    )
    first, last = back.drafts
    assert first.taken_back.endswith("obviously") and back.reply.startswith(first.before)
    assert first.check == ("polite",) and first.lost >= 3
    assert last.taken_back == "" and last.before == back.reply
    assert back.outcome == "revised"
    assert back.tokens.computed == back.tokens.accepted + back.tokens.discarded
    assert [check.name for check in job.checks] == [verdict.check for verdict in back.verdicts]


def test_a_recorded_length_of_what_was_kept_counts(tmp_path: Path) -> None:
    _, _, rows = made_up(tmp_path, 40)
    row = next(row for row in rows if row["backtracks"])
    attempts = row["attempts"]
    assert isinstance(attempts, list)
    attempts[0]["kept"] = 3
    found = from_lane(LaneResult.from_json(row)).drafts[0]
    assert len(found.before) == 3


def test_an_answer_that_was_ready_has_its_source(outcome: Made) -> None:
    ready = [result for result in outcome.results if result.source == "rule"]
    assert ready and all(result.rule == "goodbye" and result.accepted for result in ready)
    assert all(result.tokens == Tokens() and result.outcome == "accepted" for result in ready)


def test_a_line_says_which_checks_failed_and_no_more_without_details(outcome: Made) -> None:
    refused = next(one for one in outcome.results if not one.accepted)
    line, whole = refused.line(), refused.line(details=True)
    assert whole == refused.to_json() and whole["drafts"] and whole["verdicts"]
    only = {"verdicts", "drafts", "stopped"}
    assert {name: whole[name] for name in whole.keys() - only} == {
        name: line[name] for name in line.keys() - {"failed", "stopped"}
    }
    failed = [each for each in refused.verdicts if not each.passed]
    assert failed
    assert line["failed"] == [{"check": e.check, "message": e.error or e.message} for e in failed]
    stopped = refused.stopped
    assert line["stopped"] == {"kind": stopped.kind.value, "sentence": stopped.sentence}
    assert "failed" in outcome.results[0].line()


def test_the_output_is_in_input_order_and_replaced_whole(outcome: Made, tmp_path: Path) -> None:
    path = tmp_path / "out" / "replies.jsonl"
    write_results(path, outcome.results)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["id"] for line in lines] == [item.key for item in outcome.items]
    assert [entry.name for entry in path.parent.iterdir()] == ["replies.jsonl"]
    refused = next(line for line in lines if not line["accepted"])
    write_results(path, [replace(outcome.results[0], reply="\ud800")])
    assert json.loads(path.read_text("utf-8"))["reply"] == "\ud800"
    assert refused["stopped"]["kind"] == "failed" and refused["outcome"] == "given up"


# Tallies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "course"),
    [
        ((True,), Course.FIRST),
        ((True, True), Course.FIRST),
        ((False, True), Course.REVISED),
        ((None, True), Course.REVISED),
        ((False, False), Course.NEVER),
        ((True, False, True), Course.FLAKY),
        ((True, False), Course.FLAKY),
        ((False, True, None, True), Course.FLAKY),
    ],
)
def test_the_course_of_a_check(said: tuple[bool | None, ...], course: Course) -> None:
    assert course_of("c", result(*said)) is course


def test_a_check_that_never_spoke_was_not_judged() -> None:
    assert course_of("other", result(True)) is Course.UNKNOWN


def test_courses_add_up_to_the_items_and_costs_to_what_was_lost(outcome: Made) -> None:
    names = [check.name for check in outcome.job.checks]
    records = tally(names, outcome.results)
    for record in records:
        assert sum(record.count(course) for course in Course) == len(outcome.results)
    lost = sum(lost_by(d) for one in outcome.results for d in one.drafts if d.check)
    assert sum(record.tokens for record in records) == pytest.approx(lost)
    assert [record.name for record in costly(records)] == ["answers"]


def test_a_check_that_passes_no_item_is_labeled_never_passed() -> None:
    record = tally(["c"], [result(False), result(False, False)])[0]
    assert record.label == "never passed"
    assert tally(["c"], [result(True, False, True)] * 2)[0].label == "flaky"


def test_a_check_that_could_not_judge_was_not_judged_and_is_labeled_so() -> None:
    broken = Verdict("c", False, 0.0, error="The check raised KeyError: 'x'")
    unjudged = replace(result(False), verdicts=(broken,))
    unjudged = replace(unjudged, drafts=(replace(unjudged.drafts[0], verdicts=(broken,)),))
    assert course_of("c", unjudged) is Course.UNKNOWN
    record = tally(["c"], [unjudged] * 3)[0]
    assert (record.label, record.errors) == ("error", 3)
    assert record.count(Course.NEVER) == 0 and record.count(Course.UNKNOWN) == 3
    assert tally(["c"], [result(True)] * 40 + [unjudged])[0].label == "error"
    assert tally(["c"], [])[0].label == "not judged"


def test_a_verdict_with_an_error_has_no_score_in_json() -> None:
    broken = Verdict("c", False, 0.0, error="No answer in time.")
    assert broken.to_json()["score"] is None
    assert Verdict.from_json(broken.to_json()) == broken
    assert Verdict.from_json({**broken.to_json(), "score": 0.0}) == broken  # as older runs have it
    assert judged([broken, Verdict("d", True)]).numbers == {"c": None, "d": 1.0}


def test_why_lists_each_check_of_each_attempt(outcome: Made) -> None:
    revised = next(one for one in outcome.results if one.backtracks)
    lines = attempt_lines(revised)
    assert (lines[0].verdict, lines[0].check, lines[0].backtracks) == ("impossible", "polite", 0)
    assert lines[0].place.strip().endswith("obviously") and lines[0].tokens > 0
    assert [line.verdict for line in lines[1:]] == ["passed"] * 3


def test_outcomes_and_reasons_add_up(outcome: Made) -> None:
    summary = summarize(outcome.results, len(outcome.items) + 5)
    assert summary.unfinished == 5
    assert sum(reason.count for reason in reasons(outcome.results)) == summary.finished
    assert summary.tokens_computed == summary.tokens_discarded + sum(
        one.tokens.computed - one.tokens.discarded for one in outcome.results
    )


# Advice -----------------------------------------------------------------------------------------


def test_advice_names_the_costly_check_and_the_needless_rounds(outcome: Made) -> None:
    told = "\n".join(
        f"{one.observation} {one.action}" for one in advise(outcome.job, outcome.results)
    )
    assert "'answers' took back" in told
    assert "items were given up" in told
    assert "rounds = " in told


def test_advice_to_backtrack_counts_the_tokens_before_the_failure(tmp_path: Path) -> None:
    text = JOB.replace('kind = "backtrack"', 'kind = "resample"')
    job = read_job(job_folder(tmp_path, 1, text))
    verdict = Verdict("polite", False, 0.0, "No.", None).to_json() | {"span": [50, 60]}
    stopped = Stopped(StopKind.FAILED, "polite: No.", "polite").to_json()
    row = lane_row(job, read_items(job)[0]) | {
        "attempts": [
            {
                "round": 0, "try": 0, "position": 21, "text": "x" * 100, "stopped": stopped,
                "answer": {"answer": "start over"}, "verdicts": [verdict],
            }
        ],
        "spent": {"computed": 40},
    }  # fmt: skip
    advice = advise(job, [from_lane(LaneResult.from_json(row))])
    assert any(one.action.startswith('Keep them: kind = "backtrack"') for one in advice)
    assert any(one.observation.startswith("10 tokens") for one in advice)


def test_a_job_that_wastes_nothing_is_left_alone(outcome: Made) -> None:
    clean = [one for one in outcome.results if one.outcome == "accepted"]
    assert advise(outcome.job, clean) == []


# The page ---------------------------------------------------------------------------------------


class Outline(HTMLParser):
    """Collects the tags and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_is_one_file_that_asks_for_nothing(outcome: Made) -> None:
    page = outcome.page()
    outline = Outline()
    outline.feed(page)
    assert outline.addresses == ["#items"]
    assert outline.tags.count("script") == 2 and "link" not in outline.tags
    assert "http://" not in page and "https://" not in page and "url(" not in page
    assert "prefers-color-scheme: dark" in page


def test_text_of_models_and_customers_is_never_html(outcome: Made) -> None:
    evil = "</script><img src=x onerror=alert(1)><!-- \u2028 \ud800"
    first = outcome.results[0]
    results = [replace(first, reply=evil, accepted=False, stopped=Stopped(StopKind.FAILED, evil))]
    page = replace(outcome, results=results).page()
    assert "<img" not in page and "<!--" not in page and "onerror=alert" in page
    page.encode("utf-8")
    items = embedded(page)["items"]
    assert isinstance(items, list)
    assert items[0]["reply"] == evil.replace("\ud800", "?")


def test_the_page_holds_every_item_and_its_history(outcome: Made) -> None:
    value = embedded(outcome.page())
    items = value["items"]
    assert isinstance(items, list)
    assert value["checks"] == ["length", "answers", "polite"]
    assert [item["id"] for item in items] == [one.id for one in outcome.results]
    revised = next(item for item in items if item["backtracks"])
    assert revised["drafts"][0]["taken"].endswith("obviously")
    assert revised["refused"] == [2]


def test_the_headline_says_what_came_out_and_why_it_stopped(outcome: Made) -> None:
    page = outcome.page()
    summary = outcome.summary
    assert f"<title>support: {summary.accepted} of 60 accepted</title>" in page
    assert f"{summary.given_up} were not accepted" in page
    cut = replace(
        outcome,
        results=outcome.results[:20],
        stopped=Stopped(StopKind.BUDGET, "It took 500 tokens.", "Budget"),
    )
    page = cut.page()
    assert "Stopped with 40 items unfinished: It took 500 tokens." in page


def test_a_thousand_items_stay_small_and_share_bars(tmp_path: Path) -> None:
    many = outcome_of(tmp_path, 1000)
    page = many.page()
    assert len(page) < 2_000_000
    drawn = sparkline(many.results)
    assert drawn is not None and drawn.width <= 240 * 6
    assert "a bar is 4 items" in drawn.label


def test_a_page_of_very_many_items_shows_the_telling_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = outcome_of(tmp_path, 600)
    whole: Any = embedded(many.page())
    assert whole["all"] == len(whole["items"]) == 600 and "items are here" not in many.page()
    monkeypatch.setattr("ostinato.refine.report.items.MOST_BYTES", 60_000)
    page = many.page()
    value: Any = embedded(page)
    ids = [item["id"] for item in value["items"]]
    assert value["all"] == 600 and 20 < len(ids) < 300 and len(page) < 120_000
    assert f"{len(ids)} of 600 items are here" in page
    every = [result.id for result in many.results]
    assert ids == [id for id in every if id in set(ids)]  # in their order
    by_id = {result.id: result for result in many.results}
    shown = [by_id[id] for id in ids]
    for outcome in ("accepted", "revised", "given up"):
        assert any(result.outcome == outcome for result in shown)
    lost = max(result.tokens.discarded for result in many.results if result.outcome == "revised")
    assert any(result.tokens.discarded == lost for result in shown)
    share = sum(not result.accepted for result in shown) / len(shown)
    assert share >= sum(not result.accepted for result in many.results) / 600
    assert many.page() == page


def test_a_job_without_any_result_has_a_page_too(outcome: Made) -> None:
    page = replace(outcome, results=[], seconds=None).page()
    assert "<h1>0 <span>of 60 replies accepted</span></h1>" in page


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(4.24, "4.2 s"), (59.7, "1 min 0 s"), (432, "7 min 12 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


# Changes ----------------------------------------------------------------------------------------


def prints(job: Job) -> Fingerprint:
    items = read_job_items(job, job.router(), job.folder / "items")
    return Fingerprint(items=items.index)


def unchanged(before: Fingerprint, now: Fingerprint) -> set[str]:
    assert before.items is not None and now.items is not None
    return {key for _, key in now.items.unchanged_since(before.items)}


def test_changes_touch_no_more_items_than_they_must(tmp_path: Path) -> None:
    before = prints(read_job(job_folder(tmp_path)))
    recorded = json.loads(json.dumps(before.to_json()))
    same = Fingerprint.from_json(recorded, tmp_path / "items")
    assert not compare(same, before)
    rule = JOB.replace('pattern = "^(bye|thanks)"', 'pattern = "breakfast"')
    now = prints(read_job(job_folder(tmp_path, text=rule)))
    changes = compare(before, now)
    assert changes.changed == Keys(3, ("m-001", "m-007", "m-011"))
    every = {f"m-{n + 1:03}" for n in range(12)}
    assert unchanged(before, now) == every - {"m-001", "m-007", "m-011"}


def test_the_record_of_an_older_run_compares_like_an_index(tmp_path: Path) -> None:
    before = prints(read_job(job_folder(tmp_path)))
    assert before.items is not None
    digests = {facts.key: facts.digest for facts in before.items.facts()}
    recorded = {"items": digests}
    older = Fingerprint.from_json(recorded, tmp_path / "items")
    assert not compare(older, before)
    now = prints(read_job(job_folder(tmp_path, 14)))
    assert compare(older, now) == compare(before, now)
    assert compare(older, now).added == Keys(2, ("m-013", "m-014"))


def test_items_of_which_nothing_is_known_any_more_count_as_changed(tmp_path: Path) -> None:
    before = prints(read_job(job_folder(tmp_path)))
    recorded = before.to_json()
    now = prints(read_job(job_folder(tmp_path, 14)))
    assert before.items is not None
    before.items.path.unlink()
    changes = compare(Fingerprint.from_json(recorded, tmp_path / "items"), now)
    assert changes.changed.count == 14 and changes.lossy


def test_a_changed_check_affects_all_items_and_new_ones_are_listed(tmp_path: Path) -> None:
    first = read_job(job_folder(tmp_path))
    before, then = prints(first), JobSettings.of(first)
    job = read_job(job_folder(tmp_path, 14, JOB.replace("max = 24", "max = 25")))
    settings = changed_settings(then, JobSettings.of(job), tmp_path)
    changes = compare(before, prints(job), tuple(settings))
    assert changes.sentences(14) == [
        "changed in the job: checks.length.max was 24, is 25",
        "2 items (m-013, m-014) new in the input",
        "14 of 14 items would be written again",
    ]
    assert changes.lossy and not changes.keeps({"spent": {}})


def test_swaps_at_one_place_are_one_line_and_one_draft_of_the_page(tmp_path: Path) -> None:
    job, _, (row, *_) = made_up(tmp_path)

    def swap(text: str, round: int = 0) -> dict[str, object]:
        stopped = Stopped(StopKind.FAILED, 'polite: Leave out "you".', "polite", {})
        answer = {"answer": "go back", "to": 2, "edits": {}, "reason": ""}
        at = {"round": round, "try": 0, "position": 3, "kept": len("We are"), "verdicts": []}
        return {**at, "stopped": stopped.to_json(), "answer": answer, "text": f"We are{text}"}

    swapped = [swap(f" {word}") for word in ("obviously", "you people", "not")]
    attempts = [*swapped, swap(" here", round=1), *cast("list[Any]", row["attempts"])]
    result = from_lane(LaneResult.from_json({**row, "attempts": attempts}))
    line, other, *_ = attempt_lines(result)
    assert (line.times, line.check, line.verdict) == (3, "polite", "impossible")
    assert line.place == " obviously /  you people /  not" and other.times == 1
    values = ItemValues(job.router(), [])
    values.add(result)
    drafts = json.loads(values.items()[0])["drafts"]
    assert drafts[0]["tried"] == [" obviously", " you people"] and drafts[0]["taken"] == " not"
    assert drafts[1]["tried"] == []
