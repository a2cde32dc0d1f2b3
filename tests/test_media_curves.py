"""Curves as pictures, and `ostinato runs plot`."""

from __future__ import annotations

import csv
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from ostinato.cli.main import cli
from ostinato.errors import InputError, MissingExtra, RunError
from ostinato.journal import Journal
from ostinato.loop import Loop, Steps
from ostinato.media import Series, moving_mean, save_curves

BLUE, RED = (31, 78, 156), (209, 73, 91)


def test_a_mean_over_the_last_values() -> None:
    points = [(0.0, 1.0), (1.0, 3.0), (2.0, 5.0), (3.0, 7.0)]
    assert moving_mean(points, 2) == [(0, 1), (1, 2), (2, 4), (3, 6)]
    assert moving_mean(points, 1) == points


def where(path: Path, color: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Return the pixels below the legend that have about a color."""
    with Image.open(path) as image:
        assert image.size == (640, 360)
        pixels = image.load()
        assert pixels is not None
        return [
            (x, y)
            for x in range(640)
            for y in range(30, 360)
            if sum(abs(a - b) for a, b in zip(pixels[x, y], color, strict=True)) < 60
        ]


def test_each_series_has_its_color_and_rises_where_its_values_do(tmp_path: Path) -> None:
    file = tmp_path / "curves.png"
    rising = [(float(n), float(n)) for n in range(50)]
    flat = [(float(n), 10.0 if n else math.nan) for n in range(50)]
    save_curves(file, [Series("rising", rising), Series("flat", flat)], x_name="tick")
    blue, red = where(file, BLUE), where(file, RED)
    assert min(blue)[1] > max(blue)[1] + 150  # its left end is lower, so its y is larger
    assert max(y for _, y in red) - min(y for _, y in red) < 6
    with pytest.raises(InputError, match="at least one finite value"):
        save_curves(file, [Series("none", [(0.0, math.nan)])], x_name="tick")


def test_one_value_is_a_dot(tmp_path: Path) -> None:
    file = tmp_path / "dot.png"
    save_curves(file, [Series("one", [(3.0, 0.0)])], x_name="tick")
    assert 9 <= len(where(file, BLUE)) <= 60


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    with Journal() as journal:
        for name in ("a", "b"):
            values = iter(range(9))
            Loop(
                lambda values=values: {"loss": 9 - (n := next(values)), "pair": [n, n + 1]},
                until=Steps(5),
                run=name,
                journal=journal,
            ).run()
    yield tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["runs", "plot", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.mark.usefixtures("folder")
def test_values_of_runs_are_drawn_and_written() -> None:
    assert run("a", "--metric", "loss", "--out", "c.png") == "5 values of 1 curve: c.png\n"
    assert where(Path("c.png"), BLUE) and not where(Path("c.png"), RED)
    run("a", "b", "--metric", "loss", "--over", "2", "--out", "d.png")
    run("a", "b", "--metric", "loss", "--metric", "pair", "--out", "c.csv")
    with open("c.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[:3] == [
        ["run", "metric", "tick", "value"],
        ["a", "loss", "1", "9.0"],
        ["a", "loss", "2", "8.0"],
    ]
    assert rows[6] == ["a", "pair", "1", "0.5"]
    assert len(rows) == 21


@pytest.mark.usefixtures("folder")
def test_events_are_those_of_tensorboard() -> None:
    told = run("a", "b", "--metric", "loss", "--out", "events/")
    assert told == "10 values of 2 curves: events/\n"
    run("a", "--metric", "pair", "--out", "events/")  # in place of the first ones
    (first,) = Path("events/a").iterdir()
    (second,) = Path("events/b").iterdir()
    assert events(second) == [("loss", tick, 10.0 - tick) for tick in range(1, 6)]
    assert events(first) == [("pair", tick, tick - 0.5) for tick in range(1, 6)]


def events(file: Path) -> list[tuple[str, int, float]]:
    """Return the scalars of a file of records: a length, a checksum, an event, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = file.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + size])
        found += [(each.tag, event.step, each.simple_value) for each in event.summary.value]
        data = data[16 + size :]
    return found


@pytest.mark.usefixtures("folder")
def test_events_need_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingExtra, match=r"ostinato\[tensorboard\]"):
        run("a", "--metric", "loss", "--out", "events/")


@pytest.mark.usefixtures("folder")
def test_a_wrong_metric_or_file_is_named() -> None:
    with pytest.raises(RunError, match="Did you mean 'loss'"):
        run("a", "--metric", "los", "--out", "c.png")
    with pytest.raises(InputError, match=r"must end in \.png or \.csv, or in / .*, got c\.jpg"):
        run("a", "--metric", "loss", "--out", "c.jpg")
    with pytest.raises(RunError, match="no run 'c'"):
        run("c", "--metric", "loss", "--out", "c.png")
