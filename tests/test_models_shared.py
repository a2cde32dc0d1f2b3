"""A model that is given by name is loaded once, and again when its files change."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import save_tiny

from ostinato.checks import Length
from ostinato.errors import ModelError
from ostinato.models import memory, shared, shared_model
from ostinato.refine import Refine
from ostinato.text import write


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_models", type(shared._models)())


def test_calls_with_the_same_name_share_the_model(tmp_path: Path) -> None:
    name = str(save_tiny(tmp_path / "tiny"))
    first = shared_model(name)
    assert shared_model(name) is first
    assert shared_model(f"{name}/", device="cpu") is first
    write(["We can"], model=name)
    assert Refine(name, [{"text": "a"}], prompt="{text}", checks=[Length(max=9)]).model is first


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    name = str(save_tiny(tmp_path / "tiny"))
    first = shared_model(name)
    weights = tmp_path / "tiny" / "model.safetensors"
    data = weights.read_bytes()
    weights.unlink()  # another file: this one is mapped
    weights.write_bytes(data)
    second = shared_model(name)
    assert second is not first
    assert shared_model(name) is second


def test_only_the_latest_models_are_kept(tmp_path: Path) -> None:
    names = [str(save_tiny(tmp_path / f"tiny{number}")) for number in range(3)]
    first, second = shared_model(names[0]), shared_model(names[1])
    assert shared_model(names[0]) is first  # now the second is the oldest
    shared_model(names[2])
    assert shared_model(names[0]) is first
    assert shared_model(names[1]) is not second


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(save_tiny(tmp_path / "tiny"))
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    with pytest.raises(ModelError, match=r"must fit into the free memory \(1 kB\)"):
        write(["We can"], model=name)
