"""Rows in Python: a table for pandas, the progress that is asked for, and texts without checks."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny import tiny_model

from ostinato import Steps
from ostinato.errors import InputError, RunError
from ostinato.flow import check, flow
from ostinato.journal import Journal
from ostinato.models import LanguageModel
from ostinato.refine import Refine, Rows, rows_of_run, write_export
from ostinato.refine.export import RESULT_COLUMNS
from ostinato.text import write

ITEMS: list[dict[str, Any]] = [
    {"message": "We can", "number": 1, "urgent": True, "reply": "before"},
    {"message": "The room", "number": None, "urgent": None, "weight": 0.5},
    {"message": "Hello", "number": 2**40, "tags": ["a", "b"]},
]
PROMPTS: list[Any] = ["We can", "The room", [{"role": "user", "content": "Hello"}]]
LINE = "3 of 3 done, 3 accepted (100%)"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model()


def short(text: str) -> bool:
    return len(text) < 500


def refined(model: LanguageModel, **more: Any) -> Rows:
    given = {"items": ITEMS, "checks": [short, "repetition"], **more}
    run = {name: given.pop(name) for name in ("run", "journal", "progress") if name in given}
    return Refine(model, prompt="{message}", max_new_tokens=4, **given).run(**run)


def test_rows_of_a_run_come_from_its_journal(model: LanguageModel, tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        rows = refined(model, run="a", journal=journal)
        found = rows_of_run(journal.get("a"))
        assert found == [{**row, "columns": {}} for row in rows]
        assert found.to_pandas()["reply"].tolist() == [row["reply"] for row in rows]
        journal.create("training", kind="train text")
        with pytest.raises(RunError, match="got 'training', which is train text"):
            rows_of_run(journal.get("training"))


# The table ----------------------------------------------------------------------------------------


def test_the_table_has_a_result_s_columns_then_the_item_s_own(model: LanguageModel) -> None:
    rows = refined(model)
    table = rows.to_pandas()
    own = ["message", "number", "urgent", "item.reply", "weight", "tags"]
    assert list(table.columns) == [*RESULT_COLUMNS, *own]
    assert table["reply"].tolist() == [row["reply"] for row in rows]
    assert table["message"].tolist() == [item["message"] for item in ITEMS]
    assert table["item.reply"][0] == "before" and table["item.reply"].isna().tolist() == [
        False,
        True,
        True,
    ]
    assert table[table.accepted]["tokens_reply"].sum() == 12
    assert table["verdicts"][0] == rows[0]["verdicts"] and table["tags"][2] == ["a", "b"]
    assert json.loads(table[["id", "stopped", "why"]].to_json(orient="records"))[0] == {
        "id": rows[0]["id"],
        "stopped": "passed",
        "why": rows[0]["stopped"]["sentence"],  # type: ignore[index]
    }


def test_numbers_stay_whole_where_some_are_missing(model: LanguageModel) -> None:
    table = refined(model).to_pandas()
    assert str(table["number"].dtype) == "Int64" and table["number"][2] == 2**40
    assert str(table["urgent"].dtype) == "boolean" and table["urgent"].isna().sum() == 2
    assert table["tokens_computed"].dtype == "int64" and table["accepted"].dtype == bool


def test_the_table_is_that_of_an_exported_file(model: LanguageModel, tmp_path: Path) -> None:
    refine = Refine(model, ITEMS, prompt="{message}", checks=[short], max_new_tokens=4)
    from ostinato.refine import from_lane

    results = [
        from_lane(result, columns=dict(refine.items)[result.key])
        for step in refine.loop()
        for result in step.results
    ]
    write_export(tmp_path / "rows.parquet", results, ITEMS)
    exported = pd.read_parquet(tmp_path / "rows.parquet")
    table = Rows(result.to_json() for result in results).to_pandas()
    assert list(exported.columns) == list(table.columns)
    flat = [name for name in RESULT_COLUMNS if name not in ("verdicts", "drafts")]
    pd.testing.assert_frame_equal(exported[flat], table[flat], check_dtype=False)


def test_no_rows_make_an_empty_table_with_the_same_columns() -> None:
    assert list(Rows().to_pandas().columns) == list(RESULT_COLUMNS)


def test_without_pandas_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"pip install 'ostinato\[pandas\]'"):
        Rows().to_pandas()


# The progress -------------------------------------------------------------------------------------


def test_progress_is_shown_when_it_is_asked_for(
    model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    refined(model, progress=True)
    shown = capsys.readouterr()
    assert LINE in shown.err and "Working: 0 of 3 done" in shown.err and shown.out == ""
    for quiet in (None, False):
        refined(model, progress=quiet)
        assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="progress must be True or False or None, got 'yes'"):
        refined(model, progress="yes")


class ZMQInteractiveShell:
    """What a notebook's kernel calls its shell."""


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)


@pytest.mark.parametrize("progress", [None, True])
@pytest.mark.usefixtures("notebook")
def test_a_notebook_has_a_bar(
    model: LanguageModel, capsys: pytest.CaptureFixture[str], progress: bool | None
) -> None:
    refined(model, progress=progress)
    first, *_, last = capsys.readouterr().err.strip().split("\r")
    assert "0%" in first and "0 of 3 done" in first
    assert last.startswith("100% ") and LINE in last


@pytest.mark.usefixtures("notebook")
def test_a_notebook_without_tqdm_has_plain_lines(
    model: LanguageModel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    refined(model)
    assert capsys.readouterr().err.splitlines()[-1].startswith(LINE)


def test_what_a_run_has_already_counts_as_done(
    model: LanguageModel, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with Journal(tmp_path / "j.db") as journal:
        rows = refined(model, run="mine", journal=journal)
        again = refined(model, run="mine", journal=journal, progress=True)
    assert again == rows and f"Working: {LINE}" in capsys.readouterr().err


# Texts without checks -----------------------------------------------------------------------------


def test_texts_have_rows_in_the_order_of_their_prompts(
    model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(PROMPTS, model=model, each=Steps(5), slots=2).rows(progress=True)
    assert [row["columns"] for row in rows] == [{"prompt": prompt} for prompt in PROMPTS]
    assert "3 of 3 done" in capsys.readouterr().err
    table = rows.to_pandas()
    assert table["tokens_reply"].tolist() == [5, 5, 5] and not table["accepted"].any()
    assert set(rows[0]) == set(refined(model)[0])


def test_recorded_texts_resume_after_a_break(model: LanguageModel, tmp_path: Path) -> None:
    whole = write(PROMPTS, model=model, each=Steps(5), slots=1).rows()
    with Journal(tmp_path / "j.db") as journal:
        with write(
            PROMPTS, model=model, each=Steps(5), slots=1, run="texts", journal=journal
        ) as loop:
            for step in loop:
                if step.results:
                    break
        again = write(PROMPTS, model=model, each=Steps(5), slots=1, run="texts", journal=journal)
        assert 0 < again.tick < 15
        assert again.rows() == whole
        ended = write(PROMPTS, model=model, each=Steps(5), slots=1, run="texts", journal=journal)
        assert ended.rows() == whole


def test_rows_of_a_loop_that_was_iterated_unrecorded_are_refused(model: LanguageModel) -> None:
    loop = write(PROMPTS, model=model, each=Steps(5))
    next(iter(loop))
    with pytest.raises(RunError, match="before its first step, got one at step 1"):
        loop.rows()


@pytest.mark.parametrize("name", ["checks", "strategy"])
def test_texts_without_checks_name_what_has_them(model: LanguageModel, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be left out of write.*Refine writes"):
        given: dict[str, Any] = {name: ["repetition"]}
        write(PROMPTS, model=model, **given)


# Flows --------------------------------------------------------------------------------------------


@flow
def judged() -> tuple[bool, bool]:
    return bool(check("One word.", "repetition")), bool(check("and so on " * 6, ["repetition"]))


def test_the_calls_of_flows_take_names_of_checks() -> None:
    assert judged() == (True, False)
