"""One flow in progress: a thread that runs its function until it returns, fails or must wait."""

from __future__ import annotations

import contextvars
import copy
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ostinato.errors import Unanswered
from ostinato.flow.frames import HERE, Frame
from ostinato.flow.hub import Hub, Suspended
from ostinato.flow.limits import add_to
from ostinato.flow.record import FlowRecord
from ostinato.flow.writers import CheckModels, Writers
from ostinato.journal import RunSession

if TYPE_CHECKING:
    from ostinato.flow.flow_function import FlowFunction
    from ostinato.models import LanguageModel
    from ostinato.remote import Server

Status = Literal["new", "running", "returned", "failed", "waiting", "ended"]


class FlowTask:
    """A flow with its arguments, under a key that is unique in its run.

    `settings` are those of the run that calls find here: the model, the seed.
    """

    def __init__(
        self,
        flow: FlowFunction[..., Any],
        arguments: Mapping[str, object],
        *,
        key: str,
        prefix: str,
        hub: Hub,
        settings: FlowSettings,
    ) -> None:
        self.flow, self.arguments = flow, arguments
        self.key, self.prefix = key, prefix
        self.hub, self.settings = hub, settings
        self.status: Status = "new"
        self.value: object = None
        self.error: BaseException | None = None
        self.spent: dict[str, float] = {}
        self.unanswered: Unanswered | None = None
        self.record = FlowRecord(None, prefix)
        self._lock = threading.Lock()

    @property
    def session(self) -> RunSession | None:
        """What records the run."""
        return self.record.session

    def start(self, session: RunSession | None) -> None:
        """Run the flow in a thread of its own; what is recorded is not made again."""
        self.status, self.error, self.unanswered = "running", None, None
        self.spent = {}
        self.record = FlowRecord.of(session, self.prefix)
        self.hub.began()
        # A daemon: a step that hangs must not keep the program alive.
        threading.Thread(target=self._run, name=f"flow {self.key}", daemon=True).start()

    def _run(self) -> None:
        try:
            self.value = contextvars.Context().run(self._called)
            self.status = "returned"
        except Suspended:
            self.status = "ended" if self.unanswered is None else "waiting"
        except BaseException as error:
            self.error, self.status = error, "failed"
        finally:
            self.hub.ended()

    def _called(self) -> object:
        # A copy: the function may change them, and is called again where it had to wait.
        return self.flow.execute(Frame(self), copy.deepcopy(dict(self.arguments)))

    def count(self, spent: Mapping[str, float]) -> None:
        """Add what a call has spent."""
        with self._lock:
            add_to(self.spent, spent)

    def suspend(self, error: Unanswered) -> Suspended:
        """Remember the question that the flow waits for; return what unwinds it."""
        self.unanswered = error
        return Suspended()

    @property
    def place_of_error(self) -> str:
        """Where in the user's code the flow has failed: file and line."""
        own = [] if self.error is None else _own(traceback.extract_tb(self.error.__traceback__))
        return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def own_traceback(error: BaseException) -> str:
    """Return the traceback of an exception that a flow raised, without the frames of Ostinato."""
    told = traceback.TracebackException.from_exception(error)
    each: traceback.TracebackException | None = told
    while each is not None:
        each.stack = traceback.StackSummary.from_list(_own(each.stack))
        each = each.__cause__ or each.__context__
    return "".join(told.format()).rstrip()


def _own(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Return the frames of the user's code: below that which runs a flow, and not of Ostinato."""
    runs = [number for number, each in enumerate(frames) if each.filename == __file__]
    below = frames[runs[-1] if runs else 0 :]
    return [each for each in below if not each.filename.startswith(str(Path(HERE).parent))]


class FlowSettings:
    """What the calls of all flows of a run share: the model that they use by default, the seed.

    `load` returns the model of a name, or the server of an address.
    """

    def __init__(
        self,
        *,
        model: Any = "smollm2",
        seed: int = 0,
        load: Callable[[str], LanguageModel | Server] | None = None,
    ) -> None:
        self.model, self.seed = model, seed
        self._load = load
        self.check_models = CheckModels()
        self.writers = Writers(self.check_models.prepare)
        self._opened: dict[str, Any] = {}

    def opened(self, model: Any, hub: Hub) -> Any:
        """Return a model by its name, or a server; it is loaded in the computing thread."""
        from ostinato.refine import opened

        if not isinstance(model, str):
            return model
        if model not in self._opened:
            load = self._load or opened
            self._opened[model] = hub.submit(lambda: load(model))
        return self._opened[model]
