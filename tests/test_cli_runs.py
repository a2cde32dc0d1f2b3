"""`ostinato runs`: lists, shows and resumes the runs of a journal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from toys import Walk
from walks import ManyPlaces, begin

from ostinato.cli.main import cli
from ostinato.errors import EditError, InputError, OstinatoError, RunError, RunLocked
from ostinato.journal import Journal
from ostinato.journal.run import Run
from ostinato.loop import Loop, Steps

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


JOURNAL = Path(".ostinato/journal.db")


def run_of(name: str) -> Run:
    return Journal(JOURNAL).get(name)


def call(*words: str, **more: Any) -> Result:
    return CliRunner().invoke(cli, ["runs", *words], **more)


def output_of(*words: str) -> str:
    result = call(*words)
    assert result.exit_code == 0, result.exception
    return result.output


def refused(kind: type[OstinatoError], *words: str) -> str:
    error = call(*words).exception
    assert type(error) is kind, error
    return str(error)


def child(*words: str) -> subprocess.Popen[str]:
    """Start `walks.py`, or the command with these words, in a process of its own."""
    path = os.pathsep.join([str(TESTS), *(entry for entry in sys.path if entry)])
    start = ["-m", "walks"] if words[0].endswith(".db") else ["-c", COMMAND]
    return subprocess.Popen(
        [sys.executable, *start, *words],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


COMMAND = "from ostinato.cli.main import main; main()"


@pytest.fixture
def walking() -> Iterator[subprocess.Popen[str]]:
    """A process that drives the run `far`, of 100,000 steps."""
    driver = child(str(JOURNAL.absolute()), "far", "100000", "0.002")
    deadline = time.monotonic() + 60
    while not (JOURNAL.exists() and _goes("far")):
        assert time.monotonic() < deadline and driver.poll() is None
        time.sleep(0.02)
    yield driver
    driver.kill()
    driver.communicate()


def _goes(name: str) -> bool:
    run = Journal(JOURNAL).find(name)
    return run is not None and run.status == "running" and run.tick > 0


def test_runs_are_listed_newest_first_with_why_they_stopped() -> None:
    assert output_of() == "No runs yet in .ostinato/journal.db.\n"
    assert not JOURNAL.exists()
    begin(JOURNAL, "a", 7).run()
    begin(JOURNAL, "b", 9).close()
    lines = output_of().splitlines()
    assert lines[0].startswith("b  SlowWalk  paused  tick 0")
    assert lines[1].startswith("a  SlowWalk  stopped  tick 7")
    assert lines[2] == "  It has taken 7 steps, the limit."
    rows = json.loads(output_of("--json"))["runs"]
    assert [(row["name"], row["status"]) for row in rows] == [("b", "paused"), ("a", "stopped")]
    assert rows[1]["stopped"]["kind"] == "budget"


def test_a_run_is_shown_with_checkpoints_last_steps_and_the_resume_hint() -> None:
    begin(JOURNAL, "a", 12).run()
    text = output_of("show", "a")
    assert "a: SlowWalk, stopped, tick 12, position 12" in text
    assert "It has taken 12 steps, the limit. (budget)" in text
    assert "checkpoint  tick 10, " in text and 'step 12  {"place":' in text
    assert 'resume with ostinato runs resume a --trust --until "…"' in text
    value = json.loads(output_of("show", "a", "--json"))
    assert value["until"] == "Steps(12)" and value["results"] == 0
    assert [row["tick"] for row in value["checkpoints"]] == [5, 10, 12]
    assert [step["tick"] for step in value["last_steps"]] == [8, 9, 10, 11, 12]


def test_a_journal_or_a_run_that_is_not_there_is_named() -> None:
    assert "There is no journal other.db." in refused(RunError, "--journal", "other.db")
    assert not Path("other.db").exists()
    begin(JOURNAL, "a", 1).run()
    assert "Runs are: a." in refused(RunError, "show", "b")
    assert json.loads(output_of("show", "a", "--json", "--journal", str(JOURNAL)))["tick"] == 1


def test_a_kind_is_found_by_its_first_word() -> None:
    with Journal() as journal:
        for kind in ("train text", "train image", "training", "train"):
            journal.create(kind.replace(" ", "-"), kind=kind)
    shown = output_of("--kind", "train", "--json")
    names = [each["name"] for each in json.loads(shown)["runs"]]
    assert names == ["train", "train-image", "train-text"]
    options = ("--kind", "train", "--status", "new", "--keep", "2", "--yes")
    pruned = output_of("prune", *options)
    assert "Deleted 1 run" in pruned and "train-text" in pruned


def test_deleting_asks_first(folder: Path) -> None:
    begin(JOURNAL, "a", 3).run()
    run = run_of("a")
    assert "Nothing was deleted." in call("delete", "a", input="n\n").output
    assert run.folder.exists()
    assert "Deleted a." in call("delete", "a", input="y\n").output
    assert not run.folder.exists() and output_of() == "No runs yet in .ostinato/journal.db.\n"
    begin(JOURNAL, "a", 3).run()
    assert output_of("delete", "a", "--yes") == "Deleted a.\n"


def test_a_second_driver_is_refused_and_a_driven_run_is_not_deleted(
    walking: subprocess.Popen[str],
) -> None:
    assert f"is driven by the process {walking.pid}" in refused(
        RunLocked, "resume", "far", "--trust"
    )
    assert "ostinato runs pause far" in refused(RunLocked, "delete", "far", "--yes")
    assert "ostinato runs pause far" in refused(RunLocked, "delete", "far")
    second = child(str(JOURNAL.absolute()), "far", "100000", "0.002")
    assert f"is driven by the process {walking.pid}" in second.communicate()[0]
    assert second.returncode == 1


def test_a_run_is_paused_from_outside_and_resumes(walking: subprocess.Popen[str]) -> None:
    assert output_of("pause", "far") == "far will pause at its next step.\n"
    walking.communicate(timeout=30)
    run = run_of("far")
    at = run.tick
    assert run.status == "paused" and 0 < at < 100_000
    assert run.checkpoints()[-1].tick == at
    assert "far is paused" in refused(RunError, "pause", "far").replace("'", "")
    text = output_of("resume", "far", "--trust", "--until", f"Steps({at + 3})")
    assert f"Resuming far at tick {at}, until Steps({at + 3})." in text
    assert f"It has taken {at + 3} steps, the limit. (budget, tick {at + 3})" in text


def test_a_run_stopped_from_outside_stays_stopped(walking: subprocess.Popen[str]) -> None:
    output_of("stop", "far")
    walking.communicate(timeout=30)
    assert run_of("far").status == "stopped"
    assert "It was asked to stop from outside." in refused(RunError, "resume", "far", "--trust")


def test_ctrl_c_pauses_a_resumed_run_with_130_and_the_command_resumes() -> None:
    with begin(JOURNAL, "a", 100_000, 0.002) as loop:
        next(iter(loop))
    driver = child("runs", "resume", "a", "--trust")
    while not _goes("a"):
        time.sleep(0.02)
    driver.send_signal(signal.SIGINT)
    output = driver.communicate(timeout=30)[0]
    assert driver.returncode == 130, output
    assert "It was interrupted (SIGINT)." in output
    assert "To resume: ostinato runs resume a --trust" in output
    assert run_of("a").status == "paused"


def test_ctrl_c_while_the_command_ends_shows_no_traceback() -> None:
    code = (
        "import atexit, os, signal, sys; from ostinato.cli.main import main; "
        "atexit.register(os.kill, os.getpid(), signal.SIGINT); sys.argv[1:] = ['runs']; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")
    assert ended.stdout.startswith("No runs yet")


def test_a_run_that_has_stopped_wants_another_condition() -> None:
    begin(JOURNAL, "a", 6).run()
    sentence = refused(RunError, "resume", "a", "--trust")
    assert "has stopped at tick 6: It has taken 6 steps, the limit." in sentence
    assert 'ostinato runs resume a --trust --until "Steps(12)"' in sentence
    assert "has stopped at tick 6" in refused(
        RunError, "resume", "a", "--trust", "--until", "Steps(6)"
    )
    with begin(JOURNAL, "b", 6) as loop:
        for _ in loop:
            break
    assert "has stopped at tick 1: It has taken 1 step, the limit. To resume" in refused(
        RunError, "resume", "b", "--trust", "--until", "Steps(1)"
    )
    assert "Unknown condition 'Step'" in refused(
        InputError, "resume", "a", "--trust", "--until", "Step(9)"
    )
    output_of("resume", "a", "--trust", "--until", "Steps(9)")
    assert (run_of("a").tick, run_of("a").until) == (9, "Steps(9)")
    calm = Loop(Walk(), until=Steps(9))
    places = [step.report["place"] for step in calm]
    assert [step.report["place"] for step in run_of("a").steps()] == places


def test_a_condition_that_was_given_later_stays_in_force() -> None:
    begin(JOURNAL, "a", 6).run()
    output_of("resume", "a", "--trust", "--until", "Steps(20)")
    output_of("branch", "a", "--at", "20", "--as", "b")
    with begin(JOURNAL, "a", 30) as loop:
        next(iter(loop))
    assert run_of("a").until == "Steps(30)"
    assert "until Steps(30)" in output_of("resume", "a", "--trust")
    assert "It has taken 20 steps, the limit." in refused(RunError, "resume", "b", "--trust")


def test_a_branch_continues_with_a_changed_setting() -> None:
    begin(JOURNAL, "a", 12).run()
    text = output_of("branch", "a", "--at", "10", "--as", "b", "--set", "rate=2.0")
    assert 'Created b from a at tick 10 with {"rate":2.0}.' in text
    assert "Resume it with: ostinato runs resume b --trust" in text
    assert "branch of   a, tick 10" in output_of("show", "b")
    assert "(budget, tick 12)" in output_of("resume", "b", "--trust")
    process = Walk()
    for step in Loop(process, until=Steps(12)):
        process.rate = 2.0 if step.tick >= 10 else 1.0
    (*_, last) = run_of("b").steps()
    assert last.report["place"] == process.place != run_of("a").load()[1]["process"]["place"]  # type: ignore[index]


def test_a_branch_with_an_edit_that_the_process_does_not_know_is_refused() -> None:
    begin(JOURNAL, "a", 5).run()
    assert "--set must be NAME=VALUE" in refused(
        InputError, "branch", "a", "--as", "b", "--set", "x"
    )
    assert "Checkpoints are at: 5." in refused(RunError, "branch", "a", "--at", "4", "--as", "b")
    output_of("branch", "a", "--as", "b", "--set", "color=red")
    assert "Unknown edit 'color'" in refused(EditError, "resume", "b", "--trust")
    assert not run_of("b").driven


def test_a_run_without_a_condition_is_shown_and_resumed() -> None:
    spec: dict[str, Any] = {"factory": "walks:walk_to_its_end"}
    with Loop(ManyPlaces(), run="a", journal=Journal(JOURNAL), spec=spec) as loop:
        next(iter(loop))
    shown = output_of("show", "a")
    assert "until       it ends by itself, or a person stops it" in shown
    assert '"return":"64 values from 0 to 63, mean 31.5","few":[0.5,1.5]' in shown
    step = json.loads(output_of("show", "a", "--json"))["last_steps"][0]
    assert step["report"]["return"] == [float(n) for n in range(64)]
    assert "until Steps(3)." in output_of("resume", "a", "--trust", "--until", "Steps(3)")
    resumed = output_of("resume", "a", "--trust", "--until", "Never()")
    assert "Resuming a at tick 3.\n" in resumed and "It is there. (ended, tick 5)" in resumed


def test_a_run_of_a_callable_condition_is_resumed_by_its_factory() -> None:
    spec = {"factory": "walks:walk_far", "args": [0.8]}
    Journal(JOURNAL).create("a", kind="Walk", spec=spec)  # type: ignore[arg-type]
    assert "is_far returned True." in output_of("resume", "a", "--trust")
    assert "is_far returned True." in refused(RunError, "resume", "a", "--trust")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({}, "can be resumed only from Python: it does not record how its process is made"),
        ({"factory": "walks"}, "must be 'package.module:function', got 'walks'"),
        ({"factory": "walks:run"}, "The factory walks:run of the run 'a' cannot be imported"),
        ({"factory": "nowhere:run"}, "cannot be imported: No module named 'nowhere'"),
        ({"factory": "walks:no_tuple"}, r"must return (process, until, on_stop), got <toys.Walk"),
        ({"factory": "walks:walk", "args": 3}, "must be a mapping or a list, got 3"),
    ],
    ids=str,
)
def test_a_run_that_cannot_be_made_again_says_so(spec: dict[str, Any], sentence: str) -> None:
    Journal(JOURNAL).create("a", kind="Walk", spec=spec)
    assert sentence in refused(RunError, "resume", "a", "--trust")
    assert not run_of("a").driven


@pytest.mark.parametrize(
    ("kind", "spec", "command"),
    [
        ("refine", {"job": "mail.toml", "limit": 3}, "ostinato refine mail.toml --limit 3"),
        ("refine", {"job": "mail.toml", "limit": None}, "ostinato refine mail.toml"),
        ("train", {"out": "small"}, "ostinato train … --out small"),
    ],
    ids=str,
)
def test_the_run_of_a_command_names_it(kind: str, spec: dict[str, Any], command: str) -> None:
    Journal(JOURNAL).create("a", kind=kind, spec=spec)
    assert refused(RunError, "resume", "a", "--trust").endswith(command)
    assert command in output_of("show", "a")


def test_the_module_of_a_factory_is_found_in_the_working_folder(folder: Path) -> None:
    (folder / "of_mine.py").write_text("from walks import walk\n")
    spec = {"factory": "of_mine:walk", "args": {"steps": 3}}
    Journal(JOURNAL).create("a", kind="Walk", spec=spec)  # type: ignore[arg-type]
    value = json.loads(output_of("resume", "a", "--trust", "--json").splitlines()[-1])
    assert (value["tick"], value["began"], value["why"]["kind"]) == (3, 0, "budget")


def test_the_commands_need_no_torch() -> None:
    code = "import sys, ostinato.cli.runs.commands; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_journal_names_is_neither_imported_nor_called_without_trust(folder: Path) -> None:
    text = "import pathlib\n\npathlib.Path('touched').touch()\n"
    (folder / "touching.py").write_text(text, encoding="utf-8")
    Loop(Walk(), until=Steps(3), run="a", spec={"factory": "touching:make"}).close()
    sentence = refused(RunError, "resume", "a")
    assert "calls the function 'touching:make'" in sentence
    assert sentence.endswith("ostinato runs resume a --trust")
    assert not (folder / "touched").exists() and "" not in sys.path
    assert "cannot be imported" in refused(RunError, "resume", "a", "--trust")
    assert (folder / "touched").exists()


def test_a_warning_of_ours_is_shown_without_the_line_that_gave_it() -> None:
    code = (
        "import warnings, ostinato; from ostinato.cli import main\n"
        "def cli():\n"
        "    for file in (ostinato.__file__, 'other.py'):\n"
        "        warnings.warn_explicit('So it is.', UserWarning, file, 1)\n"
        "main.cli = cli; main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "Warning: So it is.\nother.py:1: UserWarning: So it is.\n"


def test_a_run_of_a_generator_names_no_way_to_resume_it() -> None:
    def count() -> Iterator[int]:
        yield from range(9)

    with Loop(count, run="g") as loop:
        next(iter(loop))
    assert "resume with" not in output_of("show", "g")
    assert json.loads(output_of("show", "g", "--json"))["resume_with"] is None
