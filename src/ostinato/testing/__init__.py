"""The public conformance suite: does a process keep the promises that a loop relies on?"""

from ostinato.testing.children import Forks
from ostinato.testing.compare import differences
from ostinato.testing.conformance import check_lane_process, check_process
from ostinato.testing.kill import check_killed

__all__ = [
    "Forks",
    "check_killed",
    "check_lane_process",
    "check_process",
    "differences",
]
