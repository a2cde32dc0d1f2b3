"""How the texts of flows are written: a `TextWriter` for each model, checks and settings.

Knows no call.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ostinato.flow.task import FlowTask
    from ostinato.loop import Check
    from ostinato.refine import TextWriter

KEPT = 256
"""How many writers are kept: a flow may make its checks anew for every row."""


class Writers:
    """The writers that were last asked for, by what they are made of. For any thread."""

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._values: OrderedDict[object, TextWriter] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: object, make: Callable[[], TextWriter]) -> TextWriter:
        """Return the writer of a key; one that is not kept is made."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        made = make()  # without the lock: it may wait for another thread
        with self._lock:
            made = self._values.setdefault(key, made)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return made


def writer_of(
    task: FlowTask, checks: tuple[Check, ...], *, model: Any, **settings: Any
) -> TextWriter:
    """Return the writer of some settings: the same one for the same, as its lanes share a batch."""
    shared, hub = task.settings, task.hub
    used = {name: value for name, value in settings.items() if value is not None}
    opened = shared.opened(model, hub)
    key = (id(opened), tuple(map(_identity, checks)), repr(sorted(used.items())))

    def make() -> TextWriter:
        writer = _new_writer(opened, checks, used)
        if any(hasattr(each, "compute_mode") for each in checks):
            hub.submit(lambda: prepare_checks(checks))
        else:
            prepare_checks(checks)
        return writer

    return shared.writers.get(key, make)


def prepare_checks(checks: tuple[Check, ...]) -> None:
    """Load what checks need to judge."""
    from ostinato.checks import BaseCheck
    from ostinato.refine import prepare

    prepare([each for each in checks if isinstance(each, BaseCheck)])


def _identity(check: Check) -> object:
    """Return what equal checks have in common."""
    try:
        hash(check)
    except TypeError:
        return id(check)
    return check


def _new_writer(model: Any, checks: tuple[Check, ...], settings: dict[str, Any]) -> TextWriter:
    from ostinato.refine import TextWriter, strategy_of

    strategy = strategy_of(settings.pop("strategy", None))
    return TextWriter(model=model, checks=checks, strategy=strategy, **settings)
