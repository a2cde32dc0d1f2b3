"""Specifications: configurations come back as they were, and are compared field by field."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from ostinato import Loop, Steps
from ostinato.errors import InputError, RunError
from ostinato.journal import (
    Journal,
    Place,
    RunConfig,
    config_from_json,
    config_to_json,
    differences,
    places_outside,
    require_same,
)
from ostinato.runs import KINDS, kind_of


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Made(RunConfig):
    kind: ClassVar[str] = "made"
    free: ClassVar[frozenset[str]] = frozenset({"until"})
    hashes: ClassVar[frozenset[str]] = frozenset({"weights"})

    out: Path
    model: Place = "small"
    judge: Place | None = None
    sources: tuple[Place, ...] = ()
    until: str | None = None
    weights: str = ""
    size: int | None = None
    span: tuple[float, float] = (0.0, math.inf)
    mode: Literal["a", "b"] = "a"
    inner: Inner = Inner()


def example(folder: Path) -> Made:
    return Made(
        out=folder / "out" / "x",
        model=str(folder / "models" / "mine"),
        judge=str(folder / "models" / "judge"),
        sources=("digits", str(folder / "data")),
        until="Steps(3)",
        size=4,
        mode="b",
        inner=Inner(rate=0.1, names=("one", "two")),
    )


def test_a_configuration_comes_back_as_it_was(tmp_path: Path) -> None:
    written = json.loads(json.dumps(config_to_json(example(tmp_path), tmp_path)))
    assert config_from_json(Made, written, tmp_path) == example(tmp_path)


def test_paths_stay_right_where_the_folder_is_moved(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    written = config_to_json(example(here), here)
    assert config_from_json(Made, written, there) == example(there)
    assert not places_outside(example(here), here)
    assert places_outside(example(here), there) == [
        str(here / "out" / "x"),
        str(here / "models" / "mine"),
        str(here / "models" / "judge"),
        str(here / "data"),
    ]


def test_a_field_that_an_older_record_lacks_has_its_default(tmp_path: Path) -> None:
    written = config_to_json(Made(out=tmp_path), tmp_path)
    assert config_from_json(Made, written, tmp_path) == Made(out=tmp_path)
    del written["mode"], written["inner"]
    assert config_from_json(Made, written, tmp_path) == Made(out=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "must have no other fields, got colour"),
        ({"out": 3}, "Made.out must be a path, got 3"),
        ({"size": "4"}, "Made.size must be of type int, got '4'"),
        ({"inner": [1]}, "Made.inner must be an object"),
        ({"span": [1]}, "Made.span must have 2 values, got 1"),
    ],
)
def test_what_is_no_configuration_is_refused_by_field(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    written = {**config_to_json(Made(out=tmp_path), tmp_path), **change}
    with pytest.raises(RunError, match=message):
        config_from_json(Made, written, tmp_path)


def test_a_missing_field_without_a_default_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="must have the fields out, which it lacks"):
        config_from_json(Made, {}, tmp_path)


def test_differences_are_told_field_by_field(tmp_path: Path) -> None:
    before = example(tmp_path)
    now = replace(before, size=5, inner=replace(before.inner, rate=0.2), until="Steps(9)")
    changed = differences(before, now, tmp_path)
    assert [str(each) for each in changed] == [
        "size was 4, is 5",
        "inner.rate was 0.1, is 0.2",
    ]
    with pytest.raises(InputError, match=r"but --size was 4, is 5; --inner.rate was 0.1, is 0.2"):
        require_same("mine", changed, spelled=lambda name: f"--{name}")


def test_hashes_are_compared_only_where_both_are_known(tmp_path: Path) -> None:
    one = replace(example(tmp_path), weights="abc")
    assert not differences(one, replace(one, weights=""), tmp_path)
    assert differences(one, replace(one, weights="abd"), tmp_path)


@pytest.mark.parametrize(
    "address",
    ["https://user:hidden@host/v1#m", "http://host/v1?api_key=hidden", "http://h/?X-Token=hidden"],
)
def test_an_address_with_a_secret_never_enters_a_specification(
    tmp_path: Path, address: str
) -> None:
    with pytest.raises(InputError, match="must be an address without secrets") as raised:
        config_to_json(replace(example(tmp_path), model=address), tmp_path)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_names_its_configuration_and_its_builder(kind: str) -> None:
    config = kind_of(kind).config_class()
    assert config.kind == kind
    assert issubclass(config, RunConfig)
    assert callable(kind_of(kind).builder())


def test_a_run_is_made_only_when_its_loop_is_right(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:

        def made() -> object:
            return journal.create("late", kind="made", spec={"config": {"size": 1}})

        with pytest.raises(InputError):
            Loop(lambda: 1, until="no condition", run=made)  # type: ignore[arg-type]
        assert journal.find("late") is None
        with Loop(lambda: 1, until=Steps(2), run=made) as loop:  # type: ignore[arg-type]
            loop.run()
        spec = journal.get("late").spec
        assert (spec["config"], spec["until"]) == ({"size": 1}, "Steps(2)")
