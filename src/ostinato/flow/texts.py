"""The texts of many flows: one batch of lanes for each model, which calls join at the next token.

Steps in the computing thread. Knows no flow: a request is a prompt, a writer and a key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ostinato.journal import StopKind, Stopped
from ostinato.loop import (
    Action,
    Arrivals,
    GiveUp,
    History,
    Lanes,
    LaneStep,
    Policy,
    Predicate,
    Step,
    compute_mode,
)
from ostinato.refine import PROMPT_EDITS, PromptOf, Row, TextWriter
from ostinato.remote import Server

if TYPE_CHECKING:
    from ostinato.decode import TokenPrompt

Watch = Callable[[str], object]
"""Gets a text as it grows, whole each time: a part of it may have been taken back.

A sentence that it returns ends the text, and says why.
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class TextRequest(Mapping[str, object]):
    """A text to write: its random numbers depend on `key` and the seed alone.

    It is the mapping of its columns, which checks read.
    """

    key: str
    writer: TextWriter
    prompt: PromptOf
    columns: Row
    watch: Watch | None = None
    ended: list[str] = field(default_factory=list, init=False)  # what `watch` has returned

    def __getitem__(self, name: str) -> object:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def token_prompt(self, edits: Mapping[str, object]) -> TokenPrompt:
        """Return the prompt with its own sampling and limit: others share the batch."""
        made = self.writer.token_prompt(self.prompt(self.columns, edits), self.columns)
        writer = self.writer
        return replace(made, sampling=writer.sampling, limit=writer.max_new_tokens)


class _Batch:
    """The lanes of one model; `process` makes them, again after an exception."""

    def __init__(self, process: Callable[[], Any], seed: int) -> None:
        self._process, self._seed = process, seed
        self._waiting: deque[TextRequest] = deque()
        self._active: dict[str, tuple[TextRequest, Future[Any]]] = {}
        self.lanes: Lanes | None = None
        self.tokens = 0

    @property
    def busy(self) -> bool:
        """Whether a text is being written, or waits."""
        return bool(self._active)

    def add(self, request: TextRequest, future: Future[Any]) -> None:
        self._active[request.key] = request, future
        self._waiting.append(request)

    def _take(self) -> tuple[str, TextRequest] | None:
        if not self._waiting:
            return None
        request = self._waiting.popleft()
        return request.key, request

    def step(self) -> int:
        """Advance every text by a token, and hand over those that are done; return how many."""
        try:
            if self.lanes is None:
                self.lanes = Lanes(self._process(), Arrivals(self._take), _policy, seed=self._seed)
            report = self.lanes.step()
        except Exception as error:
            self._fail(error)
            return 1
        for key, step in report["lanes"].items():  # type: ignore[attr-defined]
            self._show(key, step)
        self.tokens += int(report.get("computed", 0))  # type: ignore[call-overload]
        finished = self.lanes.take_finished()
        for result in finished:
            _, future = self._active.pop(result.key)
            future.set_result(result)
        return len(finished)

    def _show(self, key: str, step: LaneStep) -> None:
        request, _ = self._active[key]
        # A lane that is done has left its slot; its result has the text.
        if request.watch is not None and self.lanes is not None and step.stopped is None:
            why = request.watch(str(self.lanes.process.output(key)))
            if isinstance(why, str) and why:
                request.ended.append(why)

    def _fail(self, error: Exception) -> None:
        """End the texts in work with an error, and start over with empty slots."""
        active, self._active = list(self._active.values()), {}
        self._waiting.clear()
        close = getattr(getattr(self.lanes, "process", None), "close", None)
        self.lanes = None  # the caches may be in any state
        if close is not None:
            close()
        for _, future in active:
            future.set_exception(error)

    def close(self) -> None:
        """End all requests to a server."""
        close = getattr(getattr(self.lanes, "process", None), "close", None)
        if close is not None:
            close()


class Texts:
    """The batches of all models that flows use; `slots` is how many texts each advances at once."""

    def __init__(self, slots: int, seed: int) -> None:
        self._slots, self._seed = slots, seed
        self._batches: dict[object, _Batch] = {}
        self._modes: Mapping[str, str] = {}  # recorded ones, by the model's name
        self._models: dict[str, Any] = {}  # lane processes of models in this process, by name

    @property
    def busy(self) -> bool:
        """Whether a text is being written."""
        return any(batch.busy for batch in self._batches.values())

    @property
    def tokens(self) -> int:
        """How many tokens were computed so far."""
        return sum(batch.tokens for batch in self._batches.values())

    def add(self, request: TextRequest, future: Future[Any]) -> None:
        """Let a text join its batch."""
        writer = request.writer
        key = self._key(writer)
        batch = self._batches.get(key)
        if batch is None:
            batch = _Batch(lambda: self._process(writer), self._seed)
            self._batches[key] = batch
        batch.add(request, future)

    def step(self) -> int:
        """Advance all texts by a token; return how many are done."""
        return sum(batch.step() for batch in self._batches.values() if batch.busy)

    def close(self) -> None:
        """End all requests to servers."""
        for batch in self._batches.values():
            batch.close()

    @property
    def modes(self) -> dict[str, str]:
        """How each model of this process computes that has written, by its name."""
        return {name: compute_mode(process) for name, process in self._models.items()}

    def use_modes(self, modes: Mapping[str, str]) -> None:
        """Let each model compute in its recorded mode, once it is loaded."""
        self._modes = modes

    def _key(self, writer: TextWriter) -> object:
        model, strategy = writer.model, writer.strategy
        if isinstance(model, Server):  # a request's settings are those of its lanes
            settings = (writer.max_new_tokens, repr(writer.sampling))
            return (model, *settings, strategy.checks_prefixes)
        # A group of lanes belongs to one strategy.
        return (id(model), id(writer) if strategy.lanes > 1 else None)

    def _process(self, writer: TextWriter) -> Any:
        from ostinato.decode import Decode
        from ostinato.inference import in_compute_mode

        if isinstance(writer.model, Server):
            return writer.server_lanes(_server_prompt, _tracked_texts, self._slots)
        model, grouped = writer.model, writer.strategy.lanes > 1
        mode = self._modes.get(model.name)
        decode = Decode(
            model if mode is None else in_compute_mode(model, mode),
            _token_prompt,
            slots=max(self._slots, writer.strategy.lanes),
            prompt_edits=PROMPT_EDITS,
            limit=writer.max_new_tokens if grouped else None,  # else each request has its own
        )
        self._models[model.name] = decode
        return writer.process(decode) if grouped else decode


def _policy(request: TextRequest) -> Policy:
    policy = request.writer.policy()
    if request.watch is None:
        return policy

    def stop(step: Step) -> Stopped | None:
        ended = request.ended
        return Stopped(StopKind.PERSON, ended[0], "watch") if ended else None

    def on_stop(stopped: Stopped, history: History) -> Action:
        return GiveUp(request.ended[0]) if request.ended else policy.on_stop(stopped, history)

    return replace(policy, each=Predicate(stop) | policy.condition, on_stop=on_stop)


def _token_prompt(request: TextRequest, edits: Mapping[str, object]) -> TokenPrompt:
    return request.token_prompt(edits)


def _server_prompt(request: TextRequest, edits: Mapping[str, object]) -> Any:
    return request.writer.server_prompt(request.prompt(request.columns, edits))


def _tracked_texts(request: TextRequest) -> list[str]:
    return request.writer.tracked_texts(request.columns)
