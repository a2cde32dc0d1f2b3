"""The thread that writes what is served: all that the model computes is computed there."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from served import asked, post, serving
from tiny import save_tiny, tiny_model

from ostinato.checks import Excludes, Judge
from ostinato.cli.serve import serve
from ostinato.errors import InputError
from ostinato.models import LanguageModel
from ostinato.server import Defaults, Scheduler
from ostinato.server.requests import HIDDEN_ERROR


def test_a_model_is_loaded_in_the_thread_that_writes() -> None:
    """Of two threads that have computed, each has workers, and they get in each other's way."""
    names: list[str] = []

    def load() -> LanguageModel:
        names.append(threading.current_thread().name)
        return tiny_model()

    scheduler = Scheduler(load)
    scheduler.close()
    assert names == ["ostinato-serve"]
    assert scheduler.longest == tiny_model().config.max_position_embeddings


def test_a_model_that_cannot_be_loaded_raises_in_the_constructor() -> None:
    def load() -> LanguageModel:
        raise InputError("The model must be there, got nothing. Name another.")

    with pytest.raises(InputError, match="The model must be there"):
        Scheduler(load)


JUDGE = Judge(question="Is {output} so?", model="http://127.0.0.1:9/v1#m", key_env="JUDGES_KEY")

JOB = """\
input = "in.jsonl"
model = "smollm2"
[prompt]
template = "{q}"
[[check]]
kind = "judge"
question = "Is {output} so?"
model = "http://127.0.0.1:9/v1#m"
key_env = "JUDGES_KEY"
"""


def test_a_check_of_the_job_that_cannot_judge_ends_the_command_before_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listen(*_: object, **__: object) -> None:
        raise AssertionError("it listens")

    monkeypatch.delenv("JUDGES_KEY", raising=False)
    monkeypatch.setattr("ostinato.cli.serve._server", listen)
    (tmp_path / "in.jsonl").write_text('{"q": "a"}\n', encoding="utf-8")
    (tmp_path / "job.toml").write_text(JOB, encoding="utf-8")
    model = str(save_tiny(tmp_path / "tiny"))
    result = CliRunner().invoke(serve, [model, "--job", str(tmp_path / "job.toml")])
    assert isinstance(result.exception, InputError)
    assert "The check 'judge' cannot judge: " in str(result.exception)
    assert "JUDGES_KEY" in str(result.exception)


def test_checks_are_prepared_in_the_thread_that_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(
        Excludes, "prepare", lambda _: names.append(threading.current_thread().name)
    )
    Scheduler(tiny_model, defaults=Defaults(checks=(Excludes(texts=("e",)),))).close()
    assert names == ["ostinato-serve"]


def test_what_breaks_a_check_of_the_server_is_for_its_log_and_not_for_clients(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGES_KEY", "one")
    with serving(defaults=Defaults(checks=(JUDGE,))) as (port, _):
        monkeypatch.delenv("JUDGES_KEY")
        status, answer = post(port, asked(seed=1))
    told = answer["choices"][0]["ostinato"]
    assert (status, told["accepted"]) == (200, False)
    assert [verdict["error"] for verdict in told["verdicts"]] == [HIDDEN_ERROR]
    assert not [name for name in ("JUDGES_KEY", "127.0.0.1") if name in json.dumps(answer)]
    assert "The check 'judge' could not judge: " in caplog.text and "JUDGES_KEY" in caplog.text
