"""The scheduler: generates the answers of many requests side by side, with one model in one thread.

While there are requests it runs `Loop(Lanes(Decode(…)))` over them; new ones join the batch at the
next token. Knows no driver of its own, and no connection.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from hashlib import blake2b
from typing import cast

from ostinato.arguments import counted, require_choice
from ostinato.checks import Deadline
from ostinato.decode import Decode, TokenPrompt, llguidance_tokenizer
from ostinato.errors import InputError, ItemError, OstinatoError
from ostinato.loop import Arrivals, Lanes, LaneStep, Loop
from ostinato.models import LanguageModel
from ostinato.refine import SteeringContext, prepare, with_feedback
from ostinato.server.body_fields import RequestError
from ostinato.server.protocol import LANE_STRATEGIES, ApiRequest
from ostinato.server.request_plan import Defaults, RequestPlan, in_time, plan
from ostinato.server.request_queue import RequestQueue
from ostinato.server.requests import (
    CHECK_SECONDS,
    TIME_LIMIT,
    GenerationRequest,
    Sink,
    Token,
    TopLogprob,
)

COMPILE_FACTOR = 5.0
"""Compiling may take this many times `check_seconds`: it is wall-clock time, on a busy machine."""

log = logging.getLogger("ostinato.server")


class Scheduler:
    """Takes requests and generates their answers; `slots` are in the batch, `max_waiting` may wait.

    `model` is a model, or a function that loads one in the generating thread. The function is
    faster: torch keeps workers for each thread that has computed, and with two such threads they
    sleep and wake at every product. The checks of `defaults` are prepared in that thread, too;
    `InputError` names one that cannot judge.

    `check_seconds` is the time that all checks of one request may take: all others wait for them.
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
        self._queue = RequestQueue[GenerationRequest](max_waiting)
        self._check_seconds = check_seconds
        self._defaults = defaults or Defaults()
        strategy = self._defaults.strategy
        if strategy is not None:
            require_choice("The strategy of a served model", strategy.kind, LANE_STRATEGIES)
        self.computed = 0  # tokens run through the network after prompts, discarded ones included
        loaded = Future[LanguageModel]()
        self._thread = threading.Thread(
            # A daemon, so that a second Ctrl-C need not wait for the step in progress.
            target=self._run,
            args=(model, loaded),
            name="ostinato-serve",
            daemon=True,
        )
        self._thread.start()
        # Waits for the model, and raises what the thread raised.
        self.model = loaded.result()

    @property
    def longest(self) -> int:
        """The model's context: the maximum tokens of prompt and answer together."""
        return self.model.config.max_position_embeddings

    @property
    def ready_seconds(self) -> float:
        """The wall-clock limit for compiling the checks of a request, in seconds."""
        return COMPILE_FACTOR * self._check_seconds

    def submit(self, body: ApiRequest, sinks: Sequence[Sink]) -> list[GenerationRequest]:
        """Queue a request for each choice of a body; each sends its events to its own sink.

        Raises `RequestError` for a prompt that cannot be used, and if too many requests wait.
        """
        tokens = self._prompt_tokens(body, {})
        if len(tokens) >= self.longest:
            raise RequestError(
                400,
                f"The prompt must have fewer than {counted(self.longest, 'tokens')}, got "
                f"{len(tokens)}. "
                "Shorten it.",
                "messages" if body.chat else "prompt",
                "context_length_exceeded",
            )
        try:
            body.sampling.require_vocab(self.model.config.vocab_size)
        except InputError as error:
            raise RequestError(400, str(error), error.key) from None
        # The seed is in the answer, so that a client can ask for the same text again.
        seed = secrets.randbits(32) if body.seed is None else body.seed
        room = min(body.max_tokens, self.longest - len(tokens))
        compile_plan = partial(plan, body, self._defaults, self.model, room)
        compiled = in_time(compile_plan, self.ready_seconds)
        clock = Deadline(self._check_seconds)  # one for all choices of a body
        requests = [
            self._request(body, compiled, tokens, (seed, _content_key(tokens, number)), clock, sink)
            for number, sink in enumerate(sinks)
        ]
        self._queue.put(requests)
        return requests

    def close(self, *, at_once: bool = False, timeout: float = 10.0) -> None:
        """Take no more requests; end when those in progress are done, or at once.

        `timeout` is how long to wait for the thread, in seconds.
        """
        self._queue.close(at_once=at_once)
        self._thread.join(timeout)

    # Requests ---------------------------------------------------------------------------------

    def _request(
        self,
        body: ApiRequest,
        compiled: RequestPlan,
        tokens: Sequence[int],
        draws: tuple[int, str],
        clock: Deadline,
        sink: Sink,
    ) -> GenerationRequest:
        tokenizer = self.model.tokenizer
        end = min(tokenizer.eos_ids, default=None)
        return GenerationRequest(
            sampling=body.sampling,
            key=self._queue.new_key(),
            body=body,
            tokens=tokens,
            draws=draws,
            checks=compiled.checks,
            strategy=compiled.strategy,
            context=SteeringContext(tokenizer.continuation, end, compiled.checks, TIME_LIMIT),
            send=sink,
            clock=clock,
            columns=body.columns or {},
            constraint=compiled.constraint,
        )

    def _prompt_tokens(self, body: ApiRequest, edits: Mapping[str, object]) -> Sequence[int]:
        """Return the prompt's tokens. Feedback turns a completion into a chat."""
        tokenizer = self.model.tokenizer
        feedback = edits.get("feedback")
        prompt = body.prompt
        if isinstance(prompt, str) and not isinstance(feedback, Mapping):
            # Control tokens written out are read as such: a client writes the chat turns itself.
            try:
                tokenizer.require_known(prompt)
            except ItemError as error:
                raise RequestError(400, str(error), "prompt") from None
            tokens, start = tokenizer.encode_control(prompt), list(tokenizer.bos_ids)
            return tokens if start and tokens[: len(start)] == start else [*start, *tokens]
        if tokenizer.chat_template is None:
            raise RequestError(
                400,
                f"The model must have a chat template for messages, got {self.model.name!r}. Use "
                "/v1/completions.",
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
            return [*tokenizer.chat(messages), *tokenizer.continuation(body.prefill)]
        except InputError as error:
            raise RequestError(400, str(error), "messages") from None

    def _token_prompt(self, item: GenerationRequest, edits: Mapping[str, object]) -> TokenPrompt:
        tokens = self._prompt_tokens(item.body, edits) if edits else item.tokens
        return TokenPrompt(
            tokens,
            item.sampling,
            track_logprobs=self._tracked(item),
            top_logprobs=item.body.top_logprobs,
            constraint=item.constraint,
            draws=item.draws,
            limit=item.body.max_tokens,
        )

    def _tracked(self, request: GenerationRequest) -> list[int]:
        """Return the tokens to track; none for a strategy that inserts no required text."""
        if request.strategy is None or not request.strategy.checks_prefixes:
            return []
        with request.clock.running():
            return request.context.required_ids(request.columns)

    # The generating thread --------------------------------------------------------------------

    def _run(
        self,
        model: LanguageModel | Callable[[], LanguageModel],
        loaded: Future[LanguageModel],
    ) -> None:
        try:
            prepare(self._defaults.checks)
            loaded.set_result(self._open(model() if callable(model) else model))
        except BaseException as error:  # `__init__` raises it, in the caller's thread
            loaded.set_exception(error)
        else:
            self._serve()

    def _open(self, model: LanguageModel) -> LanguageModel:
        strategy = self._defaults.strategy
        # The operator's strategy acts on every request without one.
        if strategy is not None and strategy.masks:
            # A missing llguidance is found now, not at the first request.
            llguidance_tokenizer(model.tokenizer)
        self._start_decode(model)
        return model

    def _start_decode(self, model: LanguageModel) -> None:
        self.decode = Decode(
            model, self._token_prompt, slots=self.slots, prompt_edits=frozenset({"feedback"})
        )

    def _serve(self) -> None:
        """Generate whenever requests wait, until `close`."""
        while self._queue.wait():
            try:
                self._generate()
            except Exception as error:
                log.exception("Generation failed; the active requests end with an error.")
                # One bad request must not end the server.
                self._fail_active(error)

    def _generate(self) -> None:
        """Run the loop until no request is left."""
        lanes = Lanes(self.decode, Arrivals(self._queue.take), GenerationRequest.policy)
        for step in Loop(lanes):
            for key, lane in step.lanes.items():
                self._add_token(key, lane)
            for result in step.results:
                self._queue.active.pop(result.key).finish(result)

    def _add_token(self, key: str, lane: LaneStep) -> None:
        report = lane.report
        self.computed += int(str(report["computed"]))
        top = cast(Iterable[tuple[int, float]], report.get("top_logprobs", ()))
        top_logprobs = tuple(self._top_logprob(*pair) for pair in top)
        tokenizer, number = self.model.tokenizer, int(str(report["token"]))
        content = b"" if number in tokenizer.eos_ids else tokenizer.token_bytes(number)
        logprob = float(str(report["logprob"]))
        token = Token(str(report["text"]), content, logprob, top_logprobs)
        self._queue.active[key].add_token(token)

    def _top_logprob(self, token: int, logprob: float) -> TopLogprob:
        tokenizer = self.model.tokenizer
        return TopLogprob(tokenizer.shown(token), tokenizer.token_bytes(token), logprob)

    def _fail_active(self, error: Exception) -> None:
        """End the active requests with an error, and start over with empty slots."""
        public = isinstance(error, OstinatoError)
        sentence = str(error) if public else "The server failed. Its log has the error."
        self._queue.fail_active(sentence)
        # The old caches may be in any state after an exception.
        self._start_decode(self.model)


def _content_key(tokens: Sequence[int], number: int) -> str:
    """Return the key of a choice's random numbers: a hash of its prompt and number.

    So the same body with the same seed gets the same answer, whatever else is in the batch.
    """
    content = json.dumps([list(tokens), number]).encode()
    return blake2b(content, digest_size=12).hexdigest()
