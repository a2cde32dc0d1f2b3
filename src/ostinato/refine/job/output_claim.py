"""Which job owns an output file, and how long its runs took: a note in the journal's folder.

So a job never overwrites a file that it did not write. Knows no run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostinato.errors import InputError
from ostinato.journal import DEFAULT, JSON
from ostinato.output_files import write_whole
from ostinato.refine.job.job_items import signature_of
from ostinato.text_files import read_object


@dataclass(frozen=True)
class OutputClaim:
    """The note on one output file; `folder` is the journal's."""

    output: Path
    folder: Path

    @property
    def path(self) -> Path:
        """The file that holds the note; a hash of the whole path keeps equal names apart."""
        return self._path_of(self._spelled(self.output))

    def _path_of(self, spelled: str) -> Path:
        # The whole path would be too long for a file name, and holds slashes.
        name = hashlib.sha256(spelled.encode()).hexdigest()[:12]
        return self.folder / "outputs" / f"{self.output.name}-{name}.json"

    def _spelled(self, path: Path) -> str:
        """Return a path relative to the journal's working folder: both may be moved together."""
        base = self.folder.absolute()
        base = base.parent if base.name == DEFAULT.parent.name else base
        absolute = path.absolute()
        inside = absolute.is_relative_to(base)
        return absolute.relative_to(base).as_posix() if inside else str(absolute)

    def claim(self, job: Path) -> None:
        """Record that the output belongs to a job. Raises `InputError` if another one wrote it.

        An output that does not exist may be claimed by any job.
        """
        note = self._read()
        owner, ours = note.get("job"), self._spelled(job)
        # A file without a note is the user's own.
        if self.output.exists() and owner is None:
            raise InputError(
                f"The output must not exist before the job's first run, got {self.output}, which "
                "no job of this journal wrote. Name another with output = or --output, or move "
                "the file away."
            )
        # Older notes have absolute paths.
        if self.output.exists() and owner not in (ours, str(job.absolute())):
            raise InputError(
                f"The output must belong to this job, got {self.output}, which the job {owner} "
                "wrote. Name another with output = or --output."
            )
        if owner != ours:
            same = owner == str(job.absolute())
            kept = note if same else {}
            self._write({**kept, "job": ours, "output": self._spelled(self.output)})

    @staticmethod
    def replies(output: Path) -> int:
        """Return how many replies an output has; 0 where it does not exist or cannot be read."""
        try:
            with output.open("rb") as file:
                return sum(1 for line in file if line.strip())
        except OSError:
            return 0

    def written(self, source: Mapping[str, JSON], files: Sequence[Path]) -> dict[str, Any] | None:
        """Return what was recorded of files that are still as they were written from `source`."""
        note = self._read().get("written")
        same = isinstance(note, dict) and note.get("source") == source
        if not isinstance(note, dict) or not same or note.get("files") != _signatures(files):
            return None
        value = note.get("value")
        return value if isinstance(value, dict) else None

    def record_written(
        self, source: Mapping[str, JSON], files: Sequence[Path], value: Mapping[str, JSON]
    ) -> None:
        """Record that files were written from `source`, so that they need not be written again."""
        written = {"source": source, "files": _signatures(files), "value": value}
        self._write({**self._read(), "written": written})

    def add_seconds(self, run: str, seconds: float) -> float:
        """Add the time of a session to the time of a run; return the sum in seconds."""
        note = self._read()
        worked = note.setdefault("seconds", {})
        worked[run] = worked.get(run, 0.0) + seconds
        self._write(note)
        return float(worked[run])

    def seconds(self, run: str) -> float | None:
        """Return how long a run took over all sessions, in seconds; None if unknown."""
        value = self._read().get("seconds", {}).get(run)
        return None if value is None else float(value)

    def _read(self) -> dict[str, Any]:
        older = self._path_of(str(self.output.absolute()))
        try:
            return read_object(self.path if self.path.exists() or not older.exists() else older)
        # A damaged note counts as none: an existing output is then refused until it is moved.
        except InputError:
            return {}

    def _write(self, note: dict[str, Any]) -> None:
        write_whole(self.path, [json.dumps(note, ensure_ascii=False), "\n"])


def _signatures(files: Sequence[Path]) -> list[list[int]]:
    return [list(signature_of(path)) for path in files]
