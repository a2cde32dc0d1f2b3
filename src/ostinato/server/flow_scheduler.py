"""A flow behind the API: each request runs it, and gets what it returns. Knows no connection.

While there are requests it runs `Loop(Lanes(FlowLanes(…)))` over them in one thread; their texts
share one batch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from ostinato.arguments import require
from ostinato.errors import OstinatoError
from ostinato.flow import FlowFunction, FlowLanes, FlowSettings
from ostinato.journal import StopKind
from ostinato.loop import Arrivals, LaneResult, Lanes, Loop, Never, Policy
from ostinato.models import LanguageModel
from ostinato.server.body_fields import RequestError
from ostinato.server.protocol import ApiRequest
from ostinato.server.request_queue import RequestQueue
from ostinato.server.requests import Delta, Sink, Token

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
        self._slots, self._in_progress = slots, in_progress
        self._queue = RequestQueue[FlowRequest](max_waiting)
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
            FlowRequest(key=self._queue.new_key(), arguments=self._arguments(body), send=sink)
            for sink in sinks
        ]
        self._queue.put(requests)
        return requests

    def close(self, *, at_once: bool = False, timeout: float = 10.0) -> None:
        """Take no more requests; end when those in progress are done, or at once."""
        self._queue.close(at_once=at_once)
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
        while self._queue.wait():
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
            self._queue.fail_active(sentence)
        finally:
            self.computed += lanes.tokens
            lanes.close()

    def _finish(self, result: LaneResult) -> None:
        request = self._queue.active.pop(result.key)
        if result.stopped.kind is StopKind.ERROR:
            log.error("The flow %s failed: %s", self._flow.name, result.stopped.sentence)
            request.send(RequestError(500, "The flow failed. The server's log has the error."))
            return
        request.text = result.output if isinstance(result.output, str) else str(result.output)
        request.send(Delta(request.text))
        request.send(result)

    def _take(self) -> tuple[str, dict[str, Any]] | None:
        taken = self._queue.take()
        return None if taken is None else (taken[0], taken[1].arguments)


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
