"""The exit codes of the command line."""

from enum import IntEnum


class Exit(IntEnum):
    """What the exit code of a command says."""

    DONE = 0  # everything was accepted, or trained
    NOT_ALL = 1  # some replies were not accepted or not written, or a training diverged
    BAD_INPUT = 2  # something given is wrong
    BUDGET = 3  # the job's budget ended with items unfinished
    INTERRUPTED = 130  # Ctrl-C or SIGTERM; the same command goes on
