"""Real servers of other projects: llama-cpp-python's and `transformers serve`, each a process.

They write with smollm2 where it is installed, else with a tiny model. LLAMA_SERVER_PYTHON and
TRANSFORMERS_SERVER_PYTHON name the Python of an environment that has one, where this one has not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import torch
from faulty_server import free_port
from lane_rows import lane_rows
from test_models_gguf_families import network
from tiny import save_tiny
from tiny_gguf import Form, write_gguf

from ostinato.checks import Excludes, Length
from ostinato.journal import StopKind, Stopped
from ostinato.loop import Action, GiveUp, GoBack, History, Lane, Lanes, Loop, Policy, Steps, is_end
from ostinato.models import Llama, load_model
from ostinato.models.catalog import installed_folder, is_installed
from ostinato.refine.refine import Refine
from ostinato.refine.strategies.backtrack import Backtrack
from ostinato.refine.strategies.base import Abort
from ostinato.remote import Server, ServerError, ServerLanes, retry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ASKED = [{"role": "user", "content": "Count from one to ten in words."}]
STARTS_IN = 120.0  # seconds


@dataclass(frozen=True)
class Real:
    """A server that runs, and what it can."""

    url: str
    model: str
    tells_logprobs: bool
    repeats: bool  # one seed gives one answer
    refusal: str  # what it says of a `top_k` below 0

    def server(self, **settings: Any) -> Server:
        return Server(url=self.url, model=self.model, **settings)


def python_with(variable: str, modules: Sequence[str]) -> str:
    """Return a Python that has the modules; skip where there is none."""
    python = os.environ.get(variable, sys.executable)
    code = f"import {', '.join(modules)}"
    if subprocess.run([python, "-c", code], capture_output=True).returncode:
        pytest.skip(
            f"{python} cannot import {', '.join(modules)}. Install them, or name a Python that "
            f"can: {variable}."
        )
    return python


@contextmanager
def running(command: Sequence[str], url: str, log: Path) -> Iterator[None]:
    """Run a server, and wait until it answers."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    with log.open("wb") as said:
        child = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
    try:
        ends = time.monotonic() + STARTS_IN
        while not answers(f"{url}/models"):
            assert child.poll() is None and time.monotonic() < ends, log.read_text()[-2000:]
            time.sleep(0.2)
        yield
    finally:
        child.kill()
        child.wait(30)


def answers(url: str) -> bool:
    """Tell whether there is an answer, be it an error."""
    try:
        urlopen(url, timeout=5).close()
    except HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def llama(folder: Path) -> Iterator[Real]:
    """llama-cpp-python's server; it keeps logits, which its log-probabilities need."""
    python = python_with("LLAMA_SERVER_PYTHON", ["fastapi", "llama_cpp.server.app"])
    file, port = folder / "model.gguf", free_port()
    if is_installed("smollm2"):
        model = load_model("smollm2", dtype=torch.float32)
        assert isinstance(model.network, Llama)
        write_gguf(file, model.network, Form.Q8_0, tokenizer=model.tokenizer)
    else:
        write_gguf(file, network("llama"))
    words = ["--model", str(file), "--model_alias", "m", "--port", str(port)]
    words += ["--logits_all", "true", "--interrupt_requests", "false", "--n_ctx", "512"]
    words += ["--n_threads", "1", "--n_threads_batch", "1"]
    url = f"http://localhost:{port}/v1"
    with running([python, "-m", "llama_cpp.server", *words], url, folder / "log"):
        said = "Input should be greater than or equal to 0"
        yield Real(url, "m", tells_logprobs=True, repeats=False, refusal=said)


@contextmanager
def transformers(folder: Path) -> Iterator[Real]:
    """`transformers serve`; it samples where the model's own settings say so, else never."""
    modules = ["fastapi", "accelerate", "transformers.cli.serve"]
    python = python_with("TRANSFORMERS_SERVER_PYTHON", modules)
    model, port = folder / "model", free_port()
    if is_installed("smollm2"):
        shutil.copytree(installed_folder("smollm2"), model)
    else:
        save_tiny(model)
    settings = {"bos_token_id": 1, "eos_token_id": [2], "do_sample": True}
    (model / "generation_config.json").write_text(json.dumps(settings))
    words = ["serve", str(model), "--port", str(port), "--device", "cpu"]
    url = f"http://localhost:{port}/v1"
    with running([python, "-m", "transformers.cli.transformers", *words], url, folder / "log"):
        said = "Unexpected fields in the request: {'top_k'}"
        yield Real(url, str(model), tells_logprobs=False, repeats=True, refusal=said)


@pytest.fixture(scope="module", params=[llama, transformers], ids=lambda start: str(start.__name__))
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Real]:
    with request.param(tmp_path_factory.mktemp("server")) as started:
        yield started


@contextmanager
def lanes_on(real: Real, max_tokens: int = 12, **settings: Any) -> Iterator[ServerLanes]:
    sampling = {"temperature": 1.0}
    process = ServerLanes(
        real.server(**settings),
        lambda item, edits: ASKED,
        sampling=sampling,
        max_tokens=max_tokens,
        slots=2,
    )
    try:
        yield process
    finally:
        process.close()


def reports(process: ServerLanes, seed: int = 5) -> list[Mapping[str, Any]]:
    """Write one answer to its end; return its reports."""
    process.start(Lane("a", seed=seed), "item")
    found: list[Mapping[str, Any]] = []
    while not found or not is_end(found[-1]):
        found += process.step().values()
    process.drop("a")
    return found


CHATML: Mapping[str, Any] = {"api": "completions", "template": "chatml"}
APIS = pytest.mark.parametrize("api", [{"api": "chat"}, CHATML], ids=["chat", "completions"])


@APIS
def test_a_plain_answer_comes_with_its_usage(real: Real, api: Mapping[str, Any]) -> None:
    with lanes_on(real, stream=False, **api) as process:
        (report,) = reports(process)
    assert report["text"]
    assert 1 <= report["tokens"] <= 12
    assert report["prompt"] > 8
    assert report["finish"] in ("stop", "length")


@APIS
def test_a_stream_comes_in_pieces_and_the_seed_repeats_it_where_the_server_can(
    real: Real, api: Mapping[str, Any]
) -> None:
    with lanes_on(real, **api) as process:
        first, second = reports(process), reports(process)
    texts = [report["text"] for report in first]
    assert len([text for text in texts if text]) >= 3
    assert not real.repeats or texts == [report["text"] for report in second]
    assert is_end(first[-1])


@APIS
def test_log_probabilities_come_where_the_server_sends_them(
    real: Real, api: Mapping[str, Any]
) -> None:
    with lanes_on(real, logprobs=True, **api) as process:
        written = [report for report in reports(process) if report["text"]]
    if real.tells_logprobs:
        assert all(report["logprob"] <= 0 for report in written)
        assert sum(report["tokens"] for report in written) <= 12
    else:
        assert not any("logprob" in report for report in written)


def test_many_answers_are_written_in_parallel(real: Real) -> None:
    with lanes_on(real) as process:
        lanes = Lanes(process, [(f"{n}", n) for n in range(4)], Policy(each=Steps(40)), seed=3)
        steps = Loop(lanes, until=Steps(100_000))
        rows: list[Any] = [one.to_json() for step in steps for one in step.results]
    assert all(row["stopped"]["kind"] == "ended" and row["output"] for row in rows)
    assert len(rows) == 4


def test_abort_closes_the_stream_and_the_server_is_free(real: Real) -> None:
    refine = Refine(
        real.server(),
        [{"id": "a"}],
        prompt=lambda row, edits: ASKED,
        checks=[Length(max=5, unit="characters")],
        strategy=Abort(rounds=2),
        max_new_tokens=200,
        slots=2,
    )
    (row,) = lane_rows(refine)
    refine.decode.close()  # type: ignore[union-attr]
    spent: Any = row["spent"]
    assert spent["calls"] == row["rounds"] == 2
    assert spent["computed"] < 100  # of 400 that could have come
    with lanes_on(real, max_tokens=3) as process:
        assert reports(process)[-1]["finish"] in ("stop", "length")


def go_back_once(stopped: Stopped, history: History) -> Action:
    return GiveUp() if history.attempts else GoBack(2, {"force": [ord(c) for c in " 7"]})


def without_seven(step: Any) -> Stopped | None:
    late = step.position >= 5 and " 7" not in str(step.output)
    return Stopped(StopKind.FAILED, "There is no 7.") if late else None


def test_backtrack_continues_from_the_good_prefix(real: Real) -> None:
    pieces: list[Any] = []
    rows: list[Any] = []
    with lanes_on(real, **CHATML) as process:
        lanes = Lanes(process, [("a", 0)], Policy(each=without_seven, on_stop=go_back_once), seed=3)
        for step in Loop(lanes, until=Steps(10_000)):
            pieces += [lane.report["text"] for lane in step.lanes.values()]
            rows += [one.to_json() for one in step.results]
    (row,) = rows
    prefix = "".join(pieces[:2]) + " 7"
    assert row["output"].startswith(prefix)
    assert len(row["output"]) > len(prefix)
    assert (row["backtracks"], row["spent"]["calls"]) == (1, 2)


def test_backtrack_starts_over_where_an_answer_cannot_be_continued(real: Real) -> None:
    refine = Refine(
        real.server(),
        [{"id": "a"}],
        prompt=lambda row, edits: ASKED,
        checks=[Excludes(texts=tuple("aeiou"))],
        strategy=Backtrack(rounds=2),
        max_new_tokens=12,
        slots=2,
    )
    (row,) = lane_rows(refine)
    refine.decode.close()  # type: ignore[union-attr]
    assert row["rounds"] == 2 or row["accepted"]
    spent: Any = row["spent"]
    assert spent["calls"] == row["rounds"]  # it may go back to cut, which asks for nothing


def test_a_refusal_is_reported_in_the_server_s_words(
    real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "BASE", 0.01)
    with (
        lanes_on(real, extensions=True, retries=1, **CHATML) as process,
        pytest.raises(ServerError, match=real.refusal),
    ):
        process._sampling["top_k"] = -3
        for n in range(3):
            process.start(Lane(f"{n}"), "item")
        while True:
            process.step()
