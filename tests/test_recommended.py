"""What a model's files recommend is the default of what samples; what is typed or recorded wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from click.testing import CliRunner, Result
from served import application_at, post
from tiny import save_tiny, tiny_model
from tiny_gguf import metadata

from ostinato.cli.main import cli
from ostinato.errors import ModelError
from ostinato.journal import Journal
from ostinato.models import recommendation, recommended_sampling
from ostinato.runs import config_of
from ostinato.server import Scheduler


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_tiny(Path("tiny"))
    return tmp_path


def recommends(**values: Any) -> None:
    Path("tiny/generation_config.json").write_text(json.dumps(values))


def generate(*more: str) -> Result:
    words = ["generate", "Hello", "--model", "tiny", "--max-new-tokens", "2", *more]
    return CliRunner().invoke(cli, words, catch_exceptions=False)


def recorded(name: str) -> Any:
    with Journal() as journal:
        return config_of(journal.get(name))


def test_a_folder_recommends_and_what_it_leaves_out_is_as_usual() -> None:
    assert recommended_sampling("tiny") == {}
    recommends(temperature=0.2, top_p=0.9, top_k=None, do_sample=True, eos_token_id=2)
    assert recommended_sampling("tiny") == {"temperature": 0.2, "top_p": 0.9}
    result = generate("--run", "a")
    line = "Sampling as the model recommends: temperature 0.2, top_p 0.9."
    assert line in result.stderr.splitlines()
    config = recorded("a")
    assert (config.temperature, config.top_p, config.top_k) == (0.2, 0.9, 50)


def test_do_sample_false_is_greedy() -> None:
    recommends(do_sample=False, temperature=0.6, top_k=20)
    assert recommended_sampling("tiny") == {"temperature": 0}
    recommends(top_k=20.0, repetition_penalty=1.05)
    assert recommended_sampling("tiny") == {"top_k": 20, "repetition_penalty": 1.05}


def test_what_is_typed_wins_and_a_resumed_run_keeps_its_own() -> None:
    recommends(temperature=0.2, top_p=0.9)
    result = generate("--run", "a", "--temperature", "1.5")
    assert "recommends: top_p 0.9." in result.stderr
    again = generate("--run", "a")
    assert again.exit_code == 0 and again.stdout == result.stdout
    assert "recommends" not in again.stderr
    assert (recorded("a").temperature, recorded("a").top_p) == (1.5, 0.9)
    assert "recommends" not in generate("--num-beams", "2").stderr
    assert "recommends: top_p 0.9." in generate("--temperatures", "0.5,1").stderr
    assert "recommends" not in generate("--quiet").stderr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1}, "temperature in .*generation_config.json must be a number from 0"),
        ({"top_p": "much"}, "top_p in .* must be a number in .0, 1., got 'much'"),
        ({"top_k": 2.5}, "give --top-k"),
    ],
)
def test_a_wrong_value_is_refused_unless_another_is_typed(
    values: dict[str, Any], message: str
) -> None:
    recommends(**values)
    with pytest.raises(ModelError, match=message):
        recommended_sampling("tiny")
    assert recommended_sampling("tiny", without=list(values)) == {}


def test_a_chat_samples_as_its_model_recommends_and_keeps_it() -> None:
    recommends(temperature=0.3, top_k=7)

    def chat(*more: str) -> Result:
        words = ["chat", "tiny", "--run", "a", "--max-new-tokens", "2", *more]
        return CliRunner().invoke(cli, words, input="Hello\n", catch_exceptions=False)

    assert "Sampling as the model recommends: temperature 0.3, top_k 7." in chat().stderr
    more = chat()
    assert more.exit_code == 0 and "recommends" not in more.stderr
    assert (recorded("a").temperature, recorded("a").top_k) == (0.3, 7)


def test_a_request_that_names_none_is_sampled_so() -> None:
    scheduler = Scheduler(tiny_model())
    greedy = {"temperature": 0}
    ask: dict[str, Any] = {"model": "tiny", "prompt": "Hello", "max_tokens": 12}

    def text(port: int, **more: Any) -> str:
        _, answer = post(port, ask | more, "/v1/completions")
        return str(answer["choices"][0]["text"])

    try:
        with application_at(scheduler, model="tiny", sampling=greedy) as port:
            asked = text(port, temperature=0, seed=1)
            assert text(port, seed=1) == text(port, seed=2) == asked
            assert text(port, temperature=None, seed=3) == asked
            assert text(port, temperature=2, seed=1) != text(port, temperature=2, seed=2)
    finally:
        scheduler.close(at_once=True)


def test_a_wrong_recommendation_is_told_before_a_server_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recommends(temperature=-1)
    monkeypatch.setattr("ostinato.models.load._load", None)
    with pytest.raises(ModelError, match="temperature in tiny"):
        CliRunner().invoke(cli, ["serve", "tiny", "--port", "0"], catch_exceptions=False)


def test_a_gguf_file_recommends() -> None:
    writer = gguf.GGUFWriter("a.gguf", "llama")
    metadata(writer, tiny_model().config, "llama")  # type: ignore[arg-type]
    writer.add_float32("general.sampling.temp", 0.6)
    writer.add_float32("general.sampling.top_p", 0.95)
    writer.add_int32("general.sampling.top_k", 20)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for name in ("a.gguf", "llama:a.gguf"):
        found = recommended_sampling(name)
        assert found == {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
        assert recommendation(found).endswith("temperature 0.6, top_p 0.95, top_k 20.")
