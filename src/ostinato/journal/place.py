"""Where the journal of a folder is, and the commands that name another one."""

from __future__ import annotations

import shlex
from pathlib import Path

DEFAULT = Path(".ostinato/journal.db")


def runs_command(journal: Path, *words: str) -> str:
    """Return the line `ostinato runs …` about a journal, to be typed in the working folder."""
    named = ["--journal", _near(journal)] if journal.resolve() != DEFAULT.resolve() else []
    return shlex.join(["ostinato", "runs", *words, *named])


def _near(path: Path) -> str:
    """Return a path relative to the working folder where it lies in it."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)
