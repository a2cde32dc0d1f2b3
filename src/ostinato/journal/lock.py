"""Who drives a run: a lock of the operating system, which vanishes with its process."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from ostinato.errors import RunLocked

PATIENCE_SECONDS = 0.5
"""For how long taking the lock is retried: `holder`, which only looks, takes it for an instant."""


class RunLock:
    """An exclusive lock on a file, held until `release` or until the process is gone."""

    def __init__(self, path: Path, name: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: int | None = _take(path, name)
        # The content is only for messages; the lock itself is the kernel's.
        os.ftruncate(self._file, 0)
        os.write(self._file, str(os.getpid()).encode())

    def release(self) -> None:
        """Let another process drive the run, even while a forked child has the file open."""
        # Closing would not be enough: a forked child's copy of the file keeps the lock.
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self.leave_in_child()

    def leave_in_child(self) -> None:
        """Close a forked child's copy of the file, which leaves the parent's lock in force."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _take(path: Path, name: str) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    # Closed in programs that this one starts: they would keep the lock after it has ended.
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    while True:
        try:
            # Not `lockf`: a POSIX lock is lost when its process closes any descriptor of the file,
            # as `holder` does.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            if not isinstance(error, BlockingIOError) or time.monotonic() > deadline:
                pid = os.pread(file, 32, 0).decode(errors="replace") or "unknown"
                os.close(file)
                raise RunLocked(_refusal(name, pid)) from None
            time.sleep(0.01)


def _refusal(name: str, pid: str) -> str:
    if pid == str(os.getpid()):
        return (
            f"The run {name!r} is driven already by this process. "
            "Close the loop that drives it first (loop.close(), or a with block)."
        )
    return (
        f"The run {name!r} is driven by the process {pid}. "
        f"Wait until it ends, or ask it to: ostinato runs pause {name}"
    )


def holder(path: Path) -> int | None:
    """Return the id of the process that holds the lock, None where it is free."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        pid = os.pread(file, 32, 0)
        return int(pid) if pid.isdigit() else 0
    finally:
        os.close(file)
