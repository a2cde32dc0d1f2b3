"""Jobs of very many items: memory does not grow with them, and nothing is done or written twice."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refine_made_up import made_up
from refine_scribe import JOB, Scribe, scribe_loop, write_job

from ostinato.cli.jobs.refine import refine
from ostinato.errors import InputError
from ostinato.journal import Journal, StopKind, Stopped
from ostinato.loop import LaneResult, Lanes, Loop, Policy, Steps, UniqueItems, Verdict, content_keys
from ostinato.loop.lanes import AT_ONCE, JUDGED_BY_MODEL
from ostinato.refine import open_job, read_job
from ostinato.refine.job.item_index import IndexWriter, ItemFacts, ItemIndex
from ostinato.refine.job.job_items import read_job_items
from ostinato.refine.job.job_run import JobRun
from ostinato.refine.lanes_later import LanesLater
from ostinato.refine.progress import PLAIN_EVERY, PassProgress, interval
from ostinato.refine.progress_tally import ProgressTally
from ostinato.refine.report.selection import TRIES, Selection
from ostinato.refine.results import from_lane

THANKS = "thanks for number {}"


def thankful(folder: Path, count: int, text: str = JOB) -> Path:
    """Write a job whose rule answers every item."""
    return write_job(folder, [THANKS.format(n) for n in range(count)], text)


def run(*options: str) -> Result:
    result = CliRunner().invoke(refine, ["mail.toml", *options])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Memory -----------------------------------------------------------------------------------------


def peak_of(folder: Path, count: int) -> int:
    """Return the most bytes that Python held while a job was opened, done and written."""
    folder.mkdir()
    job = read_job(thankful(folder, count))
    gc.collect()
    tracemalloc.start()
    with Journal(folder / "journal.db") as journal:
        work = open_job(job, journal)
        with work.loop() as loop:
            for _ in loop:
                pass
        outcome = work.write(loop.stopped)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert outcome.summary.accepted == count
    return peak


def test_memory_does_not_grow_with_the_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Smaller buffers: in a job of 600 items they are full already.
    monkeypatch.setattr("ostinato.refine.report.items.MOST_BYTES", 8000)
    monkeypatch.setattr("ostinato.text_files.BLOCK", 4096)
    monkeypatch.setattr(IndexWriter, "BATCH", 100)
    peak_of(tmp_path / "warm", 20)  # what is imported and compiled once
    few, many = peak_of(tmp_path / "few", 600), peak_of(tmp_path / "many", 1800)
    assert many < 1.15 * few


# Work -------------------------------------------------------------------------------------------


def test_ready_answers_share_steps_and_no_step_holds_too_many(folder: Path) -> None:
    job = read_job(thankful(folder, 3 * AT_ONCE + 5))
    with Journal(folder / "journal.db") as journal, open_job(job, journal).loop() as loop:
        finished = [[one.key for one in step.results] for step in loop]
    assert max(map(len, finished)) == AT_ONCE and len(finished) == 4
    assert [key for keys in finished for key in keys] == [f"m{n}" for n in range(3 * AT_ONCE + 5)]


def test_few_ready_answers_share_a_step_where_a_model_judges_them() -> None:
    def judge(output: object, item: object) -> list[Verdict]:
        return [Verdict("kind", True, spent={"tokens": 40, "judged": 40})]

    items: list[tuple[str, object]] = [(f"k{n}", {}) for n in range(20)]
    lanes = Lanes(
        Scribe(4), items, Policy(each=Steps(9), judge=judge, ready=lambda item: "You are welcome.")
    )
    finished = [len(step.results) for step in Loop(lanes, until=Steps(99))]
    assert finished == [AT_ONCE // JUDGED_BY_MODEL] * 2 + [20 % (AT_ONCE // JUDGED_BY_MODEL)]


def test_a_job_that_rules_answer_loads_no_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refinement(*given: object, **more: object) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr("ostinato.refine.job.job_run.refinement", refinement)
    thankful(folder, 5)
    told = run()
    assert "5 of 5 accepted" in told.stdout and "Loading" not in told.stderr


def test_the_model_is_loaded_for_an_answer_that_does_not_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def refinement(job: object, *given: object, **more: object) -> object:
        loads.append("loaded")
        process = Scribe(4)
        process.compute_mode = "by hand"  # type: ignore[attr-defined]
        return SimpleNamespace(lanes=SimpleNamespace(process=process), policy=Policy(each=Steps(9)))

    monkeypatch.setattr("ostinato.refine.job.job_run.refinement", refinement)
    text = JOB.replace('reply = "You are welcome."', 'reply = "{message}"')
    messages = ["thanks a lot", *["thanks, you are obviously right"] * 3, "thanks again, friend"]
    write_job(folder, messages, text.replace("rounds = 40", "rounds = 1"))
    told = run()
    assert loads == ["loaded"] and "Loading the model: a ready answer" in told.stderr
    lines = [json.loads(line) for line in Path("mail.replies.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == ["rule", "model", "model", "model", "rule"]
    assert lines[1]["refused_answer"] == "thanks, you are obviously right"
    with Journal() as journal:
        assert journal.get("mail").spec["compute_mode"] == "by hand"


def test_lanes_that_are_made_later_keep_the_recorded_mode() -> None:
    used: list[str] = []
    made = Scribe(3)
    made.use_compute_mode = used.append  # type: ignore[attr-defined]
    later = LanesLater(lambda: made)
    later.use_compute_mode("fixed shape")
    assert (later.slots, later.compute_mode, used) == (1, "fixed shape", [])
    later.start(SimpleNamespace(key="a", past=()), {})  # type: ignore[arg-type]
    assert (later.slots, used) == (3, ["fixed shape"])


CHILD = """
import sys
sys.path[:0] = [{tests!r}]
import refine_scribe
from ostinato.cli.jobs.refine import refine
from ostinato.refine.job.job_run import JobRun
JobRun.loop = refine_scribe.scribe_loop
refine(["mail.toml", "--quiet", *sys.argv[1:]])
"""


def start(*arguments: str) -> subprocess.Popen[bytes]:
    code = CHILD.format(tests=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", code, *arguments])


@pytest.mark.slow
def test_a_bulk_job_killed_at_any_moment_ends_with_the_same_output(folder: Path) -> None:
    # Of ten items nine are answered by the rule; the rest take words from the scribe.
    messages = [f"Hello {n}" if n % 10 == 3 else THANKS.format(n) for n in range(3000)]
    write_job(folder, messages)
    began = time.monotonic()
    assert start("--output", "alone.jsonl").wait() == 0
    took = time.monotonic() - began
    whole = Path("alone.jsonl").read_bytes()
    # Into a journal of their own: results of the first job would be taken over.
    killed = ("--journal", "other/journal.db", "--output", "killed.jsonl")
    rng, kills = random.Random(5), 0
    while kills < 8:
        child = start(*killed)
        time.sleep(took * rng.uniform(0.2, 0.9))
        if child.poll() is not None:
            break
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        kills += 1
    assert start(*killed).wait() == 0 and kills
    assert Path("killed.jsonl").read_bytes() == whole
    with Journal("other/journal.db") as journal:
        keys = [key for key, _ in journal.get("mail").results()]
    assert len(keys) == len({*keys}) == 3000


# Again ------------------------------------------------------------------------------------------


def test_a_finished_job_reads_no_item_and_writes_no_file_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobRun, "loop", scribe_loop)
    write_job(folder, ["thanks", "Hello", "broken"], JOB.replace("rounds = 40", "rounds = 1"))
    first = run()
    files = [Path("mail.replies.jsonl"), Path("mail.replies.report.html")]
    before = [(path.stat().st_ino, path.read_bytes()) for path in files]

    def refused(*given: object, **more: object) -> Iterator[Any]:
        raise AssertionError("the input is read again")

    with monkeypatch.context() as patch:
        patch.setattr("ostinato.refine.job.job_items.iter_rows", refused)
        again = run()
    assert "The job is finished: nothing was left to do." in again.stdout
    assert again.stdout.splitlines()[1:] == first.stdout.splitlines()
    assert [(path.stat().st_ino, path.read_bytes()) for path in files] == before
    for path, (_, content) in zip(files, before, strict=True):
        path.write_bytes(content + b" ")  # not as it was written
    run()
    assert files[0].read_bytes() == before[0][1]
    files[1].unlink()
    run()
    assert files[1].exists()


def test_a_run_that_recorded_its_items_itself_is_resumed_and_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thankful(folder, 5)
    run()
    with Journal() as journal:
        found = journal.get("mail")
        (path,) = Path(".ostinato/items").iterdir()
        fingerprint: Any = found.spec["fingerprint"]
        digests: Any = {facts.key: facts.digest for facts in ItemIndex(path).facts()}
        journal.amend(found, {"fingerprint": {**fingerprint, "items": digests, "index": None}})
    path.unlink()
    assert "nothing was left to do" in run().stdout
    thankful(folder, 7)
    assert "5 of 7 replies are taken over" in run().stderr


def test_a_damaged_index_is_made_anew(folder: Path) -> None:
    thankful(folder, 5)
    run()
    (path,) = Path(".ostinato/items").iterdir()
    path.write_bytes(b"no database")
    assert "nothing was left to do" in run().stdout
    assert len(ItemIndex(path)) == 5


def test_an_input_that_changes_during_the_work_is_told(folder: Path) -> None:
    job = read_job(thankful(folder, 600))
    with Journal(folder / "journal.db") as journal, pytest.raises(InputError, match="stay as it"):
        work = open_job(job, journal)
        with work.loop() as loop:
            for _ in loop:
                thankful(folder, 601)
    with Journal(folder / "journal.db") as journal:
        assert journal.get("mail").count_results() >= AT_ONCE
        work = open_job(read_job(folder / "mail.toml"), journal)
        assert work.reused >= AT_ONCE and len(work.items) == 601


def test_indexes_that_no_run_uses_are_deleted_after_a_day(folder: Path) -> None:
    thankful(folder, 3)
    run()
    (used,) = Path(".ostinato/items").iterdir()
    for age, name in ((25, "old.db"), (25, ".killed.db.7-1"), (1, "young.db")):
        path = used.with_name(name)
        path.write_bytes(b"")
        os.utime(path, (time.time() - age * 3600,) * 2)
    thankful(folder, 4)
    run()
    names = {path.name for path in Path(".ostinato/items").iterdir()}
    assert len(names) == 3 and used.name in names and "young.db" in names


# Items ------------------------------------------------------------------------------------------

ROWS = st.lists(
    st.fixed_dictionaries({"message": st.sampled_from(["a", "b", "c", "thanks"])}), max_size=12
)
few = settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@few
@given(rows=ROWS.filter(bool))
def test_keys_of_contents_are_those_of_python(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    path = write_job(tmp_path, ["x"], JOB.replace('id = "id"\n', ""))
    lines = "".join(f"{json.dumps(row)}\n\n" for row in rows)
    (tmp_path / "messages.jsonl").write_text(lines, "utf-8")
    job = read_job(path)
    items = read_job_items(job, job.router(), tmp_path / "items")
    assert [item.key for item in items] == content_keys(rows)
    assert [(item.columns, item.line) for item in items] == [
        (row, 2 * n + 1) for n, row in enumerate(rows)
    ]
    assert len(items) == len(rows)


def index(folder: Path, digests: Mapping[str, str], name: str) -> ItemIndex:
    with IndexWriter(folder / f"{name}.db") as writer:
        for number, (key, digest) in enumerate(digests.items()):
            writer.add(ItemFacts(number, key, number, digest))
        return writer.finish()


DIGESTS = st.lists(
    st.tuples(st.sampled_from("abcdefg"), st.sampled_from("12")),
    unique_by=lambda pair: pair[0],
    max_size=7,
).map(dict)


@few
@given(before=DIGESTS, now=DIGESTS, limit=st.integers(0, 7), was=st.integers(0, 7))
def test_changes_of_items_are_those_that_lists_show(
    tmp_path: Path, before: dict[str, str], now: dict[str, str], limit: int, was: int
) -> None:
    then, here = list(before)[:was], list(now)[:limit]
    earlier, later = index(tmp_path, before, "then").first(was), index(tmp_path, now, "now")
    later = later.first(limit)
    changes = later.changes_since(earlier)
    both = [key for key in here if key in then]
    assert changes.changed.count == sum(before[key] != now[key] for key in both)
    assert changes.added.count == sum(key not in then for key in here)
    assert changes.removed.count == sum(key not in now for key in then)
    assert changes.reordered == (both != [key for key in then if key in here])
    assert changes.shortened == any(key in now and key not in here for key in then)
    same = [key for _, key in later.unchanged_since(earlier)]
    assert same == [key for key in both if before[key] == now[key]]
    assert (later.digest == earlier.digest) == (
        [(key, now[key]) for key in here] == [(key, before[key]) for key in then]
    )


class Counted(UniqueItems):
    """Items that know how many of them were read."""

    def __init__(self, count: int) -> None:
        self.count, self.read = count, 0

    def __len__(self) -> int:
        return self.count

    def pairs(self, start: int = 0) -> Iterator[tuple[str, object]]:
        for n in range(start, self.count):
            self.read += 1
            yield f"k{n}", {"message": f"thanks {n}" if n % 3 else f"Hello {n}"}


def test_lanes_over_a_stream_resume_where_they_were_and_read_nothing_twice(folder: Path) -> None:
    def lanes(items: Iterable[tuple[str, object]]) -> Lanes:
        def ready(item: object) -> str | None:
            message = item["message"]  # type: ignore[index]
            return "You are welcome." if message.startswith("thanks") else None

        return Lanes(Scribe(4), items, Policy(each=Steps(20), ready=ready), seed=3)

    alone = Loop(lanes(list(Counted(60))), until=Steps(900))
    whole = {one.key: one.to_json() for step in alone for one in step.results}
    first = lanes(Counted(60))
    rows = [result for step in Loop(first, until=Steps(25)) for result in step.results]
    items = Counted(60)
    again = lanes(items)
    items.read = 0
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    saved: Any = first.state_dict()
    lowest = min(draft["index"] for draft in saved["drafts"])
    assert lowest > 5 and items.read == saved["taken"] - lowest + 1  # and the next one
    rows += [result for step in Loop(again, until=Steps(900)) for result in step.results]
    assert {row.key: row.to_json() for row in rows} == whole and len(rows) == 60


# Report and progress ----------------------------------------------------------------------------


def test_a_selection_as_results_come_is_that_of_all_of_them(tmp_path: Path) -> None:
    _, items, rows = made_up(tmp_path, 400)
    results = [from_lane(LaneResult.from_json(row)) for item, row in zip(items, rows, strict=True)]
    sizes = {one.id: 500 + 97 * number % 1500 for number, one in enumerate(results)}
    # One with room for all drops nothing.
    few, many = Selection[str](30_000), Selection[str](10_000_000)
    for one in results:
        for selection in (few, many):
            selection.add(one, lambda one=one: (one.id, sizes[one.id]))  # type: ignore[misc]
    assert many.shown() == [one.id for one in results]
    many._all, many._most = None, 30_000
    assert few.shown() == many.shown()
    assert sum(sizes[id] for id in few.shown()) <= 30_000
    assert all(len(list(ranking)) <= TRIES + 60 for ranking in few._rankings)


def test_plain_lines_come_each_second_at_first_and_each_minute_in_the_end() -> None:
    assert [interval(at) for at in (0, 59, 60, 599, 600, 36_000)] == [
        PLAIN_EVERY * factor for factor in (1, 1, 10, 10, 60, 60)
    ]
    now, lines = 0.0, 0
    while now < 36_000:
        now, lines = now + interval(now), lines + 1
    assert lines < 800


def test_the_pace_of_ready_answers_says_how_long_the_rest_takes() -> None:
    tally = ProgressTally(1000)
    tally.start(0.0)
    stopped = Stopped(StopKind.PASSED, "", "ready")
    for n in range(250):
        tally.add(LaneResult(key=f"k{n}", index=n, output="", accepted=True, stopped=stopped))
    assert tally.left(5.0) == pytest.approx(15.0)
    assert "50 items/s" in tally.line(5.0) and "about 15 s left" in tally.line(5.0)


def test_a_long_pass_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    now = iter(range(10_000))
    monkeypatch.setattr(
        "ostinato.refine.progress.time", SimpleNamespace(monotonic=lambda: float(next(now)))
    )
    assert list(PassProgress("Reading in.jsonl", told.append).over(range(1000))) == [*range(1000)]
    assert told[0] == "Reading in.jsonl: 256 items, 256 items/s"
