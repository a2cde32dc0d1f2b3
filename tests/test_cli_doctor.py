"""`ostinato doctor` describes any machine, without names of users, and without a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import save_tiny

from ostinato.cli import doctor as module
from ostinato.cli.doctor import doctor, without_homes
from ostinato.cli.main import cli
from ostinato.inference import find_kernel
from ostinato.inference.compiled.variants import compiler_path
from ostinato.models import cache_root

PARTS = [
    *("ostinato", "system", "processor", "threads", "kernel", "gpu"),
    *("memory", "disk", "cache", "extras", "models"),
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Measure with little memory, in a folder and with a home of the test's own."""
    monkeypatch.setattr(module, "READ_BYTES", 1 << 22)
    monkeypatch.setattr(module, "WRITE_BYTES", 1 << 20)
    if compiler_path():  # else each test would compile the kernel
        find_kernel()
        shutil.copytree(cache_root() / "native", tmp_path / "alice" / "cache" / "native")
    monkeypatch.setenv("HOME", str(tmp_path / "alice"))
    monkeypatch.setenv("OSTINATO_CACHE", str(tmp_path / "alice" / "cache"))
    monkeypatch.chdir(tmp_path)
    yield


def told(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["doctor", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_each_part_has_its_line_in_order() -> None:
    lines = told().splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == PARTS
    assert all(line.split()[0] == "missing:" for line in lines if line.startswith(" "))
    assert not any("cannot be read" in line for line in lines)


def test_one_object_holds_the_same(tmp_path: Path) -> None:
    save_tiny(tmp_path / "alice" / "cache" / "models" / "smollm2")
    found = json.loads(told("--json"))
    assert list(found) == PARTS
    assert found["memory"]["read_gb_s"] > 0 and found["disk"]["write_mb_s"] > 0
    assert found["cache"]["path"] == "~/cache" and found["cache"]["bytes"]["models"] > 0
    assert found["models"]["installed"] == ["smollm2"]
    assert found["models"]["missing"] == {"minilm": "ostinato models get minilm"}
    extras = found["extras"]
    assert {*extras["installed"], *extras["missing"]} >= {"hf", "llama", "serve"}
    for extra, command in extras["missing"].items():
        assert command == f"pip install 'ostinato[{extra}]'"


def test_nothing_is_left_on_the_disk(tmp_path: Path) -> None:
    told("--journal", str(tmp_path / "deep" / "journal.db"))
    assert {path.name for path in tmp_path.iterdir()} <= {"alice"}


def test_a_part_that_cannot_be_read_says_so_and_the_rest_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreadable(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", "/home/alice/secret")

    monkeypatch.setattr("psutil.virtual_memory", unreadable)
    monkeypatch.setattr("shutil.disk_usage", unreadable)
    lines = told().splitlines()
    for part in ("memory", "disk"):
        line = next(line for line in lines if line.startswith(part))
        assert line.split(maxsplit=1)[1] == "cannot be read: PermissionError: Permission denied"
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == PARTS
    assert json.loads(told("--json"))["memory"] == {"error": "PermissionError: Permission denied"}


def test_without_a_kernel_the_line_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/home/alice/bin/no-such-compiler")
    monkeypatch.delenv("OSTINATO_MARCH", raising=False)
    line = next(line for line in told().splitlines() if line.startswith("kernel"))
    assert "none: a C++ compiler must be installed" in line and "Install g++" in line
    assert "alice" not in line


def test_no_user_is_named(tmp_path: Path) -> None:
    (tmp_path / "alice" / "cache" / "models").mkdir(parents=True)
    for output in (told(), told("--json")):
        assert "alice" not in output and str(tmp_path) not in output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/bob/venv/lib/a.so: missing", "~/venv/lib/a.so: missing"),
        ("/Users/bob/Library/Caches", "~/Library/Caches"),
        (r"C:\Users\bob\AppData", r"~\AppData"),
        ("'/home/bob'", "'~'"),
        ("/opt/venv/a.so", "/opt/venv/a.so"),
    ],
)
def test_home_folders_become_a_tilde(text: str, expected: str) -> None:
    assert without_homes(text) == expected


def test_a_folder_that_begins_like_the_home_is_not_cut(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/root")
    assert without_homes("/rootfs/a /root/b /root") == "/rootfs/a ~/b ~"


def test_the_command_is_listed_with_its_help() -> None:
    assert doctor.help and "bug report" in doctor.help
    assert "doctor" in CliRunner().invoke(cli, ["--help"]).output
