"""A flow behind the API: each request runs it, and gets what it returns. Knows no connection.

While there are requests it runs `Loop(Lanes(FlowLanes(…)))` over them in one thread; their texts
share one batch.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ostinato.arguments import require
from ostinato.errors import OstinatoError
from ostinato.flow import FlowFunction, FlowLanes, FlowSettings
from ostinato.journal import StopKind
from ostinato.loop import Arrivals, LaneResult, Lanes, Loop, Never, Policy
from ostinato.models import LanguageModel
from ostinato.server.body_fields import RequestError
from ostinato.server.protocol import ApiRequest
from ostinato.server.requests import Delta, Sink, Token
from ostinato.server.scheduler import ENDING

MESSAGES = "messages"
"""The parameter of a flow that gets the whole conversation."""

LONGEST = 1 << 17  # tokens that a request may ask for: the flow's own limits hold

log = logging.getLogger("ostinato.server")


@dataclass(eq=False, kw_only=True)
class FlowRequest:
    """A request that a flow answers: what `Answer` reads of it, and where its events go."""

    key: str
    arguments: dict[str, Any]
    send: Sink
    canceled: bool = False
    text: str = ""
    tokens: Sequence[int] = ()
    checks: tuple[object, ...] = ()
    draws: tuple[int, str] = (0, "")
    logprobs: list[Token] = field(default_factory=list)


class FlowScheduler:
    """Runs a flow for each request; `max_waiting` may wait for one of `in_progress` places.

    The flow has one parameter: `messages` gets the conversation, any other the last message of the
    user. It returns a text. `model` is that of calls which name none, or a function that loads it
    in the computing thread. Nothing is recorded, so a flow that asks a person is refused there.
    Raises `InputError` for a flow of other parameters.
    """

    longest = LONGEST
    ready_seconds = 15.0

    def __init__(
        self,
        flow: FlowFunction[..., Any],
        model: LanguageModel | Callable[[], LanguageModel],
        *,
        slots: int = 16,
        max_waiting: int = 64,
        in_progress: int = 256,
    ) -> None:
        names = flow.parameters
        require(
            len(names) == 1,
            f"The flow {flow.name}, to be served,",
            "a function of one parameter: messages, or the user's text",
            ", ".join(names) or "none",
        )
        self._flow, self._parameter = flow, names[0]
        self._slots, self._in_progress, self._max_waiting = slots, in_progress, max_waiting
        self._waiting: deque[FlowRequest] = deque()
        self._active: dict[str, FlowRequest] = {}
        self._numbers = count(1)
        self._changed = threading.Condition()
        self._closing = False
        self.computed = 0
        loaded = Future[LanguageModel]()
        self._thread = threading.Thread(
            target=self._run, args=(model, loaded), name="ostinato-serve", daemon=True
        )
        self._thread.start()
        self.model = loaded.result()  # raises what the thread raised

    def submit(self, body: ApiRequest, sinks: Sequence[Sink]) -> list[FlowRequest]:
        """Queue a request. Raises `RequestError` for fields that a flow cannot follow."""
        _refuse(body)
        requests = [
            FlowRequest(key=str(next(self._numbers)), arguments=self._arguments(body), send=sink)
            for sink in sinks
        ]
        with self._changed:
            if self._closing:
                raise RequestError(503, ENDING)
            if len(self._waiting) + len(requests) > self._max_waiting:
                raise RequestError(
                    429,
                    f"At most {self._max_waiting} requests can wait, got {len(requests)} more with "
                    f"{len(self._waiting)} waiting. Try again later.",
                    code="too_many_requests",
                )
            self._waiting += requests
            self._changed.notify_all()
        return requests

    def close(self, *, at_once: bool = False, timeout: float = 10.0) -> None:
        """Take no more requests; end when those in progress are done, or at once."""
        with self._changed:
            self._closing = True
            if at_once:
                for request in [*self._waiting, *self._active.values()]:
                    request.canceled = True
            self._changed.notify_all()
        self._thread.join(0 if at_once else timeout)

    def _arguments(self, body: ApiRequest) -> dict[str, Any]:
        if isinstance(body.prompt, str):
            messages = [{"role": "user", "content": body.prompt}]
        else:
            messages = [dict(message) for message in body.prompt]
        if self._parameter == MESSAGES:
            return {MESSAGES: messages}
        texts = [each["content"] for each in messages if each["role"] == "user"]
        if not texts:
            raise RequestError(400, "'messages' must have one of the user, got none.", MESSAGES)
        return {self._parameter: texts[-1]}

    # The computing thread ---------------------------------------------------------------------

    def _run(
        self,
        model: LanguageModel | Callable[[], LanguageModel],
        loaded: Future[LanguageModel],
    ) -> None:
        try:
            opened = model() if callable(model) else model
        except BaseException as error:
            loaded.set_exception(error)
            return
        settings = FlowSettings(model=opened)
        loaded.set_result(opened)
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._waiting:
                    return
            self._serve(settings)

    def _serve(self, settings: FlowSettings) -> None:
        """Run flows until no request is left."""
        lanes = FlowLanes(
            self._flow,
            settings=settings,
            text_slots=self._slots,
            in_progress=self._in_progress,
            keep_failed=False,
        )
        try:
            for step in Loop(Lanes(lanes, Arrivals(self._take), Policy(each=Never()))):
                for result in step.results:
                    self._finish(result)
        except Exception as error:
            log.exception("Flows failed; the active requests end with an error.")
            public = isinstance(error, OstinatoError)
            sentence = str(error) if public else "The server failed. Its log has the error."
            for request in self._active.values():
                request.send(RequestError(500, sentence))
            self._active.clear()
        finally:
            self.computed += lanes.tokens
            lanes.close()

    def _finish(self, result: LaneResult) -> None:
        request = self._active.pop(result.key)
        if result.stopped.kind is StopKind.ERROR:
            log.error("The flow %s failed: %s", self._flow.name, result.stopped.sentence)
            request.send(RequestError(500, "The flow failed. The server's log has the error."))
            return
        request.text = result.output if isinstance(result.output, str) else str(result.output)
        request.send(Delta(request.text))
        request.send(result)

    def _take(self) -> tuple[str, dict[str, Any]] | None:
        """Make the request that has waited longest active; None if none waits."""
        with self._changed:
            while self._waiting:
                request = self._waiting.popleft()
                if not request.canceled:
                    self._active[request.key] = request
                    return request.key, request.arguments
        return None


def _refuse(body: ApiRequest) -> None:
    """Raise `RequestError` for what a flow decides itself."""
    given = {
        "checks": body.checks,
        "strategy": body.strategy,
        "response_format": body.response_format,
        "columns": body.columns,
        "logprobs": body.logprobs or None,
        "continue_final_message": body.prefill or None,
    }
    for name, value in given.items():
        if value is not None:
            raise RequestError(
                400, f"{name!r} must be left out: a flow answers, and decides it itself.", name
            )
