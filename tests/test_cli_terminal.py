"""What is printed survives every encoding, a closed pipe and a full disk; arguments are UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Prints as a command does, but imports little: the command line's own start is slow.
PRINTS = """
import click
from ostinato.cli.terminal import prepared_streams
with prepared_streams():
    click.echo("[\\"… → ✓ “a” é 中 😀 \\ud83d\\"]")
    for _ in range({lines}):
        click.echo("more")
"""


def printed(
    encoding: str, lines: int = 0, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", PRINTS.format(lines=lines)]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=environment)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "… → ✓ “a” é 中 😀 \ud83d"),
        ("latin-1", "... -> + 'a' é 中 😀 \ud83d"),
        ("cp1252", "… -> + “a” é 中 😀 \ud83d"),
        ("ascii", "... -> + 'a' é 中 😀 \ud83d"),
    ],
)
def test_what_a_stream_cannot_encode_is_replaced_and_json_stays_json(
    encoding: str, shown: str
) -> None:
    done = printed(encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.decode(encoding)) == [shown]


def test_a_full_disk_is_a_sentence() -> None:
    with open("/dev/full", "wb") as full:
        done = printed("utf-8", stdout=full.fileno())
    told = b"Error: The output must be writable, got: no space left on device.\n"
    assert (done.returncode, done.stderr) == (1, told)


def test_a_closed_pipe_ends_a_command_without_a_word() -> None:
    read, write = os.pipe()
    os.close(read)
    done = printed("utf-8", lines=10_000, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_an_argument_that_is_not_utf_8_is_named_with_its_byte(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "ostinato", "generate"]
    command = [*map(os.fsencode, words), b"caf\xe9"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "must be text in UTF-8, got the byte 0xe9 in 'caf\\udce9'." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
@pytest.mark.parametrize("words", ["--help", "doctor", "models", "runs", "refine --help"])
def test_every_command_prints_in_every_encoding(words: str, encoding: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "ostinato", *words.split()],
        capture_output=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    done.stdout.decode(encoding)
