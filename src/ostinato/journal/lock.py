"""Who drives a run: a lock of the operating system, which vanishes with its process."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from ostinato.errors import RunError, RunLocked
from ostinato.journal.place import DEFAULT, runs_command

PATIENCE_SECONDS = 0.5
"""For how long taking the lock is retried: `holder`, which only looks, takes it for an instant."""
LOOKS = 4
"""How often `holder` looks, as another one may be looking too."""
PAUSE = 0.002  # seconds between two looks
_PID_AT = 1  # the first byte is what Windows locks, also against reading
_PID_LENGTH = 32


class RunLock:
    """An exclusive lock on a file, held until `release` or until the process is gone."""

    def __init__(self, path: Path, name: str, journal: Path = DEFAULT) -> None:
        self._file: int | None = _take(path, name, journal)
        # The content only says who holds the lock; the lock itself is the kernel's.
        with suppress(OSError):  # the disk is full
            _write_pid(self._file)

    def release(self) -> None:
        """Let another process drive the run, even while a forked child has the file open."""
        # Closing would not be enough: a forked child's copy of the file keeps the lock.
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file, 0)
            _unlock(self._file)
        self.leave_in_child()

    def leave_in_child(self) -> None:
        """Close a forked child's copy of the file, which leaves the parent's lock in force."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _take(path: Path, name: str, journal: Path) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Python closes it in programs that this one starts: they would keep the lock after its end.
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(
            f"The run {name!r} must have a file {path} that you may write, got: {error.strerror}. "
            "If it is another user's, ask them, or name a journal of your own with --journal."
        ) from None
    try:
        while not _try_lock(file):
            if time.monotonic() > deadline:
                raise RunLocked(_refusal(name, _read_pid(file) or "unknown", journal))
            time.sleep(0.01)
    except BaseException as error:
        os.close(file)
        if isinstance(error, OSError):  # not that it is taken: some file systems have no locks
            raise RunError(
                f"the journal must be in a file system with locks, got: {error.strerror}. "
                "Keep it on a local disk."
            ) from None
        raise
    return file


def _refusal(name: str, pid: str, journal: Path) -> str:
    if pid == str(os.getpid()):
        return (
            f"The run {name!r} is driven already by this process. "
            "Close the loop that drives it first (loop.close(), or a with block)."
        )
    return (
        f"The run {name!r} is driven by the process {pid}. "
        f"Wait until it ends, or ask it to: {runs_command(journal, 'pause', name)}"
    )


def holder(path: Path) -> int | None:
    """Return the id of the process that holds the lock, None where it is free."""
    writable = os.access(path, os.W_OK)
    try:
        file = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError:  # another user's: the run's status is all that is known
        return 0
    try:
        for _ in range(LOOKS):
            pid = _read_pid(file)
            if not pid:  # it was erased at the release
                return None
            if _try_lock(file):  # its process was killed
                if writable:  # so that the next one to look need not take the lock
                    os.ftruncate(file, 0)
                return None
            time.sleep(PAUSE)
        return int(pid) if pid.isdigit() else 0
    finally:
        os.close(file)  # with the lock, where it was taken


def _read_pid(file: int) -> str:
    os.lseek(file, _PID_AT, os.SEEK_SET)
    return os.read(file, _PID_LENGTH).decode(errors="replace").strip()


def _write_pid(file: int) -> None:
    # At once and as long as any: a reader never sees a part, nor the end of a longer one.
    os.lseek(file, _PID_AT, os.SEEK_SET)
    os.write(file, str(os.getpid()).ljust(_PID_LENGTH).encode())


# `filelock` is imported when a run is first locked, as `import ostinato` is to be quick. On POSIX
# it calls `flock`; a lock by `lockf` is lost when its process closes any descriptor of the file.


def _try_lock(file: int) -> bool:
    from filelock import lock_descriptor

    return lock_descriptor(file, blocking=False)


def _unlock(file: int) -> None:
    from filelock import unlock_descriptor

    unlock_descriptor(file)
