"""Generation until it passes: `Refine`, its strategies, and jobs described by a file.

Heavy parts are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostinato.refine.backtrack import Backtrack
    from ostinato.refine.job import Job
    from ostinato.refine.job_file import read_job
    from ostinato.refine.refine import Refine
    from ostinato.refine.steering import BestOf, Constrain, Smc
    from ostinato.refine.strategies import Abort, Feedback, Resample, Strategy
    from ostinato.refine.work import open_work

_HOMES = {
    "Abort": "strategies",
    "Backtrack": "backtrack",
    "BestOf": "steering",
    "Constrain": "steering",
    "Feedback": "strategies",
    "Job": "job",
    "Refine": "refine",
    "Resample": "strategies",
    "Smc": "steering",
    "Strategy": "strategies",
    "open_work": "work",
    "read_job": "job_file",
}

__all__ = [
    "Abort",
    "Backtrack",
    "BestOf",
    "Constrain",
    "Feedback",
    "Job",
    "Refine",
    "Resample",
    "Smc",
    "Strategy",
    "open_work",
    "read_job",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module, so that reading a job needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
