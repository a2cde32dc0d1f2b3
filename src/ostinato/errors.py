"""The errors of Ostinato, as one tree.

OstinatoError
├── InputError          something given is wrong: the message says what, where and how to fix it
│   ├── EditError       a process does not know this edit, or not this value
│   └── MissingExtra    an optional part is not installed
├── OutputError         a file cannot be written
├── ItemError           one item cannot be worked on; the others can
├── EnvironmentFault    a game's environment raised, or returned what it must not
├── RunError            a run cannot be opened, resumed, branched or driven
│   ├── RunLocked       another process drives the run
│   ├── CallError       a call of a run failed, and its error was recorded
│   └── Unanswered      nobody has answered a question of a run yet
└── ModelError          weights are missing, damaged or of another layout
    └── UnknownLayout   a network that is none of ours; `transformers` may know it
"""

from __future__ import annotations


class OstinatoError(Exception):
    """Base of all errors that Ostinato raises on purpose."""


class InputError(OstinatoError, ValueError):
    """Something given by the user is wrong; `key` names it in a table, if it is there."""

    key: str = ""


class EditError(InputError):
    """A process does not know an edit, or not this value of it."""


class MissingExtra(InputError):
    """An optional part is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an extra. Install it with: pip install 'ostinato[{extra}]'")
        self.extra = extra


class OutputError(OstinatoError):
    """A file cannot be written; `key` names the setting that names it, if there is one."""

    key: str = ""


class ItemError(OstinatoError):
    """One item cannot be worked on; the others can."""


class EnvironmentFault(OstinatoError):
    """A game's environment raised, or returned what it must not."""


class RunError(OstinatoError):
    """A run cannot be opened, resumed, branched or driven."""


class RunLocked(RunError):
    """Another process drives the run."""


class CallError(RunError):
    """A call of a run failed, and its error was recorded; `path` is that of the call."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path


class Unanswered(RunError):
    """Nobody has answered a question of a run yet; `run` is its id, `path` that of the question."""

    def __init__(self, message: str, run: str, path: str) -> None:
        super().__init__(message)
        self.run, self.path = run, path


class ModelError(OstinatoError):
    """Weights are missing, damaged or of another layout."""


class UnknownLayout(ModelError):
    """A network that is none of ours; `transformers` may know it."""
