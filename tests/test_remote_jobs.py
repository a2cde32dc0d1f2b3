"""Jobs and texts on a server: strategies, what is journaled, and what is never sent twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from faulty_server import Faults, serving
from lane_rows import lane_rows

from ostinato.checks import Contains, Excludes, Length, Regex
from ostinato.cli.main import cli
from ostinato.errors import InputError
from ostinato.journal import Journal
from ostinato.loop import Loop, Phrase, Steps
from ostinato.refine.job.file import read_job
from ostinato.refine.refine import Refine
from ostinato.refine.strategies.backtrack import Backtrack
from ostinato.refine.strategies.base import Abort, Feedback, Resample, Strategy
from ostinato.remote import Server, text_id
from ostinato.remote.text_ids import start_logprobs
from ostinato.text import write

MESSAGES = [{"id": str(n), "message": f"Can you help me with number {n}?"} for n in range(8)]
JOB = """\
input = "messages.jsonl"
id = "id"
model = "{url}#m"
slots = 4

[server]
key_env = "MY_KEY"
api = "completions"
{more}

[prompt]
template = "{{message}}|"

[[check]]
kind = "excludes"
texts = ["obviously"]

[strategy]
kind = "{strategy}"
rounds = 30
"""


def written(body: Mapping[str, Any]) -> str:
    """Write six words by the seed, without those that the prefix has."""
    prefix = re.split(r"assistant\n|\?\|", str(body.get("prompt", "")))[-1]
    words = ("We", "can", "help", "you", "today", "obviously", "with", "it")
    seed, have = body["seed"], len(prefix.split())
    return "".join(f" {words[(seed >> 3 * n) % 8]}" for n in range(max(0, 6 - have))) + "."


def job(folder: Path, url: str, strategy: str = "abort", more: str = "") -> Path:
    lines = "".join(json.dumps(message) + "\n" for message in MESSAGES)
    (folder / "messages.jsonl").write_text(lines)
    path = folder / "mail.toml"
    path.write_text(JOB.format(url=url, strategy=strategy, more=more))
    return path


def ostinato(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", "sk-secret-123")
    return tmp_path


@pytest.mark.parametrize("strategy", ["abort", "backtrack", "resample", "feedback"])
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_every_strategy_finishes_on_a_server(api: str, strategy: str) -> None:
    kinds: dict[str, Strategy] = {
        kind.kind: kind(rounds=40) for kind in (Abort, Backtrack, Resample, Feedback)
    }
    faults = Faults(writes=written)
    checks = [Excludes(texts=("obviously",)), Length(max=6), Contains(texts=("help",))]
    with serving(faults) as url:
        refine = Refine(
            Server(url=url, model="m", api=api, template="no" if api == "chat" else "chatml"),
            MESSAGES,
            prompt="{message}|",
            checks=checks,
            strategy=kinds[strategy],
            max_new_tokens=24,
            seed=5,
            slots=4,
        )
        rows = lane_rows(refine)
        refine.decode.close()  # type: ignore[union-attr]
    assert all(row["accepted"] for row in rows)
    for row in rows:
        assert "help" in str(row["output"])
        assert "obviously" not in str(row["output"])


def opening(body: Mapping[str, Any]) -> str:
    """Write of the shop, or continue the prefix."""
    prefix = str(body.get("prompt", "")).partition("|")[2]
    last = body["messages"][-1] if "messages" in body else {}
    return " every day." if prefix or last.get("role") == "assistant" else "We open the shop."


APIS: dict[str, dict[str, Any]] = {
    "chat": {"api": "chat", "prefill": "continue_final_message"},
    "completions": {"api": "completions"},
}


def written_by(faults: Faults, places: dict[str, float], **settings: Any) -> dict[str, Any]:
    """Write one item that must say "at noon", which is as likely before a piece as `places` say."""
    faults.alternatives = lambda piece: (
        {piece: -0.1} | ({" at": places[piece], " a": -0.2} if piece in places else {})
    )
    with serving(faults) as url:
        refine = Refine(
            Server(url=url, model="m", **settings),
            [{"message": "When do you open?"}],
            prompt="{message}|",
            checks=[Contains(texts=("at noon",))],
            strategy=Backtrack(rounds=2),
            max_new_tokens=24,
        )
        (row,) = lane_rows(refine)
        refine.decode.close()  # type: ignore[union-attr]
    return dict(row)


@pytest.mark.parametrize("api", APIS)
def test_backtrack_puts_a_value_where_the_server_found_it_most_likely(api: str) -> None:
    faults = Faults(writes=opening)
    places = {" open": -3.0, " the": -0.7, " shop.": -2.0}
    row = written_by(faults, places, top_logprobs=5, **APIS[api])
    assert row["accepted"] and row["output"] == "We open at noon every day."
    assert (row["rounds"], row["backtracks"], len(faults.bodies)) == (1, 1, 2)
    sent = faults.bodies[0]
    assert (sent["top_logprobs"] if api == "chat" else sent["logprobs"]) == 5


@pytest.mark.parametrize("api", APIS)
def test_backtrack_puts_no_value_where_it_was_unlikely_or_nothing_is_known(api: str) -> None:
    likely, unlikely = {" the": -0.7}, {" the": -6.0}
    for places, top_logprobs in ((likely, 0), (unlikely, 5)):
        faults = Faults(writes=opening)
        written_by(faults, places, top_logprobs=top_logprobs, logprobs=True, **APIS[api])
        sent = [json.dumps(body) for body in faults.bodies if body is not faults.bodies[0]]
        assert not any("We open at noon" in body for body in sent[:1])


def test_a_text_is_as_likely_as_the_longest_token_that_starts_it() -> None:
    top_logprobs = {" A": -0.1, " Anna": -2.0, "Ann": -1.0, " B": -3.0, "": -0.2}
    assert start_logprobs([" Anna Lee", "Anna Lee", " C"], top_logprobs) == [
        (text_id(" Anna Lee"), -2.0),
        (text_id("Anna Lee"), -1.0),
    ]


def test_backtrack_on_a_server_writes_less_than_abort_and_abort_less_than_resample() -> None:
    def computed(strategy: Strategy) -> float:
        faults = Faults(writes=written)
        with serving(faults) as url:
            refine = Refine(
                Server(url=url, model="m", api="completions"),
                [{"message": f"Help me with {n}?"} for n in range(20)],
                prompt="{message}|",
                checks=[Excludes(texts=("obviously",))],
                strategy=strategy,
            )
            rows = lane_rows(refine)
            refine.decode.close()  # type: ignore[union-attr]
        assert all(row["accepted"] for row in rows)
        return float(sum(row["spent"]["tokens"] for row in rows))

    went = [computed(kind) for kind in (Backtrack(), Abort(rounds=40), Resample(rounds=40))]
    assert went[0] < went[1] < went[2]


@pytest.mark.parametrize(("whole", "drawn_again"), [("We can help.", 0), ("We can help", 2)])
def test_the_end_is_sampled_again_where_it_may_come_later_and_not_after_a_sentence(
    whole: str, drawn_again: int
) -> None:
    faults = Faults()
    faults.writes = lambda body: whole[len(str(body["prompt"]).partition("|")[2]) :]
    with serving(faults) as url:
        refine = Refine(
            Server(url=url, model="m", api="completions"),
            [{"id": "a", "message": "Hi."}],
            prompt="{message}|",
            checks=[Regex(pattern=".*never.*")],
            strategy=Backtrack(rounds=1),
            slots=1,
        )
        (row,) = lane_rows(refine)
        refine.decode.close()  # type: ignore[union-attr]
    assert not row["accepted"]
    assert sum(body["prompt"] == f"Hi.|{whole}" for body in faults.bodies) == drawn_again
    assert sum(body["prompt"] == "Hi.|" for body in faults.bodies) > 1


def test_a_job_on_a_server_is_done_and_its_key_is_nowhere(folder: Path) -> None:
    faults = Faults(writes=written, key="sk-secret-123", script=deque([(500, {}), "cut"]))
    with serving(faults) as url:
        path = job(folder, url)
        code, said = ostinato("refine", str(path))
        assert code == 0
        assert "8 of 8 accepted" in said
        sent = len(faults.bodies)
        assert ostinato("refine", str(path))[0] == 0  # it is finished: nothing is sent
        assert len(faults.bodies) == sent
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        assert b"sk-secret" not in file.read_bytes(), file


def test_a_wrong_key_ends_the_job_and_the_right_one_resumes_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(writes=written, key="sk-other-456")
    with serving(faults) as url:
        path = job(folder, url)
        result = CliRunner().invoke(cli, ["refine", str(path)])
        assert "401" in str(result.exception)
        assert "secret" not in str(result.exception)
        for file in (folder / ".ostinato").rglob("*"):
            assert not file.is_file() or b"sk-secret" not in file.read_bytes()
        monkeypatch.setenv("MY_KEY", "sk-other-456")
        assert ostinato("refine", str(path))[0] == 0


def test_a_budget_of_cost_ends_the_job_with_items_unfinished(folder: Path) -> None:
    faults = Faults(writes=written)
    with serving(faults) as url:
        path = job(folder, url, more="price_out = 10.0\n[sampling]\nmax_new_tokens = 8\n")
        path.write_text(path.read_text() + "\n[budget]\njob_cost = 0.0004\n")
        code, said = ostinato("refine", str(path), "--json")
    assert code == 3
    summary = json.loads(said.splitlines()[-1])
    assert summary["stopped"]["kind"] == "budget"
    assert 0 < summary["accepted"] < 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('api = "compl"', "api must be 'chat' or"),
        ("retrys = 3", "did you mean 'retries'|not known"),
        ("timeout = 0", "timeout must be above 0"),
    ],
)
def test_a_wrong_server_setting_is_reported_with_its_line(
    folder: Path, text: str, message: str
) -> None:
    path = job(folder, "http://127.0.0.1:9/v1", more=text)
    path.write_text(path.read_text().replace('api = "completions"\n', "", 1))
    with pytest.raises(InputError, match=message) as caught:
        read_job(path)
    assert "line 8" in str(caught.value)


def test_a_server_s_table_needs_a_server(folder: Path) -> None:
    path = job(folder, "http://127.0.0.1:9/v1")
    path.write_text(path.read_text().replace("http://127.0.0.1:9/v1#m", "smollm2"))
    with pytest.raises(InputError, match="must be left out with a model in this process"):
        read_job(path)


def test_the_command_line_can_name_another_server(folder: Path) -> None:
    read = read_job(job(folder, "http://127.0.0.1:9/v1"))
    other = read.with_changes(model="http://127.0.0.1:8/v1#n")
    assert other.server is not None
    assert (other.server.name, other.server.key_env) == ("http://127.0.0.1:8/v1#n", "MY_KEY")
    assert read.with_changes(model="smollm2").server is None
    assert read.sections()["model"] != other.sections()["model"]


# Texts ------------------------------------------------------------------------------------------


def test_a_text_of_a_server_is_printed_as_it_comes(folder: Path) -> None:
    faults = Faults(writes=lambda body: "We can help you.", key="sk-secret-123")
    with serving(faults) as url:
        words = ["generate", "Hello", "--model", f"{url}#m", "--key-env", "MY_KEY"]
        code, said = ostinato(*words, "--run", "hello", "--max-new-tokens", "9")
        assert code == 0
        assert said.startswith("We can help you.")
        assert faults.bodies[0]["max_tokens"] == 9
        assert faults.bodies[0]["messages"] == [{"role": "user", "content": "Hello"}]
        code, said = ostinato(*words, "--run", "hello", "--max-new-tokens", "9")
        assert said.startswith("We can help you.")
        assert len(faults.bodies) == 1
        ostinato(*words, "--plain", "--top-p", "0.5")
    assert faults.bodies[1]["prompt"] == "Hello"
    assert faults.bodies[1]["top_p"] == 0.5


def test_what_a_server_cannot_do_is_refused(folder: Path) -> None:
    for words in (["--show"], ["--adapter", "support"], ["--top-k", "7"]):
        result = CliRunner().invoke(
            cli, ["generate", "Hi", "--model", "http://127.0.0.1:9/v1#m", *words]
        )
        assert isinstance(result.exception, InputError), words
        assert words[0].strip("-").replace("-", "_") in str(result.exception).replace("-", "_")


def test_a_phrase_ends_a_server_s_text() -> None:
    faults = Faults(writes=lambda body: "One two three four.", drip=0.01)
    with serving(faults) as url:
        loop = write(["Count."], model=f"{url}#m", each=Phrase("two") | Steps(50))
        (row,) = [one.to_json() for step in loop for one in step.results]
        loop.process.process.close()  # type: ignore[attr-defined]
    assert row["output"] == "One two"
    assert faults.bodies[0]["max_tokens"] == 50


# Killed -----------------------------------------------------------------------------------------


def asks(url: str, journal: Journal) -> Loop:
    refine = Refine(
        Server(url=url, model="m", api="completions"),
        MESSAGES,
        prompt="{message}|",
        checks=[Excludes(texts=("obviously",))],
        strategy=Abort(rounds=40),
        seed=5,
        slots=3,
    )
    return refine.loop(run="run", journal=journal, keep="results")


CHILD = """
import sys
sys.path[:0] = [{tests!r}]
from test_remote_jobs import asks
from ostinato.journal import Journal
asks(sys.argv[1], Journal("journal.db")).run()
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_job_requests_only_what_it_lacks(tmp_path: Path) -> None:
    faults = Faults(writes=written, drip=0.01)
    code = CHILD.format(tests=str(Path(__file__).parent))
    kills = 0
    with serving(faults) as url:
        for more in (6, 9, 5, 400):
            before = faults.sent
            child = subprocess.Popen([sys.executable, "-c", code, url], cwd=tmp_path)
            while child.poll() is None and faults.sent < before + more:
                time.sleep(0.005)
            if child.poll() is None:
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
            assert child.wait() in (0, -signal.SIGKILL)
    assert kills == 3
    with Journal(tmp_path / "journal.db") as journal:
        run = journal.get("run")
        rows = dict(run.results())
        steps = [lane for step in run.steps() for lane in step.report["lanes"].values()]
    assert len(rows) == 8
    assert all(row["accepted"] for row in rows.values())
    pieces = sum(bool(lane["report"]["text"]) for lane in steps)
    read_ahead = 3 * (8 + 1)  # of three lanes that were killed, and what was on its way
    assert pieces <= faults.sent <= pieces + kills * read_ahead
    prefix = [body["prompt"].partition("|")[2] for body in faults.bodies]
    assert sum(map(bool, prefix)) >= kills  # the answers that were continued
