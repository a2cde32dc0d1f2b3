"""The desk: orders of many, written side by side in one thread by one model, until each passes.

No driver of its own: while there are orders, it runs `Loop(Lanes(Decode(…)))` over those that have
come, and those that come meanwhile join the batch.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from hashlib import blake2b
from itertools import count
from typing import cast

from ostinato.checks import Deadline, required_by
from ostinato.decode import Decode, SamplingParams, TokenPrompt, reader
from ostinato.errors import InputError, OstinatoError
from ostinato.loop import Lanes, LaneStep, Loop, Steps
from ostinato.models import LanguageModel
from ostinato.refine import SteeringContext, prepare, with_feedback
from ostinato.server.body_fields import RequestError
from ostinato.server.protocol import LANE_STRATEGIES, ApiRequest
from ostinato.server.request_plan import Defaults, RequestPlan, in_time, plan
from ostinato.server.requests import (
    CHECK_SECONDS,
    TIME_LIMIT,
    Finished,
    GenerationRequest,
    RequestCondition,
    Sink,
    Token,
    TopLogprob,
    answer_request,
    judge_request,
)

READY = 5.0  # times what checks may compute: this is by the clock on the wall

log = logging.getLogger("ostinato.server")


class Scheduler:
    """Takes orders and has them written. `slots` are written side by side, `waiting` may wait.

    `model` is what writes, or a function that loads it in the thread that writes. The latter is
    faster: torch keeps workers for each thread that has computed, and where there are two such
    threads, their workers sleep and wake at every product.
    The checks of `defaults` are prepared there too; `InputError` names the one that cannot judge.
    `check_seconds` is how long the checks of a request may take in all: the others wait for them.
    """

    decode: Decode

    def __init__(
        self,
        model: LanguageModel | Callable[[], LanguageModel],
        *,
        slots: int = 16,
        max_waiting: int = 64,
        defaults: Defaults | None = None,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self.slots = slots
        self._waiting = max_waiting
        self._check_seconds = check_seconds
        self._defaults = defaults or Defaults()
        strategy = self._defaults.strategy
        if strategy is not None and strategy.kind not in LANE_STRATEGIES:
            raise InputError(
                f"The strategy of a served model must be one of {', '.join(LANE_STRATEGIES)}, got "
                f"{strategy.kind!r}. Name one."
            )
        self._orders: deque[GenerationRequest] = deque()
        self._active: dict[str, GenerationRequest] = {}
        self._numbers = count(1)
        self._changed = threading.Condition()
        self._closing = self._at_once = False
        self.computed = 0  # tokens run through the network after prompts, those in vain too
        loaded = Future[LanguageModel]()
        self._thread = threading.Thread(
            target=self._run, args=(model, loaded), name="ostinato-serve", daemon=True
        )
        self._thread.start()
        self.model = loaded.result()

    @property
    def longest(self) -> int:
        """The tokens that prompt and answer can have together."""
        return self.model.config.max_position_embeddings

    @property
    def ready_seconds(self) -> float:
        """How long the checks of a request may take to be compiled, however busy the machine is."""
        return READY * self._check_seconds

    def request(self, request: ApiRequest, tells: Sequence[Sink]) -> list[GenerationRequest]:
        """Take an order for each choice that is asked for; each is told by its own function.

        Raises `RequestError` for a prompt that cannot be written from, and where too many wait.
        """
        tokens = self._tokens(request, {})
        if len(tokens) >= self.longest:
            raise RequestError(
                400,
                f"The prompt must have fewer than {self.longest} tokens, got {len(tokens)}. "
                "Shorten it.",
                "messages" if request.chat else "prompt",
                "context_length_exceeded",
            )
        seed = secrets.randbits(32) if request.seed is None else request.seed
        room = min(request.max_tokens, self.longest - len(tokens))
        ready = partial(plan, request, self._defaults, self.model, room)
        planned = in_time(ready, self.ready_seconds)
        clock = Deadline(self._check_seconds)
        made = [
            self._order(request, planned, tokens, (seed, _content(tokens, number)), clock, tell)
            for number, tell in enumerate(tells)
        ]
        with self._changed:
            if self._closing:
                raise RequestError(503, "The server is ending. Ask another one.")
            waiting = sum(not order.canceled for order in self._orders)
            if waiting + len(made) > self._waiting:
                raise RequestError(
                    429,
                    f"At most {self._waiting} orders can wait, and do. Ask again later.",
                    code="too_many_orders",
                )
            self._orders += made
            self._changed.notify_all()
        return made

    def close(self, *, at_once: bool = False, timeout: float = 10.0) -> None:
        """Take no more orders; end when those there are done, or at once."""
        with self._changed:
            self._closing = True
            self._at_once = self._at_once or at_once
            if self._at_once:
                for order in [*self._orders, *self._active.values()]:
                    order.canceled = True
            self._changed.notify_all()
        self._thread.join(timeout)

    # Orders -----------------------------------------------------------------------------------

    def _order(
        self,
        request: ApiRequest,
        planned: RequestPlan,
        tokens: Sequence[int],
        draws: tuple[int, str],
        clock: Deadline,
        tell: Sink,
    ) -> GenerationRequest:
        tokenizer = self.model.tokenizer
        end = min(tokenizer.eos_ids, default=None)
        return GenerationRequest(
            sampling=_sampling(request),
            key=f"{next(self._numbers)}",
            request=request,
            tokens=tokens,
            draws=draws,
            checks=planned.checks,
            strategy=planned.strategy,
            words=SteeringContext(tokenizer.encode, end, planned.checks, TIME_LIMIT),
            send=tell,
            clock=clock,
            columns=request.columns or {},
            constraint=planned.constraint,
        )

    def _tokens(self, request: ApiRequest, edits: Mapping[str, object]) -> Sequence[int]:
        tokenizer = self.model.tokenizer
        feedback = edits.get("feedback")
        prompt = request.prompt
        if isinstance(prompt, str) and not isinstance(feedback, Mapping):
            tokens, first = tokenizer.encode_control(prompt), list(tokenizer.bos_ids)
            return tokens if first and tokens[: len(first)] == first else [*first, *tokens]
        if tokenizer.chat_template is None:
            raise RequestError(
                400,
                f"The model {self.model.name!r} has no chat template. Ask for a completion.",
                "messages",
            )
        messages = (
            [{"role": "user", "content": prompt}]
            if isinstance(prompt, str)
            else [dict(message) for message in prompt]
        )
        if isinstance(feedback, Mapping):
            messages = with_feedback(messages, feedback)
        try:
            return [*tokenizer.chat(messages), *tokenizer.encode(request.begun)]
        except InputError as error:
            raise RequestError(400, str(error), "messages") from None

    def _prompt(self, item: object, edits: Mapping[str, object]) -> TokenPrompt:
        assert isinstance(item, GenerationRequest)
        tokens = self._tokens(item.request, edits) if edits else item.tokens
        return TokenPrompt(
            tokens,
            item.sampling,
            track_logprobs=self._watched(item),
            top_logprobs=item.request.top_logprobs,
            constraint=item.constraint,
            draws=item.draws,
            limit=item.request.max_tokens,
        )

    def _watched(self, order: GenerationRequest) -> list[int]:
        """Return the first tokens of what the text must say, to see where it is likeliest."""
        if order.strategy is None or not order.strategy.checks_prefixes:
            return []
        words = order.words
        with order.clock.running():
            wanted = required_by(order.checks, "", order.columns, TIME_LIMIT, words.late)
        texts = [spaced for one in wanted for text in one.texts for spaced in (text, f" {text}")]
        return sorted({words.encode(text)[0] for text in texts})

    # The thread -------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[str, object]]:
        """Return what gives out the orders that wait; after its end it may give out more."""
        return _Arrivals(self)

    def take(self) -> GenerationRequest | None:
        """Take the order that has waited longest, if there is one."""
        with self._changed:
            while self._orders:
                order = self._orders.popleft()
                if not order.canceled:
                    self._active[order.key] = order
                    return order
                order.send(
                    Finished(error=RequestError(503, "The server is ending. Ask another one."))
                )
        return None

    def _run(
        self,
        model: LanguageModel | Callable[[], LanguageModel],
        loaded: Future[LanguageModel],
    ) -> None:
        try:
            prepare(self._defaults.checks)
            loaded.set_result(self._open(model() if callable(model) else model))
        except BaseException as error:
            loaded.set_exception(error)
        else:
            self._work()

    def _open(self, model: LanguageModel) -> LanguageModel:
        strategy = self._defaults.strategy
        if strategy is not None and strategy.masks:
            reader(model.tokenizer)  # where its extra is not there, that is told now
        self._decode_with(model)
        return model

    def _decode_with(self, model: LanguageModel) -> None:
        self.decode = Decode(
            model, self._prompt, slots=self.slots, prompt_edits=frozenset({"feedback"})
        )

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._orders and not self._closing:
                    self._changed.wait()
                if not self._orders:
                    return
            try:
                self._write()
            except Exception as error:
                log.exception("The orders in work were broken off.")
                self._break_off(error)

    def _write(self) -> None:
        """Write until no order is left."""
        lanes = Lanes(
            self.decode, self, each=RequestCondition(), judge=judge_request, on_stop=answer_request
        )
        for step in Loop(lanes, until=Steps(1 << 62)):
            for key, lane in step.lanes.items():
                self._note(key, lane)
            for key, row in step.results:
                self._active.pop(key).finish(row)

    def _note(self, key: str, lane: LaneStep) -> None:
        report = lane.report
        self.computed += int(str(report["computed"]))
        told = cast(Iterable[tuple[int, float]], report.get("top_logprobs", ()))
        likeliest = tuple(self._likely(*one) for one in told)
        token = Token(str(report["text"]), float(str(report["logprob"])), likeliest)
        self._active[key].note(token)

    def _likely(self, token: int, logprob: float) -> TopLogprob:
        tokenizer = self.model.tokenizer
        return TopLogprob(tokenizer.shown(token), tokenizer.token_bytes(token), logprob)

    def _break_off(self, error: Exception) -> None:
        said = str(error) if isinstance(error, OstinatoError) else "Something broke; see its log."
        for key, order in list(self._active.items()):
            order.send(Finished(error=RequestError(500, said)))
            del self._active[key]
        self._decode_with(self.model)


class _Arrivals:
    """An iterator over orders that have come; asked again later, it may have more."""

    def __init__(self, desk: Scheduler) -> None:
        self._desk = desk

    def __iter__(self) -> _Arrivals:
        return self

    def __next__(self) -> tuple[str, object]:
        order = self._desk.take()
        if order is None:
            raise StopIteration
        return order.key, order


def _sampling(request: ApiRequest) -> SamplingParams:
    try:
        return SamplingParams(**request.sampling)  # type: ignore[arg-type]
    except InputError as error:
        raise RequestError(400, str(error), error.key or None) from None


def _content(tokens: Sequence[int], number: int) -> str:
    """Return the key of an answer's random numbers: its prompt and which choice it is."""
    content = json.dumps([list(tokens), number]).encode()
    return blake2b(content, digest_size=12).hexdigest()
