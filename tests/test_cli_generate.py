"""`ostinato generate`: a text is written, printed again, interrupted, and resumed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result
from tiny import save_tiny

from ostinato.cli import text_output as written
from ostinato.cli.following import View
from ostinato.cli.generate import generate, present
from ostinato.cli.main import cli
from ostinato.cli.recording import resume_line
from ostinato.errors import InputError, MissingExtra, ModelError, RunError
from ostinato.inference.compiled.build import has_compiler
from ostinato.journal import Journal, runs_command
from ostinato.runs import build, config_of
from ostinato.text import GenerateRun


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "tiny")
    return tmp_path


def call(*words: str) -> Result:
    arguments = [
        "Your table",
        "--model",
        "tiny",
        "--max-new-tokens",
        "12",
        "--temperature",
        "1",
        *words,
    ]
    result = CliRunner().invoke(generate, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_finished_run_prints_its_whole_text_again_and_says_so() -> None:
    first = call("--run", "a")
    assert first.exit_code == 0 and "[12 tokens." in first.stderr
    assert first.stdout.strip()
    again = call("--run", "a")
    assert again.exit_code == 0 and again.stdout == first.stdout
    assert "[12 tokens. It has taken 12 steps, the limit. The run 'a' is finished.]" in again.stderr
    result = json.loads(call("--run", "a", "--json").stdout)
    assert result["text"] == first.stdout and len(result["tokens"]) == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_exits_with_130_and_prints_the_whole_text_when_it_resumes(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = call()
    printed = written._print

    def interrupting(position: int, report: Any, show: bool) -> None:
        printed(position, report, show)
        if position == 5:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(written, "_print", interrupting)
    cut = call("--run", "a")
    assert cut.exit_code == 130
    assert cut.stderr.endswith("To resume: ostinato runs resume a\n")
    assert len(cut.stdout) < len(calm.stdout) and calm.stdout.startswith(cut.stdout)
    monkeypatch.setattr(written, "_print", printed)
    assert Journal().get("a").status == "paused"
    rest = call("--run", "a")
    assert rest.exit_code == 0 and rest.stdout == calm.stdout
    assert "[12 tokens." in rest.stderr


def test_a_run_with_other_inputs_is_refused() -> None:
    call("--run", "a")
    with pytest.raises(InputError, match="it started with, but --seed was 0, is 4"):
        call("--run", "a", "--seed", "4")
    told = (
        r"but --each was none, is Exceeds\('entropy', above=9\); "
        "--show, --step or --each was 0, is 5"
    )
    with pytest.raises(InputError, match=told):
        call("--run", "a", "--each", "Exceeds('entropy', above=9)")
    with pytest.raises(InputError, match=r"--stop was none, is \['x'\]; --top-k was 50, is 3\."):
        call("--run", "a", "--stop", "x", "--top-k", "3")


def test_a_run_does_not_resume_with_other_weights_and_is_printed_without_any(folder: Path) -> None:
    first = call("--run", "a")
    weights = folder / "tiny/model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.rename(folder / "away")
    weights.write_bytes(changed)
    message = r"but model \(its files have changed\) was "
    with pytest.raises(InputError, match=message):
        call("--run", "a")
    (folder / "away").rename(weights)
    (folder / "tiny").rename(folder / "gone")
    assert call("--run", "a").stdout == first.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plain", "--system", "Be kind."], "--system must be given without --plain"),
        (["--length-penalty", "0.5"], "--length-penalty must be given with --num-beams"),
        (
            ["--num-beams", "3"],
            "--temperature must be given without --num-beams, which does not sample",
        ),
        (
            ["--num-beams", "3", "--seed", "4"],
            "must be given without --num-beams, which does not sample",
        ),
        (["--int8", "--no-compile"], "--int8 must be given without --no-compile"),
        (["--int4", "--no-compile"], "--int4 must be given without --no-compile"),
        (["--int4", "--int8"], "--int8 must be given without --int4, got both"),
        (["--temperature", "nan"], "temperature must be a number from 0 to 100, got nan"),
        (["--temperature", "inf"], "temperature must be a number from 0 to 100, got inf"),
        (["--top-k", "-1"], "--top-k must be a whole number from 0 to 2147483647, got -1"),
        (["--end-bias", "inf"], "--end-bias must be a number from 0 to 1000000, got inf"),
        (["--seed", "-1"], "A seed must be a whole number from 0"),
        (["--seed", str(1 << 63)], "A seed must be a whole number from 0"),
    ],
)
def test_bad_options_are_refused_before_the_model_is_loaded(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call("--model", "no such model", *words)


SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}}'


def test_a_text_is_held_to_what_an_option_says(folder: Path) -> None:
    (folder / "schema.json").write_text(SCHEMA)
    (folder / "sum.lark").write_text('start: NUM "+" NUM\nNUM: /[0-9]/')
    assert re.fullmatch(r"\d{2}-\d{2}", call("--regex", r"\d{2}-\d{2}").stdout)
    assert call("--choice", "yes", "--choice", "no").stdout in ("yes", "no")
    assert re.fullmatch(r"\d\+\d", call("--grammar", "sum.lark").stdout)
    for given in ("schema.json", SCHEMA):
        value = json.loads(call("--json-schema", given, "--max-new-tokens", "24").stdout)
        assert set(value) <= {"n"} and value.get("n", 0) <= 9


def test_a_text_that_could_not_be_written_says_so_in_its_exit_code() -> None:
    for again in (False, True):
        result = call("--regex", "a{100}", "--run", "long")
        assert (result.exit_code, result.stdout.strip()) == (1, ""), again
        assert "must fit in the limit" in result.stderr


def test_beams_that_are_cut_by_the_limit_say_so() -> None:
    arguments = [
        "Your table",
        "--model",
        "tiny",
        "--max-new-tokens",
        "3",
        "--num-beams",
        "2",
        "--json",
    ]
    result = json.loads(CliRunner().invoke(generate, arguments).stdout)
    assert result["stopped"]["kind"] == "budget", result
    assert "the limit" in result["stopped"]["sentence"]


def test_a_run_remembers_its_constraint() -> None:
    assert call("--choice", "yes", "--run", "a").stdout == "yes"
    assert call("--choice", "yes", "--run", "a").stdout == "yes"
    with pytest.raises(InputError, match=r'--choice or --grammar was \["yes"\], is \["no"\]'):
        call("--choice", "no", "--run", "a")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--regex", "(a"], r"must be a regular expression, got '\(a': unclosed"),
        (["--choice", ""], "must be a text that is not empty, got ''"),
        (["--json-schema", "{"], "A JSON schema must be JSON, got an error"),
        (["--json-schema", "broken.json"], "A JSON schema must be JSON, got an error"),
        (["--json-schema", "none.json"], "--json-schema must be a text file: The file none"),
        (["--grammar", "none.lark"], "--grammar must be a text file: The file none"),
        (["--grammar", "latin.lark"], "latin.lark, line 1: the text must be UTF-8"),
        (["--grammar", "broken.lark"], "must be a Lark grammar, got 'start: foo'"),
        (["--regex", "a", "--choice", "b"], "under one constraint, got --regex and --choice"),
    ],
)
def test_a_wrong_constraint_is_refused_before_the_model_is_loaded(
    folder: Path, words: list[str], message: str
) -> None:
    (folder / "broken.json").write_text('{"type"')
    (folder / "broken.lark").write_text("start: foo")
    (folder / "latin.lark").write_bytes(b"start: \xe9")
    with pytest.raises(InputError, match=message):
        call("--model", "no such model", *words)


def test_a_constraint_without_its_extra_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtra, match=r"pip install 'ostinato\[constrain\]'"):
        call("--regex", "[a-c]+")


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")
def test_a_compiled_model_writes_and_the_run_knows_how_it_was_computed() -> None:
    first = call("--run", "a", "--compile")
    assert first.exit_code == 0 and first.stdout.strip()
    assert call("--run", "a", "--compile").stdout == first.stdout
    with pytest.raises(InputError):
        call("--run", "a")
    assert call("--compile", "--int8").exit_code == call("--int8").exit_code == 0
    assert call().stdout == call("--compile").stdout  # where it can be, it is


def test_a_token_of_an_older_version_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = written.TextOutput(view=View(show=True))
    report = {"text": "a", "logprob": 0.0, "entropy": 0.0}
    output.add(1, {**report, "alternatives": [["a", 0.75]]})
    output.add(2, {**report, "alternatives": [["a", 0.75, 1.0]], "drawn_prob": 1.0})
    _, old, new = capsys.readouterr().out.splitlines()
    assert old.split() == ["1", '"a"', "100.0%", "-", "0.00", "nats", "|", '"a"', "75.0%"]
    assert new.split()[2:4] == ["100.0%", "100.0%"] and new.endswith('"a" 75.0%, 100.0%')


# Its run ----------------------------------------------------------------------------------------


def test_a_text_is_recorded_unless_it_is_not_to_be(folder: Path) -> None:
    text = call("--no-journal").stdout
    assert not (folder / ".ostinato").exists()
    assert call().stdout == text
    with Journal() as journal:
        (run,) = journal.runs()
        config = config_of(run)
        assert (run.name, run.kind, run.status) == ("generate", "generate", "stopped")
        assert isinstance(config, GenerateRun) and config.model == str(folder / "tiny")
    (folder / "tiny").rename(folder / "gone")
    assert CliRunner().invoke(cli, ["runs", "resume", "generate"]).stdout == text
    with pytest.raises(InputError, match="--run must be given without --no-journal, got both"):
        call("--no-journal", "--run", "a")


def test_bad_input_leaves_no_journal_behind(folder: Path) -> None:
    with pytest.raises(ModelError):
        call("--model", "no such model")
    with pytest.raises(InputError, match="--key-env must be given with a server"):
        call("--key-env", "MY_KEY")
    assert not (folder / ".ostinato").exists()


def test_an_empty_name_is_no_name() -> None:
    with pytest.raises(RunError, match="The name of a run must be 1 to 100 letters"):
        call("--run", "")


def test_a_text_takes_no_other_condition() -> None:
    call("--run", "a")
    with pytest.raises(InputError, match="--until must be left out for a run of the kind generate"):
        CliRunner().invoke(
            cli, ["runs", "resume", "a", "--until", "Steps(3)"], catch_exceptions=False
        )


def test_a_folder_that_cannot_be_written_is_no_hindrance(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = call("--no-journal").stdout
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, *mode: path != folder and access(path, *mode))
    result = call()
    assert result.stdout == text
    assert "Warning: Nothing is recorded" in result.stderr
    assert not (folder / ".ostinato").exists()


def test_runs_without_a_name_are_kept_for_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTINATO_KEEP_RUNS", "2")
    call("--run", "mine")
    for seed in range(5):
        call("--seed", str(seed))
    with Journal() as journal:
        # The newest two that had ended when the last one was made, that one, and the named one.
        assert [run.name for run in journal.runs()] == [
            *("generate-5", "generate-4", "generate-3", "mine"),
        ]
    monkeypatch.setenv("OSTINATO_KEEP_RUNS", "some")
    with pytest.raises(InputError, match="OSTINATO_KEEP_RUNS must be a whole number, 0 or more"):
        call()


def test_another_journal_is_named_by_every_hint(folder: Path) -> None:
    call("--journal", "other.db")
    assert not (folder / ".ostinato").exists()
    with Journal("other.db") as journal:
        line = resume_line(journal.get("generate"))
    assert line == "ostinato runs resume generate --journal other.db"
    assert "is finished.]" in CliRunner().invoke(cli, line.split()[1:]).stderr
    assert runs_command(Path("a b.db"), "show", "x") == "ostinato runs show x --journal 'a b.db'"


def test_runners_up_that_were_not_recorded_cannot_be_shown() -> None:
    call("--run", "a")
    with Journal() as journal:
        run = journal.get("a")
        with pytest.raises(InputError, match="--show must be given when a text starts"):
            present(cast(GenerateRun, config_of(run)), run, View(show=True))


def test_a_run_of_files_elsewhere_wants_trust(folder: Path, tmp_path_factory: Any) -> None:
    away = tmp_path_factory.mktemp("away")
    save_tiny(away / "tiny")
    text = call("--model", str(away / "tiny"), "--run", "a").stdout
    with Journal() as journal:
        assert resume_line(journal.get("a")) == "ostinato runs resume a --trust"
    refused = CliRunner().invoke(cli, ["runs", "resume", "a"]).exception
    assert str(refused).endswith("If you trust it, run: ostinato runs resume a --trust")
    assert CliRunner().invoke(cli, ["runs", "resume", "a", "--trust"]).stdout == text


def cut_at_step_5(monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    printed = written._print

    def interrupting(position: int, report: Any, show: bool) -> None:
        printed(position, report, show)
        if position == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(written, "_print", interrupting)
        return call(*words)


def test_an_interrupted_text_says_how_to_resume_and_does_in_three_ways(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calm = call("--no-journal")
    cut = cut_at_step_5(monkeypatch)
    assert cut.exit_code == 130
    assert cut.stderr.endswith("To resume: ostinato runs resume generate\n")
    resumed = CliRunner().invoke(cli, ["runs", "resume", "generate"])
    assert (resumed.exit_code, resumed.stdout) == (0, calm.stdout)
    cut_at_step_5(monkeypatch, "--run", "typed")
    assert call("--run", "typed").stdout == calm.stdout
    cut_at_step_5(monkeypatch, "--run", "built")
    with Journal() as journal:
        work = build(journal.get("built"), prompt_lookup=2)
        work.loop.run()
        work.finish()
        ((_, row),) = journal.get("built").results()
    assert row["output"] == calm.stdout
    unrecorded = cut_at_step_5(monkeypatch, "--no-journal")
    assert unrecorded.stderr.endswith("Without --no-journal it could be resumed.\n")


KILLED = """
import os, signal
from ostinato.cli import text_output
from ostinato.cli.main import main
printed = text_output._print
def killing(position, report, show):
    printed(position, report, show)
    if position == 7:
        os.kill(os.getpid(), signal.SIGKILL)
text_output._print = killing
main()
"""


@pytest.mark.slow
def test_a_killed_text_resumes_by_its_name_and_by_the_same_command() -> None:
    calm = call("--no-journal").stdout
    words = ["generate", "Your table", "--model", "tiny", "--max-new-tokens", "12"]
    words += ["--temperature", "1", "--run"]
    for name, resumed in (("named", ["runs", "resume", "named"]), ("typed", [*words, "typed"])):
        child = subprocess.run([sys.executable, "-c", KILLED, *words, name], capture_output=True)
        assert child.returncode == -signal.SIGKILL, child.stderr
        assert CliRunner().invoke(cli, resumed).stdout == calm


def test_a_branch_of_a_text_has_a_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_at_step_5(monkeypatch, "--run", "a")
    runs = CliRunner()
    made = runs.invoke(cli, ["runs", "branch", "a", "--as", "b", "--set", "temperature=0"])
    assert made.stdout.endswith("Resume it with: ostinato runs resume b\n")
    branched = runs.invoke(cli, ["runs", "resume", "b"]).stdout
    whole = call("--run", "a").stdout
    assert whole == call("--no-journal").stdout != branched
    assert runs.invoke(cli, ["runs", "resume", "b"]).stdout == branched


def test_an_option_that_an_older_record_lacks_has_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calm = call("--no-journal").stdout
    cut_at_step_5(monkeypatch, "--run", "a")
    with Journal() as journal:
        run = journal.get("a")
        config = dict(cast(dict[str, Any], run.spec["config"]))
        del config["min_p"], config["constraint"]
        journal.amend(run, {"config": config})
    with pytest.raises(InputError, match=r"but --min-p was 0\.0, is 0\.5"):
        call("--run", "a", "--min-p", "0.5")
    assert call("--run", "a").stdout == calm


def test_a_run_is_not_resumed_with_a_model_that_has_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_at_step_5(monkeypatch, "--run", "a")
    weights = folder / "tiny/model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    refused = CliRunner().invoke(cli, ["runs", "resume", "a"]).exception
    assert "must be as they were when the run started" in str(refused)


def test_a_text_of_an_older_version_is_shown_and_not_mistaken_for_a_new_one() -> None:
    with Journal() as journal:
        run = journal.create("old", kind="Lanes", spec={"generate": {"prompt": "Your table"}})
        with journal.drive(run) as session:
            session.step(1, 1, {"lanes": {}})
            session.result("a", {"index": 0, "output": "is booked."})
            session.finish("stopped", None, 1, 1)
    assert 'output      "is booked."' in CliRunner().invoke(cli, ["runs", "show", "old"]).output
    with pytest.raises(InputError, match="See it with ostinato runs show old, and give another"):
        call("--run", "old")
