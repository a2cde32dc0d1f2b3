"""Processes that drive a run and are killed: new interpreters, or forks of one that has imported.

Knows no loop.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

KILL = "ostinato.testing.kill"
SERVE = f"import sys; from {__name__} import serve; serve(sys.argv[1])"
POLL = 0.003  # seconds between two looks at a fork: short beside the runs that tests kill


class Handle(Protocol):
    """A child process."""

    def wait(self, seconds: float) -> int | None:
        """Wait up to `seconds` for its end; return its exit code, None while it runs."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...


Spawn = Callable[[Sequence[str], Path], Handle]
"""Starts a process: `ostinato.testing.kill` with these arguments; its output goes to a file."""


def spawn(arguments: Sequence[str], output: Path) -> Handle:
    """Start a new interpreter."""
    with output.open("wb") as file:
        return _Interpreter(
            subprocess.Popen(
                [sys.executable, "-m", KILL, *arguments],
                env=_environment(),
                stdout=file,
                stderr=file,
            )
        )


def _environment() -> dict[str, str]:
    # A child must find the caller's modules, which a test runner adds to `sys.path`.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@dataclass(frozen=True)
class _Interpreter:
    process: subprocess.Popen[bytes]

    def wait(self, seconds: float) -> int | None:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        self.process.kill()


class Forks:
    """An interpreter that has imported a module and forks on request. A context manager.

    POSIX only. It has no threads, so a fork cannot inherit a lock that one of them held.
    """

    def __init__(self, module: str) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVE, module],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()  # it has imported

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.communicate()

    def spawn(self, arguments: Sequence[str], output: Path) -> Handle:
        """Fork a process."""
        return _Fork(self, self.ask({"spawn": list(arguments), "output": str(output)}))

    def ask(self, question: object) -> Any:
        """Send a line and read the answer. Raises `AssertionError` where there is none."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._server.stdout is not None
        answer = self._server.stdout.readline()
        if not answer:
            raise AssertionError("The process that forks must answer, but it has ended.")
        return json.loads(answer)


@dataclass(frozen=True)
class _Fork:
    forks: Forks
    pid: int

    def wait(self, seconds: float) -> int | None:
        deadline = time.monotonic() + seconds
        while True:
            code: int | None = self.forks.ask({"look": self.pid})
            if code is not None or time.monotonic() >= deadline:
                return code
            time.sleep(POLL)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


# In the process that forks --------------------------------------------------------------------


def serve(module: str) -> None:
    """Import a module, then answer lines: fork a process, or return the exit code of one."""
    importlib.import_module(module)
    importlib.import_module(KILL)
    print("null", flush=True)
    codes: dict[int, int] = {}
    for line in sys.stdin:
        question = json.loads(line)
        if "spawn" in question:
            answer: int | None = os.fork()
            if answer == 0:
                _become(question["spawn"], question["output"])
        else:
            pid = question["look"]
            if pid not in codes and (found := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(found[1])
            answer = codes.get(pid)
        print(json.dumps(answer), flush=True)


def _become(arguments: Sequence[str], output: str) -> None:
    """Do what `ostinato.testing.kill` does, and end; what is printed goes into a file."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    code = 0
    try:
        importlib.import_module(KILL).main(*arguments)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
