"""Results of lanes: typed values until they are JSON, and the rows of journals read back."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from test_policies import ITEMS, POLICIES, lanes
from toys import Speller

from ostinato.errors import ItemError
from ostinato.journal import Journal, StopKind
from ostinato.loop import LaneResult, Lanes, Loop, Policy, Steps, Text, Verdict
from ostinato.refine.results import from_lane

OLD = Path(__file__).parent / "data/journal-v1-lanes.db"


def results(of: Lanes, **where: Any) -> list[LaneResult]:
    return [result for step in Loop(of, until=Steps(10_000), **where) for result in step.results]


def test_a_result_is_read_back_from_its_row() -> None:
    for result in results(lanes()):
        row = json.loads(json.dumps(result.to_json()))
        assert LaneResult.from_json(row) == result
        assert LaneResult.from_json(row).to_json() == row


def test_the_journal_has_the_rows_of_what_a_step_hands_out(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        found = results(lanes(), run="r", journal=journal)
        rows = dict(journal.get("r").results())
    assert rows == {result.key: result.to_json() for result in found}
    assert [row["key"] for row in rows.values()] == list(rows)


def test_a_text_still_knows_its_tokens() -> None:
    accepted = [result for result in results(lanes()) if result.accepted]
    assert accepted and all(isinstance(result.output, Text) for result in accepted)
    assert all(len(result.output.tokens) == result.length for result in accepted)


def test_rows_of_older_versions_are_read() -> None:
    connection = sqlite3.connect(f"file:{OLD}?mode=ro", uri=True)
    rows = [json.loads(row) for (row,) in connection.execute("SELECT row FROM results")]
    connection.close()
    assert rows and all("tries" in row for row in rows)
    for row in rows:
        result = LaneResult.from_json(row)
        assert result.backtracks == row["tries"] == 1
        assert (result.key, result.output) == (row["key"], row["output"])
        assert len(from_lane(result).drafts) == len(row["attempts"]) == 2
    stopped = {"kind": "ended", "sentence": "It ended."}
    least = LaneResult.from_json({"accepted": True, "stopped": stopped})
    assert (least.rounds, least.length, least.attempts) == (1, 0, ())


def test_an_item_without_a_policy_is_set_aside_and_the_rest_goes_on() -> None:
    def policy(item: str) -> Policy:
        if item == "short":
            raise ItemError("No policy for this one.")
        return POLICIES[item]

    found = {result.key: result for result in results(Lanes(Speller(3), ITEMS, policy, seed=3))}
    assert set(found) == {key for key, _ in ITEMS}
    for key, kind in ITEMS:
        refused = found[key].stopped.kind is StopKind.ERROR
        assert refused == (kind == "short")
        assert not refused or found[key].stopped.sentence == "No policy for this one."


def test_what_a_clock_cut_short_says_so_in_its_row() -> None:
    stopped = {"kind": "budget", "sentence": "It took too long."}
    row = {"key": "a", "accepted": False, "stopped": stopped, "by_clock": True, "carried": True}
    result = LaneResult.from_json(row)
    assert result.by_clock and result.carried
    again = result.to_json()
    assert again["by_clock"] is again["carried"] is True
    plain = LaneResult.from_json({**row, "by_clock": False, "carried": False}).to_json()
    assert not {"by_clock", "carried"} & set(plain)


def test_verdicts_stay_verdicts() -> None:
    judged = [result for result in results(lanes()) if result.verdicts]
    assert judged and all(isinstance(one, Verdict) for result in judged for one in result.verdicts)


def test_a_lane_process_says_what_its_reports_cost_and_how_long_a_draft_is() -> None:
    class Plain(Speller):
        costs, unit = (), ""

    class Double(Speller):
        costs, unit = ("tokens", "none"), "tokens"

        def step(self) -> dict[str, Any]:
            return {key: {**report, "tokens": 2} for key, report in super().step().items()}

    policy = Policy(each=Steps(3))
    for result in results(Lanes(Plain(), ITEMS, policy, seed=3)):
        assert (result.spent, result.length) == ({}, len(result.output))
    for result in results(Lanes(Double(), ITEMS, policy, seed=3)):
        assert result.spent == {"tokens": result.length} == {"tokens": 2 * len(result.output)}
