"""The connection to a server: a thread of its own, in which requests run, wait and are repeated.

Knows no lane: it is asked for an answer, and hands over pieces as they come.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ostinato.errors import MissingExtra
from ostinato.remote.concurrency import ConcurrencyLimit
from ostinato.remote.event_stream import events
from ostinato.remote.openai_api import (
    CompletionRequest,
    StreamChunk,
    body,
    message_of,
    path,
    piece,
    whole_characters,
)
from ostinato.remote.retry import (
    CannotContinue,
    Forbidden,
    PermanentError,
    Response,
    RetryableError,
    ServerError,
    error_of,
    wait,
)
from ostinato.remote.server import Server

if TYPE_CHECKING:
    import httpx2

READ_AHEAD = 8  # pieces that wait to be taken; then the server waits
LONGEST_ERROR = 1 << 16
LONGEST_ANSWER = 1 << 24
LONGEST_TOLD = 400  # characters of what a server has said
CONNECT = 10.0  # seconds
DEAD = 3  # so many refusals, and no answer ever: the requests are wrong, not the items


class Stream:
    """An answer that is on its way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, news: threading.Event) -> None:
        self.error: Exception | None = None
        self._pieces: deque[StreamChunk] = deque()
        self._loop, self._news = loop, news
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.in_vain = _InVain()

    def take(self) -> StreamChunk | None:
        """Return the next piece; None where none has come. Raises what ended the answer."""
        if self._pieces:
            taken = self._pieces.popleft()
            self._loop.call_soon_threadsafe(self._room.set)
            return taken
        if self.error is not None:
            raise self.error
        return None

    def close(self) -> list[StreamChunk]:
        """Break the answer off: the connection is closed. Return what had come and is not used,
        and what had come in vain."""
        self._closed = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel)
        left = list(self._pieces)
        self._pieces.clear()
        return [*left, self.in_vain.told(StreamChunk())]

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin to work, in the connection's thread."""
        if self._closed:
            work.close()
            return
        self._task = self._loop.create_task(work)

    async def put(self, given: StreamChunk) -> None:
        """Hand a piece over, when there is room."""
        while len(self._pieces) >= READ_AHEAD:
            self._room.clear()
            if len(self._pieces) >= READ_AHEAD:
                await self._room.wait()
        self._pieces.append(given)
        self._news.set()

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        self.error = error
        self._news.set()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Client:
    """Requests to one server, at most `most` at once. `close` it, or it ends with the process."""

    def __init__(self, server: Server, most: int) -> None:
        try:
            import httpx2
        except ImportError:
            raise MissingExtra("A model on a server", "server") from None
        self.server = server
        self.news = threading.Event()
        self._library = httpx2
        self._key = key = server.key()
        self._http = httpx2.AsyncClient(
            headers={"Content-Type": "application/json"}
            | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx2.Timeout(server.timeout, connect=CONNECT, pool=None),
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
        )
        self.limit = ConcurrencyLimit(most)
        self._answered_at = 0.0
        self._refused = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run, args=(self._loop,), name=f"server {server.url}", daemon=True
        )
        self._thread.start()

    def begin(self, ask: CompletionRequest) -> Stream:
        """Ask for an answer; return at once."""
        body(self.server, ask)  # what cannot be asked is told here
        stream = Stream(self._loop, self.news)
        self._loop.call_soon_threadsafe(lambda: stream.run(self._work(stream, ask)))
        return stream

    def close(self) -> None:
        """End all requests and the thread. Safe to call twice, and from that thread."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._end()))
        if threading.current_thread() is not self._thread:  # collected in it: it ends by itself
            self._thread.join(CONNECT)

    async def _end(self) -> None:
        tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()
        self._loop.stop()

    # One answer, asked for as often as it takes -------------------------------------------------

    async def _work(self, stream: Stream, ask: CompletionRequest) -> None:
        failures, failing_since = 0, 0.0
        in_vain = stream.in_vain
        while True:
            began = await self.limit.enter()
            try:
                async with aclosing(self._answer(ask)) as answer:
                    async for given in answer:
                        ask = _after(ask, given)
                        in_vain.received(given)
                        if given.text or given.finish:  # what came before has mended nothing
                            failures, self._answered_at = 0, time.monotonic()
                            await stream.put(in_vain.told(given))
                await self.limit.went_well()
                return
            except RetryableError as fault:
                failures += 1
                in_vain.broke_off()
                failing_since = failing_since if failures > 1 else time.monotonic()
                pause = wait(failures, random.random(), fault.after)
                if fault.overloaded:
                    self.limit.overloaded(began, fault.after or 0.0)
                if failures > self.server.retries or (fault.after or 0) > self.server.patience:
                    stream.fail(self._given_up(fault, failures, failing_since))
                    return
            except (ServerError, PermanentError, CannotContinue) as error:
                stream.fail(self._of_the_run(error))
                return
            except Exception as error:  # it must not be waited for in vain
                stream.fail(error)
                return
            finally:
                await self.limit.leave()
            await asyncio.sleep(pause)

    def _given_up(self, fault: RetryableError, failures: int, since: float) -> Exception:
        """Tell a request that the server cannot answer from a server that cannot answer."""
        said = self._clean(str(fault))
        if fault.of_item and self._answered_at > since:
            return PermanentError(f"{said} It failed {failures} times in a row, others did not.")
        return ServerError(
            f"The server {self.server.url} must answer, and failed {failures} times in a row. "
            f"{said} Run the same again later: it goes on."
        )

    def _of_the_run(self, error: Exception) -> Exception:
        said = self._clean(str(error))
        if isinstance(error, CannotContinue):
            return CannotContinue(said)
        if isinstance(error, PermanentError):
            self._refused += 1
            known = self._refused < DEAD and not isinstance(error, Forbidden)
            if self._answered_at or known:
                return PermanentError(said)
            said += " It has refused every request."
        key = (
            f"the key in {self.server.key_env}" if self.server.key_env else "whether it needs a key"
        )
        return ServerError(
            f"The server {self.server.url} must accept requests for {self.server.model!r}, and "
            f"does not. {said} Check the URL, the model's name, and {key}."
        )

    def _clean(self, text: str) -> str:
        """Return what a server has said without the key, which it may repeat, and in short."""
        cleaned = text.replace(self._key, "…") if self._key else text
        return cleaned if len(cleaned) <= LONGEST_TOLD else f"{cleaned[:LONGEST_TOLD]}…"

    # One request --------------------------------------------------------------------------------

    async def _answer(self, ask: CompletionRequest) -> AsyncGenerator[StreamChunk]:
        """Yield the pieces of an answer behind what was begun."""
        if ask.max_tokens < 1:
            yield StreamChunk(finish="length")
            return
        begun = "" if self.server.continues else ask.begun
        if begun:
            ask = replace(ask, begun="", max_tokens=ask.whole or ask.max_tokens)
        async with aclosing(self._request(ask)) as answer:
            async for given in _behind(begun, answer):
                yield given

    async def _request(self, ask: CompletionRequest) -> AsyncGenerator[StreamChunk]:
        http = self._library
        url = self.server.url + path(self.server)
        content = json.dumps(body(self.server, ask)).encode()
        try:
            async with self._http.stream("POST", url, content=content) as response:
                if response.status_code >= 300:
                    raise await _refusal(response)
                kind = response.headers.get("content-type", "")
                if not kind.lower().startswith("text/event-stream"):
                    whole = piece(self.server, await _read(response, LONGEST_ANSWER))
                    yield replace(whole, finish=whole.finish or "stop")
                    return
                async for given in self._pieces(events(response.aiter_bytes())):
                    yield given
        except http.TimeoutException as error:
            reached = not isinstance(error, http.ConnectTimeout)
            said = f"It gave no sign of life for {self.server.timeout:g} seconds."
            raise RetryableError(said, overloaded=True, reached=reached) from None
        except http.TransportError as error:
            reached = not isinstance(error, http.ConnectError)
            raise RetryableError(f"The connection broke ({error}).", reached=reached) from None

    async def _pieces(self, told: AsyncIterator[str]) -> AsyncIterator[StreamChunk]:
        """Yield a stream's pieces, the last one with the usage that is told behind it."""
        last: StreamChunk | None = None
        silent, left = True, StreamChunk()
        async for data in told:
            if data.strip() == "[DONE]":
                break
            silent = False
            given, left = whole_characters(left, piece(self.server, data))
            if last is not None:
                last = replace(last, usage=given.usage or last.usage)
            elif given.finish:
                last = given
            elif given.text:
                yield replace(given, usage=None)
        if last is None:  # llama-cpp-python breaks answers off for newer requests: fewer at once
            how = "without a word" if silent else "before it was finished"
            raise RetryableError(
                f"It ended the answer {how}: its own log may say why.", overloaded=True
            )
        yield last


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped."""
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class _InVain:
    """What requests of an answer took that is in no piece which was handed over.

    A request that broke off has read the prompt, and what is received once more is paid for once
    more; the server tells the usage of the last request only.
    """

    def __init__(self) -> None:
        self._tokens = self._prompts = 0  # still to be told
        self._before = self._now = 0  # received by requests that broke off, and by this one

    def received(self, given: StreamChunk) -> None:
        """Note what came, handed over or not."""
        self._now += given.tokens + given.again
        self._tokens += given.again

    def broke_off(self) -> None:
        """Note that a request broke off; one that brought nothing has cost nothing."""
        self._prompts += self._now > 0
        self._before += self._now
        self._now = 0

    def told(self, given: StreamChunk) -> StreamChunk:
        """Return a piece that tells it, its usage with the tokens of all requests."""
        usage = given.usage
        if usage is not None:
            usage = replace(usage, tokens=usage.tokens + self._before)
        told = replace(given, again=self._tokens, prompts=self._prompts, usage=usage)
        self._tokens = self._prompts = 0
        return told


def _after(ask: CompletionRequest, given: StreamChunk) -> CompletionRequest:
    """Return what is to be asked where the answer breaks off behind a piece."""
    left = ask.max_tokens - given.tokens
    return replace(ask, begun=ask.begun + given.text, max_tokens=left)


async def _behind(begun: str, pieces: AsyncIterator[StreamChunk]) -> AsyncIterator[StreamChunk]:
    """Yield an answer's pieces behind its known beginning, whose own have no text any more.

    Raises `CannotGoOn` for another beginning.
    """
    async for given in pieces:
        if not begun:
            yield given
            continue
        shared = min(len(begun), len(given.text))
        if given.text[:shared] != begun[:shared] or (given.finish and shared < len(begun)):
            raise CannotContinue(
                "The answer was broken off, and asked again the server wrote another."
            )
        begun = begun[shared:]
        kept = given.text[shared:]
        new = int(bool(kept))
        yield replace(given, text=kept, tokens=new, again=given.tokens - new)


async def _refusal(response: httpx2.Response) -> Exception:
    said, code = message_of(await _read(response, LONGEST_ERROR))
    retry = response.headers.get("retry-after", "")
    if response.status_code < 400:
        return ServerError(f"It redirects to {response.headers.get('location', 'nowhere')}.")
    return error_of(Response(response.status_code, said, code, retry))


async def _read(response: httpx2.Response, most: int) -> str:
    """Read a body as text. Raises `RetryableError` where it is too long."""
    content = b""
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > most:
            raise RetryableError(f"It sent more than {most} bytes.")
    return content.decode("utf-8", "replace")
