"""A name on the hub is a folder in that library's cache; without a network, a sentence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny, tiny_model

from ostinato.errors import ModelError
from ostinato.models import load_model

hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")
VOCAB = tiny_model().tokenizer.vocab_size
Requests = list[tuple[str, dict[str, Any]]]


def answering(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> Requests:
    """Let the download give `answer`; return its requests."""
    requests: Requests = []

    def download(repository: str, **values: Any) -> str:
        requests.append((repository, values))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(hub, "snapshot_download", download)
    return requests


def test_a_name_is_taken_from_the_hub_without_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = answering(monkeypatch, save_tiny(tmp_path / "snapshot"))
    model = load_model("someone/tiny@v1.0")
    assert (model.name, model.config.vocab_size) == ("someone/tiny@v1.0", VOCAB)
    ((repository, values),) = requests
    assert (repository, values["revision"]) == ("someone/tiny", "v1.0")
    assert not any("bin" in pattern or "pt" in pattern for pattern in values["allow_patterns"])
    assert "cache_dir" not in values and "local_dir" not in values


def test_an_adapter_can_be_named_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = answering(monkeypatch, save_tiny(tmp_path / "snapshot"))
    with pytest.raises(ModelError, match="adapter must be one of"):
        load_model("someone/tiny+nothing")
    assert requests[0][0] == "someone/tiny"


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = answering(monkeypatch, AssertionError("asked the hub"))
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "someone" / "tiny")
    assert load_model("someone/tiny").config.vocab_size == VOCAB
    assert not requests


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Name or service not known\nand a long trace"),
        ConnectionError("Got: ConnectError: [Errno -2] Name or service not known"),
        errors.LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder"),
        errors.OfflineModeIsEnabled("Cannot reach the hub: offline mode is enabled"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_without_a_network_the_error_says_so_and_what_to_do(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, error)
    with pytest.raises(ModelError, match=r"hub must be reachable .* Check the network") as caught:
        load_model("someone/tiny")
    assert "copy the model's folder" in str(caught.value)
    assert "\n" not in str(caught.value) and "Got:" not in str(caught.value)


def test_an_unknown_name_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = errors.RepositoryNotFoundError.__new__(errors.RepositoryNotFoundError)
    answering(monkeypatch, missing)
    with pytest.raises(ModelError, match="must be a folder here or a model on the hub, got neith"):
        load_model("someone/tyni")


def test_terms_that_must_be_accepted_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    gated = errors.GatedRepoError.__new__(errors.GatedRepoError)
    answering(monkeypatch, gated)
    with pytest.raises(ModelError, match="whose terms you must accept first"):
        load_model("someone/tiny")


def test_a_model_with_pickled_weights_only_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny(tmp_path / "snapshot")
    (folder / "model.safetensors").unlink()
    answering(monkeypatch, folder)
    with pytest.raises(ModelError, match=r"weights as safetensors, got none\. Pickled weights"):
        load_model("someone/tiny")
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ModelError, match=r"must hold config\.json, got none"):
        load_model("someone/tiny")


@pytest.mark.parametrize("name", ["smolm2", "./someone/tiny", "/models/tiny", "a/b/c", "a\\b"])
def test_names_without_the_form_of_the_hub_are_not_requested(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = answering(monkeypatch, AssertionError("asked the hub"))
    with pytest.raises(ModelError, match="a name on the hub is org/name"):
        load_model(name)
    assert not requests
