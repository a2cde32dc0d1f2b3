"""Runs by their configurations: one table from a kind of run to what builds it."""

from ostinato.runs.kinds import KINDS, RunKind, kind_of
from ostinato.runs.record import (
    CONFIG,
    amend,
    branch,
    build,
    build_config,
    changed_config,
    config_of,
    find_same,
    folder_of,
    record,
    record_called,
)

__all__ = [
    "CONFIG",
    "KINDS",
    "RunKind",
    "amend",
    "branch",
    "build",
    "build_config",
    "changed_config",
    "config_of",
    "find_same",
    "folder_of",
    "kind_of",
    "record",
    "record_called",
]
