"""How the texts of flows are written: a `TextWriter` for each model, checks and settings.

Knows no call.
"""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ostinato.loop import compute_mode

if TYPE_CHECKING:
    from ostinato.flow.hub import Hub
    from ostinato.loop import Check
    from ostinato.models import LanguageModel
    from ostinato.refine import TextWriter
    from ostinato.remote import Server

KEPT = 256
"""How many writers are kept: a flow may make its checks anew for every row."""


class Writers:
    """The writers that were last asked for, by what they are made of. For any thread."""

    def __init__(self, prepare: Callable[[tuple[Check, ...]], None], most: int = KEPT) -> None:
        self._prepare, self._most = prepare, most
        self._values: OrderedDict[object, TextWriter] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def of(
        self, model: LanguageModel | Server, checks: tuple[Check, ...], hub: Hub, **settings: Any
    ) -> TextWriter:
        """Return the writer of some settings: the same one for the same, as its lanes share a
        batch. Models of checks are loaded in the computing thread."""
        used = {name: value for name, value in settings.items() if value is not None}
        key = (id(model), tuple(map(_identity, checks)), repr(sorted(used.items())))

        def make() -> TextWriter:
            if computes(checks):
                hub.submit(lambda: self._prepare(checks))
            else:
                self._prepare(checks)
            return _new_writer(model, checks, used)

        return self.get(key, make)

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


class CheckModels:
    """Loads the models of checks. `modes` says how they compute; `use` sets recorded modes."""

    def __init__(self) -> None:
        self.modes: dict[str, str] = {}
        self._recorded: Mapping[str, str] = {}

    def use(self, modes: Mapping[str, str]) -> None:
        """Let each model compute in its recorded mode, once it is loaded."""
        self._recorded = modes

    def prepare(self, checks: tuple[Check, ...]) -> None:
        """Load what checks need to judge."""
        from ostinato.checks import BaseCheck
        from ostinato.refine import prepare

        prepare([each for each in checks if isinstance(each, BaseCheck)])
        for each in filter(_computes, checks):
            name = f"check {each.name} {getattr(each, 'model', '')}".rstrip()
            use = getattr(each, "use_compute_mode", None)
            if use is not None and name in self._recorded:
                use(self._recorded[name])
            if mode := compute_mode(each):
                self.modes[name] = mode


def computes(checks: tuple[Check, ...]) -> bool:
    """Whether a model of this process may judge. Loads none."""
    return any(map(_computes, checks))


def _computes(check: Check) -> bool:
    # A property of this name loads the model.
    return inspect.getattr_static(check, "compute_mode", None) is not None


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
