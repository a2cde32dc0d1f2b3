"""Many checks run on one output: users' code under a time limit, and errors as verdicts.

Knows no single check: any object with the methods of `ostinato.loop.Check` can be run.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, TypeVar

from ostinato.arguments import counted
from ostinato.checks.deadline import OVER, is_over, left
from ostinato.loop import Check, Item, PrefixStatus, PrefixVerdict, RequiredText, Verdict

TIME_LIMIT = 10.0  # seconds for one judgment
TEXT_ERRORS = (MemoryError, OverflowError, RecursionError, TimeoutError, UnicodeError)
"""What our own checks raise because of a text."""
USER_ERRORS = (Exception, SystemExit)
"""What is an error of a user's check: one that exits must not end the program that judges."""


Answer = TypeVar("Answer")


def judge_all(
    checks: Sequence[Check], output: object, item: Item, time_limit: float = TIME_LIMIT
) -> list[Verdict]:
    """Judge with every check, in their order.

    A check that raises, takes longer than `time_limit` seconds or returns no usable verdict yields
    a verdict with an `error`, which has not passed. So does one with no time left of a `Deadline`.
    Where a text is too deep, too large or too slow to judge for one of our own checks, it has not
    passed, without an error.
    """
    return [_judge(check, output, item, time_limit) for check in checks]


def check_prefix_all(
    checks: Sequence[Check],
    output: object,
    item: Item,
    time_limit: float = TIME_LIMIT,
    late: set[str] | None = None,
) -> tuple[Check, PrefixVerdict] | None:
    """Return the first check that no continuation can pass, with its prefix verdict, or None.

    A check that raises, takes too long or returns anything else is skipped: its verdict on the
    whole text counts.
    `late` collects the names of those that took too long; each warns once and is skipped from then
    on.
    """
    for check in checks:
        verdict = _on_prefix(
            check, PrefixVerdict, check.check_prefix, output, item, time_limit, late
        )
        if verdict is None:
            continue
        if verdict.status is PrefixStatus.IMPOSSIBLE:
            return check, verdict
    return None


def required_by(
    checks: Sequence[Check],
    output: object,
    item: Item,
    time_limit: float = TIME_LIMIT,
    late: set[str] | None = None,
) -> list[RequiredText]:
    """Return what the output must still contain, of each check that can say it.

    Skipped checks and `late` are as in `check_prefix_all`.
    """
    found: list[RequiredText] = []
    for check in checks:
        required = _on_prefix(
            check, RequiredText, check.required_text, output, item, time_limit, late
        )
        if required is not None and required.texts:
            found.append(required)
    return found


def _on_prefix(
    check: Check,
    wanted: type[Answer],
    method: Callable[[object, Item], Any],
    output: object,
    item: Item,
    limit: float,
    late: set[str] | None,
) -> Answer | None:
    """Call a check's method on a prefix; None where it raises, is late, or was late before.

    None also where it returns anything but what is `wanted`.
    """
    if late is not None and check.name in late:
        return None
    try:
        limit = left(limit)
    except TimeoutError:  # of all checks together, so this one is not late
        return None
    try:
        answer = _call(check, method, output, item, limit)
        return answer if isinstance(answer, wanted) else None
    except TimeoutError:
        if late is not None:
            late.add(check.name)
            warnings.warn(
                f"The check '{check.name}' must judge a prefix within "
                f"{counted(limit, 'seconds', 'g')}, and did "
                "not. From now on it judges whole outputs only. Make its prefix function faster.",
                stacklevel=2,
            )
    except USER_ERRORS:  # `judge` will report them
        pass
    return None


def _judge(check: Check, output: object, item: Item, time_limit: float) -> Verdict:
    try:
        time_limit = left(time_limit)
    except TimeoutError as error:
        return replace(_error(check, str(error)), out_of_time=True)
    try:
        verdict = _call(check, check.judge, output, item, time_limit)
    except USER_ERRORS as error:
        return _raised(check, error, time_limit)
    if not isinstance(verdict, Verdict):
        return _error(check, f"The check must return a Verdict, got {type(verdict).__name__}.")
    if verdict.error:  # it could not judge, whatever else the verdict says
        return replace(verdict, passed=False, score=0.0)
    if not (math.isfinite(verdict.score) and 0 <= verdict.score <= 1):
        return _error(check, f"A score must be in [0, 1], got {verdict.score!r}.")
    return verdict


def _raised(check: Check, error: Exception | SystemExit, time_limit: float) -> Verdict:
    """Return the verdict of a check that raised: not passed where the text is to blame."""
    name = type(error).__name__
    if _is_trusted(check):
        # Our own checks are refused when they are made if they cannot judge, so these errors come
        # from the text: it is too deep, too large, or no pattern ends on it. Another may pass.
        if isinstance(error, TEXT_ERRORS) and not is_over():
            said = f": {error}" if str(error) and not isinstance(error, TimeoutError) else ""
            message = f"Write a simpler text: '{check.name}' cannot judge this one ({name}{said})."
            return Verdict(check.name, False, 0.0, message)
        mend = ""
    else:
        mend = ". If the text is to blame, catch it and raise `ostinato.checks.Retry`."
    if isinstance(error, TimeoutError):
        if is_over():
            return _error(check, OVER)
        limit = counted(time_limit, "seconds", "g")
        return _error(check, f"The check must judge within {limit}, and did not.")
    return _error(check, f"The check raised {name}: {error}{mend}")


def _error(check: Check, sentence: str) -> Verdict:
    return Verdict(check.name, False, 0.0, error=sentence)


def _call(
    check: Check, method: Callable[[object, Item], Any], output: object, item: Item, limit: float
) -> Any:
    # Our own checks are fast and limit their own time; a thread would cost more than they do.
    if _is_trusted(check):
        return method(output, item)
    return limited(lambda: method(output, item), limit)


def _is_trusted(check: Check) -> bool:
    return getattr(check, "trusted", False)


class _Worker:
    """A thread that makes calls. A daemon, so that a call that hangs does not keep the program."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self.results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        threading.Thread(target=self._work, name="ostinato-check", daemon=True).start()

    def _work(self) -> None:
        while (call := self.calls.get()) is not None:
            try:
                self.results.put((call(), None))
            except BaseException as error:
                self.results.put((None, error))


_idle: list[_Worker] = []
if hasattr(os, "register_at_fork"):  # not on Windows; a child process has none of the threads
    os.register_at_fork(after_in_child=_idle.clear)


def limited(call: Callable[[], Any], seconds: float) -> Any:
    """Return the call's result. Raises `TimeoutError` after `seconds`; the call runs on alone."""
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    worker.calls.put(call)
    try:
        result, error = worker.results.get(timeout=seconds)
    except Exception:  # queue.Empty
        worker.calls.put(None)  # ends the thread if the call ever returns
        raise TimeoutError(f"no answer within {counted(seconds, 'seconds', 'g')}") from None
    _idle.append(worker)
    if error is not None:
        raise error
    return result
