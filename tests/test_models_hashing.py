"""The hash of a model's weights changes with each file that is read, and with nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tiny import save_tiny

from ostinato.models import weights_digest
from ostinato.models.catalog import cache_root, split_adapter
from ostinato.models.files import hashing as file_hash

MINUTE = 60 * 10**9


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path / "cache"))
    return cache_root() / "hashes.json"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are hashed from here on."""
    names: list[str] = []
    real = file_hash._sha256

    def note(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(file_hash, "_sha256", note)
    return names


def large(path: Path, letter: bytes = b"a", age: int = MINUTE) -> Path:
    """Write a file that is large enough for its hash to be kept, and was written a while ago."""
    path.write_bytes(letter * file_hash.LARGE)
    at = time.time_ns() - age
    os.utime(path, ns=(at, at))
    return path


def test_a_model_that_names_its_adapter_is_sha256_as_the_two(tmp_path: Path) -> None:
    mine, other = save_tiny(tmp_path / "mine"), tmp_path / "other"
    other.mkdir()
    (other / "adapter_config.json").write_text("{}", encoding="utf-8")
    alone = weights_digest(str(mine))
    assert len(alone) == 16 and weights_digest(f"{mine}+support") == alone
    both = weights_digest(str(mine), str(other))
    assert both.startswith(f"{alone}+") and weights_digest(f"{mine}+{other}") == both
    assert weights_digest("smollm2+support") == weights_digest("smollm2") == ""


def test_a_plus_in_the_path_of_what_is_there_is_no_adapter_s(tmp_path: Path) -> None:
    path = str(save_tiny(tmp_path / "mine+support"))
    assert split_adapter(path) == (path, "") and weights_digest(path)
    assert split_adapter(f"{path}-2") == (str(tmp_path / "mine"), "support-2")
    assert split_adapter("smollm2+support") == ("smollm2", "support")


@pytest.mark.parametrize("name", ["model.safetensors", "chat_template.jinja", "vocab.txt"])
def test_each_file_that_is_read_changes_the_hash(tmp_path: Path, name: str) -> None:
    mine = save_tiny(tmp_path / "mine")
    digests = {weights_digest(str(mine))}
    for content in ("one", "two"):
        (mine / name).write_text(content, encoding="utf-8")
        digests.add(weights_digest(str(mine)))
    assert len(digests) == 3
    (mine / "README.md").write_text("one", encoding="utf-8")
    assert weights_digest(str(mine)) in digests


def test_a_large_file_is_sha256_again_only_where_it_changed(
    tmp_path: Path, hashed: list[str]
) -> None:
    one, other = large(tmp_path / "a.gguf"), large(tmp_path / "b.gguf")
    first = [weights_digest(str(path)) for path in (one, other)]
    assert hashed == ["a.gguf", "b.gguf"]
    assert [weights_digest(str(path)) for path in (one, other)] == first
    assert len(hashed) == 2
    large(other, b"b", age=2 * MINUTE)
    assert weights_digest(str(one)) == first[0] and weights_digest(str(other)) != first[1]
    assert hashed[2:] == ["b.gguf"]


def test_a_file_that_was_just_written_is_sha256_again(tmp_path: Path, hashed: list[str]) -> None:
    path = large(tmp_path / "a.gguf", age=0)
    first = weights_digest(str(path))
    kept = path.stat().st_mtime_ns
    path.write_bytes(b"b" * file_hash.LARGE)
    os.utime(path, ns=(kept, kept))
    assert weights_digest(str(path)) != first and len(hashed) == 2


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1', "[" * 100_000, '{"%s": [1, "2", 3]}'])
def test_damaged_hashes_are_ignored_and_computed_again(
    tmp_path: Path, cache: Path, hashed: list[str], content: str
) -> None:
    path = large(tmp_path / "a.gguf")
    first = weights_digest(str(path))
    cache.write_text(content.replace("%s", str(path)), encoding="utf-8")
    assert [weights_digest(str(path)) for _ in range(2)] == [first, first]
    assert len(hashed) == 2
    assert [each.name for each in cache.parent.iterdir()] == ["hashes.json"]


def test_missing_files_are_forgotten(tmp_path: Path, cache: Path) -> None:
    one = large(tmp_path / "a.gguf")
    weights_digest(str(one))
    one.unlink()
    weights_digest(str(large(tmp_path / "b.gguf")))
    text = cache.read_text(encoding="utf-8")
    assert "b.gguf" in text and "a.gguf" not in text


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = large(tmp_path / "a.gguf")
    first = weights_digest(str(path))
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path / "file"))
    assert weights_digest(str(path)) == first
