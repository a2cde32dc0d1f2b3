"""Asynchronous requests to one server, in a thread of their own: streams, retries, a limit.

Knows no lane: `start` takes a request and returns a stream of chunks.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ostinato.arguments import counted
from ostinato.errors import MissingExtra
from ostinato.remote.answer import AnswerReader, NoAnswer, is_end, response_error
from ostinato.remote.concurrency import ConcurrencyLimit
from ostinato.remote.dialect import dialect_of
from ostinato.remote.event_stream import events
from ostinato.remote.openai_api import (
    CompletionRequest,
    Finish,
    StreamChunk,
    endpoint,
    request_body,
)
from ostinato.remote.retry import (
    Adapted,
    CannotContinue,
    Forbidden,
    PermanentError,
    RetryableError,
    ServerError,
    UnsupportedSetting,
    redact,
    wait,
)
from ostinato.remote.server import Server

if TYPE_CHECKING:
    import httpx2

READ_AHEAD = 8  # chunks that may wait to be taken; then the connection is not read any further
LONGEST_ERROR = 1 << 20  # bytes; some servers repeat the whole prompt
LONGEST_ANSWER = 1 << 24  # bytes
CONNECT = 10.0  # seconds
GRACE = 5.0  # seconds for what may follow the reason to finish: the usage, and the stream's end
SAID_EVERY = 2.0  # seconds between two lines about requests that are repeated
# Refusals with no success ever: by then the requests are wrong, not the items in them.
MOST_REFUSALS = 3


class Stream:
    """An answer in transit: the client's thread puts chunks, the caller's thread takes them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, arrived: threading.Event) -> None:
        self.error: Exception | None = None
        self.waste = _Waste()
        self._chunks: deque[StreamChunk] = deque()
        self._loop, self._arrived = loop, arrived
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def take(self) -> StreamChunk | None:
        """Return the next chunk, None where none has arrived. Raises the error of the answer."""
        if self._chunks:
            chunk = self._chunks.popleft()
            self._loop.call_soon_threadsafe(self._room.set)
            return chunk
        if self.error is not None:
            raise self.error
        return None

    def close(self) -> list[StreamChunk]:
        """Cancel the answer and close its connection.

        Return the chunks that nobody took, then one with the waste since the last of them: the
        server has written both, so they cost the same.
        """
        self._closed = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel)
        left = list(self._chunks)
        self._chunks.clear()
        return [*left, self.waste.add_to(StreamChunk())]

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Start to work, in the client's thread."""
        if self._closed:  # before the thread came to it
            work.close()
            return
        self._task = self._loop.create_task(work)

    async def put(self, chunk: StreamChunk) -> None:
        """Hand a chunk over; wait while `READ_AHEAD` are waiting."""
        while len(self._chunks) >= READ_AHEAD:
            self._room.clear()
            # Look again: `take` may have set the event between the two lines above.
            if len(self._chunks) >= READ_AHEAD:
                await self._room.wait()
        self._chunks.append(chunk)
        self._arrived.set()

    def fail(self, error: Exception) -> None:
        """End the answer with an error, which `take` raises behind the last chunk."""
        self.error = error
        self._arrived.set()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Client:
    """Requests to one server, at most `most` at once.

    `arrived` is set whenever a stream has something to take. `say` gets a line about a request that
    is repeated, from the client's thread. `close` ends the thread; without it, it ends with the
    interpreter.
    """

    def __init__(self, server: Server, most: int) -> None:
        try:
            import httpx2
        except ImportError:
            raise MissingExtra("A model on a server", "server") from None
        self.server = server
        self.dialect = dialect_of(server)
        self.arrived = threading.Event()
        self.say: Callable[[str], None] = lambda line: None
        self._said_at = -math.inf  # monotonic time of the last line
        self.limit = ConcurrencyLimit(most)
        self._library = httpx2
        self._key = key = server.key()
        self._http = httpx2.AsyncClient(
            headers={"Content-Type": "application/json"}
            | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx2.Timeout(server.timeout, connect=CONNECT, pool=None),
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
        )
        self._answered_at = 0.0  # monotonic time of the last success; 0: never
        self._refused = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run, args=(self._loop,), name=f"server {server.url}", daemon=True
        )
        self._thread.start()

    def start(self, request: CompletionRequest) -> Stream:
        """Send a request and return at once. Raises `ItemError` for one that cannot be sent."""
        request_body(self.server, request)  # raises here, in the caller's thread
        stream = Stream(self._loop, self.arrived)
        self._loop.call_soon_threadsafe(lambda: stream.run(self._work(stream, request)))
        return stream

    def close(self) -> None:
        """End all requests and the thread. Safe to call twice, and from that thread."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._end()))
        # The garbage collector may close the lanes in this very thread, which cannot join itself.
        if threading.current_thread() is not self._thread:
            self._thread.join(CONNECT)

    async def _end(self) -> None:
        tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()
        self._loop.stop()

    # One answer, in as many requests as it takes ------------------------------------------------

    async def _work(self, stream: Stream, request: CompletionRequest) -> None:
        failures, failing_since = 0, 0.0
        waste = stream.waste
        while True:
            started = await self.limit.enter()
            try:
                async with aclosing(self._answer(request)) as answer:
                    async for chunk in answer:
                        request = _after(request, chunk)
                        waste.received(chunk)
                        # A chunk without text repeats the known prefix: it proves nothing, and a
                        # server that always breaks at the same character must be given up.
                        if chunk.text or chunk.finish:
                            failures, self._answered_at = 0, time.monotonic()
                            await stream.put(waste.add_to(chunk))
                await self.limit.succeeded()
                return
            except RetryableError as error:
                failures += 1
                waste.broke_off()
                failing_since = failing_since if failures > 1 else time.monotonic()
                pause = wait(failures, random.random(), error.after)
                if error.overloaded:
                    self.limit.overloaded(started, error.after or 0.0)
                if failures > self.server.retries or (error.after or 0) > self.server.patience:
                    stream.fail(self._given_up(error, failures, failing_since))
                    return
                self._say_why(error, failures, pause)
            except Adapted:
                pause = 0.0
            except (ServerError, PermanentError, CannotContinue) as error:
                stream.fail(self._refused_with(error))
                return
            except Exception as error:  # or the caller would wait for this stream forever
                stream.fail(error)
                return
            finally:
                await self.limit.leave()
            await asyncio.sleep(pause)

    def _say_why(self, error: RetryableError, failures: int, pause: float) -> None:
        """Say why a request is repeated, and when; of many at a time only one does."""
        now = time.monotonic()
        if now - self._said_at < SAID_EVERY:
            return
        self._said_at = now
        said = redact(str(error), self._key)
        left = self.server.retries - failures + 1
        self.say(
            f"Waiting for {self.server.url}: {said} Trying again in {pause:.1f} s, "
            f"{counted(left, 'more times')}."
        )

    def _given_up(self, error: RetryableError, failures: int, since: float) -> Exception:
        """Return the final error: of the item if others succeeded meanwhile, else of the server."""
        said = redact(str(error), self._key)
        if error.of_request and self._answered_at > since:
            return PermanentError(
                f"{said} It failed {counted(failures, 'times')} in a row, others did not."
            )
        return ServerError(
            f"The server {self.server.url} must answer, and failed {counted(failures, 'times')} "
            "in a row. "
            f"{said} Check that it runs, then try again: a recorded run resumes."
        )

    def _refused_with(self, error: ServerError | PermanentError | CannotContinue) -> Exception:
        """Return the final error of a refusal: of the item, or of all requests to the server."""
        said = redact(str(error), self._key)
        if isinstance(error, CannotContinue | UnsupportedSetting):
            return type(error)(said)
        if isinstance(error, PermanentError):
            self._refused += 1
            # Until one request succeeds, a 403 may be the key's, and many 400 the settings'.
            of_item = self._refused < MOST_REFUSALS and not isinstance(error, Forbidden)
            if self._answered_at or of_item:
                return PermanentError(said)
            said += " It has refused every request."
        key = (
            f"the key in {self.server.key_env}" if self.server.key_env else "whether it needs a key"
        )
        return ServerError(
            f"The server {self.server.url} must accept requests for {self.server.model!r}, and "
            f"does not. {said} Check the URL, the model's name, and {key}."
        )

    # One request --------------------------------------------------------------------------------

    async def _answer(self, request: CompletionRequest) -> AsyncGenerator[StreamChunk]:
        """Yield the chunks after the request's prefix, also from a server that starts again."""
        if request.max_tokens < 1:  # it broke off just before its last event; 0 is refused
            yield StreamChunk(finish=Finish.LENGTH)
            return
        prefix = "" if self.server.continues else request.prefix
        if prefix:
            most = request.total_tokens or request.max_tokens
            request = replace(request, prefix="", max_tokens=most)
        async with aclosing(self._request(request)) as answer:
            async for chunk in _skip_prefix(prefix, answer):
                yield chunk

    async def _request(self, request: CompletionRequest) -> AsyncGenerator[StreamChunk]:
        http = self._library
        body = self.dialect.adapt(request_body(self.server, request))
        content = json.dumps(body).encode()
        reader = AnswerReader(self.dialect.tell, began=bool(request.prefix))
        try:
            async with self._http.stream(
                "POST", endpoint(self.server), content=content
            ) as response:
                if response.status_code >= 300:
                    said = await _read(response, LONGEST_ERROR, cut=True)
                    raise response_error(
                        response.status_code, said, response.headers, self.dialect, body
                    )
                self.dialect.succeeded(body)
                kind = response.headers.get("content-type", "")
                if not kind.lower().startswith("text/event-stream"):
                    yield reader.whole(await _read(response, LONGEST_ANSWER))
                    return
                async for chunk in self._chunks(reader, events(response.aiter_bytes())):
                    yield chunk
        except http.TimeoutException as error:
            reached = not isinstance(error, http.ConnectTimeout)
            said = f"It sent nothing for {counted(self.server.timeout, 'seconds', 'g')}."
            raise RetryableError(said, overloaded=True, reached=reached) from None
        except http.DecodingError as error:
            raise RetryableError(f"It sent what cannot be decompressed ({error}).") from None
        except http.TransportError as error:
            reached = not isinstance(error, http.ConnectError)
            raise RetryableError(f"The connection failed ({error}).", reached=reached) from None

    async def _chunks(
        self, reader: AnswerReader, stream: AsyncIterator[str]
    ) -> AsyncIterator[StreamChunk]:
        """Yield a stream's chunks. Its end, and not the reason to finish, ends the text."""
        done = False
        while not done:
            try:
                event = await asyncio.wait_for(anext(stream), GRACE if reader.finished else None)
                done = is_end(event)
                chunk = StreamChunk() if done else reader.event(event)
            except StopAsyncIteration:
                break
            except (TimeoutError, self._library.RequestError, NoAnswer):
                if not reader.finished:
                    raise
                break  # what follows the reason to finish is no text: the answer is whole
            if chunk.text:
                yield chunk
        yield reader.end(done=done)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class _Waste:
    """What an answer's requests cost beside the chunks that were handed over.

    A request that broke off has read the prompt, and tokens received again are paid for again. The
    server's usage covers its last request only.
    """

    def __init__(self) -> None:
        self._tokens = self._prompts = 0  # not yet added to a chunk
        self._before = self._now = 0  # tokens received by requests that broke off, and by this one

    def received(self, chunk: StreamChunk) -> None:
        """Count a chunk, whether or not it is handed over."""
        self._now += chunk.tokens + chunk.repeated
        self._tokens += chunk.repeated

    def broke_off(self) -> None:
        """Count a broken request; one that brought no token is taken to have cost nothing."""
        self._prompts += self._now > 0
        self._before += self._now
        self._now = 0

    def add_to(self, chunk: StreamChunk) -> StreamChunk:
        """Return the chunk with the waste since the one before; its usage covers all requests."""
        usage = chunk.usage
        if usage is not None:
            usage = replace(usage, tokens=usage.tokens + self._before)
        chunk = replace(chunk, repeated=self._tokens, wasted_prompts=self._prompts, usage=usage)
        self._tokens = self._prompts = 0
        return chunk


def _after(request: CompletionRequest, chunk: StreamChunk) -> CompletionRequest:
    """Return the request to send if the answer breaks off after a chunk."""
    left = request.max_tokens - chunk.tokens
    return replace(request, prefix=request.prefix + chunk.text, max_tokens=left)


async def _skip_prefix(
    prefix: str, chunks: AsyncIterator[StreamChunk]
) -> AsyncIterator[StreamChunk]:
    """Yield an answer's chunks with its known prefix removed from their texts.

    Raises `CannotContinue` where the answer starts with something else.
    """
    async for chunk in chunks:
        if not prefix:
            yield chunk
            continue
        shared = min(len(prefix), len(chunk.text))
        if chunk.text[:shared] != prefix[:shared] or (chunk.finish and shared < len(prefix)):
            raise CannotContinue(
                "The answer broke off, and the server wrote another when the request was repeated."
            )
        prefix = prefix[shared:]
        text = chunk.text[shared:]
        # A chunk across the edge: one token is taken to be new, the others are repeated.
        new = int(bool(text))
        yield replace(chunk, text=text, tokens=new, repeated=chunk.tokens - new)


async def _read(response: httpx2.Response, most: int, *, cut: bool = False) -> str:
    """Read a body as text; of more than `most` bytes, `cut` or raise `RetryableError`."""
    content = b""
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > most:
            if cut:
                break
            raise RetryableError(f"It sent more than {most} bytes.")
    return content[:most].decode("utf-8-sig", "replace")
