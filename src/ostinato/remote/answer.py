"""Answers of the OpenAI API, as real servers send them: whole, or event by event. Sends nothing.

Every server bends the API, so what is no text is passed over where it does no harm. A 200 that
holds no answer is an error that says what came.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ostinato.remote.api_error import ApiError, error_in, read_error
from ostinato.remote.dialect import Dialect
from ostinato.remote.event_stream import EventParser
from ostinato.remote.openai_api import Finish, StreamChunk, Usage
from ostinato.remote.retry import (
    OUT_OF_QUOTA,
    Adapted,
    RetryableError,
    ServerError,
    UnsupportedSetting,
    error_of,
    wait_demanded,
)

LONGEST_EXCERPT = 80  # characters of a response that is not an answer
LARGEST_LOGPROB = 1e9  # its absolute value
LONGEST_REFUSAL = 200  # characters of a model's refusal that are repeated

_FINISHES: Mapping[str, Finish] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn"), Finish.STOP),
    **dict.fromkeys(
        ("length", "max_tokens", "model_length", "model_context_window_exceeded"), Finish.LENGTH
    ),
    **dict.fromkeys(
        ("content_filter", "sensitive", "safety", "recitation", "prohibited_content"),
        Finish.CONTENT_FILTER,
    ),
    # Only where tools were called; some servers write it behind a text.
    **dict.fromkeys(("tool_calls", "function_call", "tool_use"), Finish.STOP),
}
_BROKEN = frozenset(
    {"error", "abort", "aborted", "cancelled", "network_error", "insufficient_system_resource"}
)
"""Reasons to finish that mean a failure of the server."""

_REASONING = ("reasoning_content", "reasoning", "thinking")


class NoAnswer(RetryableError):
    """A response that is not of the API."""


class AnswerReader:
    """Reads one answer. `tell` gets what a user should know once; `began`: it has a prefix."""

    def __init__(self, tell: Callable[[str], None], *, began: bool = False) -> None:
        self._tell = tell
        self._wrote = began
        self._heard = self._reasoned = self._called = False
        self._finish: Finish | None = None
        self._usage: Usage | None = None
        self._tools: list[str] = []
        self._refusal = ""
        self._other_parts: set[str] = set()
        self._half = StreamChunk()  # half a character, whose other half may follow

    @property
    def finished(self) -> bool:
        """Whether a reason to finish has come. More text may follow: some repeat it always."""
        return self._finish is not None

    def event(self, text: str) -> StreamChunk:
        """Return the text of a stream's event, empty where it brings none."""
        value = _parse(text)
        self._heard = True
        choice = self._choice(value, text)
        # No choice: the filter's results, the usage, a sign of life.
        chunk = StreamChunk() if choice is None else self._read(choice, text, streamed=True)
        chunk, self._half = join_characters(self._half, chunk)
        return chunk

    def end(self, *, done: bool) -> StreamChunk:
        """Return a stream's last chunk: why it finished, and the usage. `done`: it said `[DONE]`.

        Raises `RetryableError` for a stream that has broken off.
        """
        if self._finish is None and not (done and (self._wrote or self._called)):
            how = "before it was finished" if self._heard else "without a word"
            # llama-cpp-python breaks an answer off for a newer request, so fewer must run at once.
            raise RetryableError(
                f"It ended the answer {how}: its own log may say why.", overloaded=True
            )
        finish, detail = self._ending()
        chunk = StreamChunk(finish=finish, detail=detail, usage=self._usage)
        return join_characters(self._half, chunk)[0]

    def whole(self, text: str) -> StreamChunk:
        """Return a whole answer, which some servers send as a stream, asked for or not."""
        if _is_stream(text):
            return self._whole_stream(text)
        choice = self._choice(_parse(text), text)
        if choice is None:
            raise _no_answer(text)
        chunk = self._read(choice, text, streamed=False)
        finish, detail = self._ending()
        chunk = replace(chunk, finish=finish, detail=detail, usage=self._usage)
        return join_characters(StreamChunk(), chunk)[0]

    def _whole_stream(self, text: str) -> StreamChunk:
        parser = EventParser()
        chunks, done = list[StreamChunk](), False
        for event in [*parser.feed(text.encode("utf-8", "replace")), *parser.end()]:
            done = done or is_end(event)
            try:
                chunks += [] if done else [self.event(event)]
            except NoAnswer:
                if not self.finished:
                    raise
        last = self.end(done=done)
        logprobs = [chunk.logprob for chunk in chunks if chunk.logprob is not None]
        return replace(
            last,
            text="".join(chunk.text for chunk in [*chunks, last]),
            tokens=sum(chunk.tokens for chunk in [*chunks, last]),
            logprob=sum(logprobs) if logprobs else None,
            top_logprobs=next((one.top_logprobs for one in chunks if one.text), {}),
        )

    # One object -------------------------------------------------------------------------------

    def _choice(self, value: Any, text: str) -> Mapping[str, Any] | None:
        """Note the usage of an object, and return its choice, None where it has none."""
        if (error := error_in(value)) is not None:
            raise _failure(error)
        if not isinstance(value, Mapping):
            raise _no_answer(text)
        self._usage = _usage(value) or self._usage
        choices = value.get("choices")
        if not choices:
            return None
        if not isinstance(choices, list) or not isinstance(choices[0], Mapping):
            raise _no_answer(text)
        return choices[0]

    def _read(self, choice: Mapping[str, Any], text: str, *, streamed: bool) -> StreamChunk:
        if (error := error_in({"error": choice.get("error")})) is not None:
            raise _failure(error)
        message = _message_of(choice, streamed=streamed)
        if message is None and not streamed:
            raise _no_answer(text)
        written = self._text_of(message or {}, text)
        self._note_finish(choice.get("finish_reason"))
        self._wrote = self._wrote or bool(written)
        logprobs = _logprobs(choice.get("logprobs"))
        return StreamChunk(
            text=written,
            tokens=logprobs.tokens or int(bool(written)),
            logprob=logprobs.total,
            top_logprobs=logprobs.top,
        )

    def _text_of(self, message: Mapping[str, Any], text: str) -> str:
        """Return the text of a message, and note what else it holds."""
        self._reasoned = self._reasoned or any(message.get(name) for name in _REASONING)
        self._refusal += _text(message.get("refusal"))
        calls = [*_list(message.get("tool_calls")), *_list(message.get("function_call"))]
        self._called = self._called or bool(calls)
        self._tools += [name for call in calls if (name := _name_of(call))]
        content = message.get("content")
        if isinstance(content, list):
            return "".join(map(self._part, content))
        if isinstance(content, Mapping):
            return self._part(content)
        if content is not None and not isinstance(content, str):
            raise _no_answer(text)
        return content or ""

    def _part(self, part: Any) -> str:
        """Return the text of a part of the content; another part is noted."""
        if not isinstance(part, Mapping):
            return _text(part)
        kind = str(part.get("type", "text"))
        if kind in ("text", "output_text"):
            return _text(part.get("text"))
        if kind in ("thinking", *_REASONING):
            self._reasoned = True
        elif kind == "refusal":
            self._refusal += _text(part.get("refusal"))
        else:
            self._other_parts.add(kind)
        return ""

    def _note_finish(self, value: Any) -> None:
        """Note why the answer ends; the last reason counts. Raises for a failure of the server."""
        if isinstance(value, Mapping):  # older SGLang
            value = value.get("type")
        if not value:
            return
        # Gemini: "content_filter: PROHIBITED_CONTENT".
        name = str(value).lower().partition(":")[0]
        if name in _BROKEN:
            raise RetryableError(f"It broke off the answer with the reason {name!r}.")
        if name not in _FINISHES:
            self._tell(f"A server ended answers with the unknown reason {name[:40]!r}: as a stop.")
        self._finish = _FINISHES.get(name, Finish.STOP)

    def _ending(self) -> tuple[Finish, str]:
        """Return why the answer ended, and of what is no usable text what it was."""
        parts = ", ".join(sorted(self._other_parts))
        if self._wrote and parts:
            self._tell(f"A server sends parts that are no text, which are left out: {parts}.")
        finish = self._finish or Finish.STOP
        if self._called:
            return Finish.TOOL_CALLS, ", ".join(self._tools)
        if self._refusal:
            return Finish.REFUSAL, self._refusal[:LONGEST_REFUSAL]
        if not self._wrote and finish in (Finish.STOP, Finish.LENGTH):
            if self._reasoned:
                return Finish.NO_TEXT, "reasoning"
            if parts or finish is Finish.LENGTH:
                return Finish.NO_TEXT, parts
        return finish, ""


def response_error(
    status: int, text: str, headers: Mapping[str, str], dialect: Dialect, sent: Mapping[str, Any]
) -> Exception:
    """Return what a status of 300 or more means for a request with the body `sent`.

    `Adapted` where the dialect has learned from it. The names of `headers` are in lower case, or
    without regard to case.
    """
    if status < 400:  # never followed: the key is for the server that was named, and no other
        where = headers.get("location", "") or "nowhere"
        return ServerError(f"It answered {status}: it redirects to {where}.")
    error = read_error(text)
    try:
        if dialect.learn(sent, status, error):
            return Adapted()
    except UnsupportedSetting as unsupported:
        return unsupported
    return error_of(status, error, wait_demanded(headers, datetime.now(UTC)))


def is_end(event: str) -> bool:
    """Return whether an event says that a stream is done."""
    return event.strip().strip('"') == "[DONE]"


def join_characters(left: StreamChunk, chunk: StreamChunk) -> tuple[StreamChunk, StreamChunk]:
    """Return a piece after the rest of the one before, and the rest that it leaves.

    JSON may spell a character as two surrogates, and a server may send them in two pieces. A
    surrogate that stays alone becomes U+FFFD.
    """
    text = left.text + chunk.text
    if text.isascii() and not left.tokens:
        return chunk, StreamChunk()
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" and not chunk.finish else ""
    whole = text.removesuffix(half).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    logprobs = [one.logprob for one in (left, chunk) if one.logprob is not None]
    joined = replace(
        chunk,
        text=whole,
        tokens=left.tokens + chunk.tokens,
        logprob=sum(logprobs) if logprobs else None,
        top_logprobs=left.top_logprobs or chunk.top_logprobs,
    )
    if half and not whole:
        return replace(chunk, text="", tokens=0), replace(joined, text=half)
    return joined, StreamChunk(text=half)


def _parse(text: str) -> Any:
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        raise _no_answer(text) from None


def _is_stream(text: str) -> bool:
    start = text.lstrip("\ufeff\r\n\t ")
    return start.startswith(("data:", "error:", "event:", ":"))


def _no_answer(text: str) -> NoAnswer:
    excerpt = text[:LONGEST_EXCERPT] + "…" * (len(text) > LONGEST_EXCERPT)
    return NoAnswer(f"It sent something that is no answer: {excerpt!r}.")


def _failure(error: ApiError) -> Exception:
    """Return what an error in an answer means: its status was sent before it was known."""
    if error.status:
        return error_of(error.status, error)
    said = f"It answered with an error: {error.message}"
    if not OUT_OF_QUOTA.isdisjoint(error.codes):
        return ServerError(said)
    return RetryableError(said)


def _message_of(choice: Mapping[str, Any], *, streamed: bool) -> Mapping[str, Any] | None:
    """Return the object with the text of a choice, of either API; None where there is none."""
    # Perplexity repeats the whole text as `message` beside every `delta`.
    for name in ("delta", "message") if streamed else ("message", "delta"):
        if isinstance(choice.get(name), Mapping):
            found: Mapping[str, Any] = choice[name]
            return found
    return {**choice, "content": choice["text"]} if "text" in choice else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _name_of(call: Any) -> str:
    call = call.get("function", call) if isinstance(call, Mapping) else {}
    return _text(call.get("name")) if isinstance(call, Mapping) else ""


class _Logprobs(NamedTuple):
    """The log-probabilities of a piece: its tokens, their sum, and what the first might be."""

    tokens: int = 0
    total: float | None = None
    top: Mapping[str, float] = {}


def _logprobs(value: Any) -> _Logprobs:
    """Read either API's object; one of another shape counts as none, as no text depends on it."""
    if not isinstance(value, Mapping):
        return _Logprobs()
    try:
        if content := value.get("content"):
            numbers = [token.get("logprob") for token in content]
            pairs = [
                (str(one["token"]), one["logprob"]) for one in _list(content[0].get("top_logprobs"))
            ]
        else:
            numbers = list(value.get("token_logprobs") or ())
            first = next(iter(value.get("top_logprobs") or ()), None)
            pairs = list((first or {}).items())
    except (AttributeError, LookupError, TypeError):
        return _Logprobs()
    # Null: of a token that the server could not score, or of one that is impossible.
    known = _finite(numbers)
    top: dict[str, float] = {}
    for text, number in pairs:
        # Different tokens may have the same text; the list is sorted, so the first is the best.
        for logprob in _finite([number]):
            top.setdefault(text, logprob)
    return _Logprobs(len(numbers), sum(known) if known else None, top)


def _finite(numbers: Iterable[Any]) -> list[float]:
    """Return what are finite numbers; JSON as Python writes it has NaN and Infinity."""
    known = (int, float)
    return [float(one) for one in numbers if type(one) in known and abs(one) < LARGEST_LOGPROB]


def _usage(value: Mapping[str, Any]) -> Usage | None:
    """Return the token counts of an object; Groq sends those of a stream in a field of its own."""
    groq = value.get("x_groq")
    for usage in (value.get("usage"), groq.get("usage") if isinstance(groq, Mapping) else None):
        if isinstance(usage, Mapping):
            prompt, tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if type(prompt) is int and type(tokens) is int and min(prompt, tokens) >= 0:
                return Usage(prompt=prompt, tokens=tokens)
    return None
