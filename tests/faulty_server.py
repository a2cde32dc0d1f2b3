"""An OpenAI-compatible server for tests, of the standard library: it writes fixed texts, and fails
as real ones do."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ostinato.remote import dialect

Writes = Callable[[Mapping[str, Any]], str]


def by_seed(body: Mapping[str, Any]) -> str:
    """Write words that depend on the seed alone."""
    seed = body.get("seed", 0)
    words = ("We", "can", "help", "you", "today", "obviously", "with", "it")
    return " ".join(words[(seed >> 2 * n) % len(words)] for n in range(6)) + "."


@dataclass(frozen=True)
class Raw:
    """An answer byte for byte: each part is sent alone, then the connection closes, or `hang`s."""

    parts: tuple[bytes, ...]
    kind: str = "text/event-stream"
    status: int = 200
    hang: float = 0.0
    encoding: str = "identity"


def raw(*events: object, kind: str = "text/event-stream", done: bool = True) -> Raw:
    """Return a stream of events: values as JSON, texts as they are."""
    texts = [one if isinstance(one, str) else f"data: {json.dumps(one)}" for one in events]
    if done:
        texts.append("data: [DONE]")
    return Raw(tuple(f"{text}\n\n".encode() for text in texts), kind)


def whole(value: object, kind: str = "application/json") -> Raw:
    """Return an answer that is one value, as JSON."""
    return Raw((json.dumps(value).encode(),), kind)


@dataclass
class Faults:
    """What the server does. `script` holds, for the next requests, what goes wrong with each:

    a pair (status, headers) to refuse; "cut" to end the stream after two pieces; "garbage" for
    broken JSON after two; "error" for an error object in the stream; "unfinished" for a stream
    that ends without a reason; "page" for a page of HTML; "hang" for no answer at all;
    "reset" to close the connection without a word; a `Raw` answer; None for nothing. `unknown`
    names fields that it refuses, each with the error's shape in words. `writes` gives the whole
    answer; `drip` is a pause in seconds before each piece; `alternatives` returns the
    log-probabilities of what could have stood in the place of a piece, if they are requested.
    """

    script: deque[Any] = field(default_factory=deque)
    writes: Writes = by_seed
    drip: float = 0.0
    key: str = ""
    logprobs: bool = True
    alternatives: Callable[[str], Mapping[str, float]] = lambda piece: {piece: -0.5}
    usage: bool = True
    unknown: Mapping[str, Callable[[str], object]] = field(default_factory=dict)
    slots: int = 0  # more requests at once than this are refused by 429; 0: any number
    bodies: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    sent: int = 0  # pieces that were sent
    left: int = 0  # connections that the client closed before the end
    active: int = 0
    most: int = 0
    lock: Any = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)


def split(text: str) -> list[str]:
    """Return the pieces of an answer: words with the space before them."""
    return re.findall(r"\s*\S+", text)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    faults: Faults

    def log_message(self, format: str, *args: object) -> None: ...

    def do_POST(self) -> None:
        """Answer a request, or fail."""
        faults = self.faults
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with faults.lock:
            faults.bodies.append(body)
            faults.times.append(time.monotonic())
            fault = faults.script.popleft() if faults.script else None
            faults.active += 1
            faults.most = max(faults.most, faults.active)
            if faults.slots and faults.active > faults.slots:
                fault = (429, {})
        try:
            self._answer(body, fault)
        except (BrokenPipeError, ConnectionResetError):
            with faults.lock:
                faults.left += 1
            self.close_connection = True
        finally:
            with faults.lock:
                faults.active -= 1

    def _answer(self, body: dict[str, Any], fault: Any) -> None:
        faults = self.faults
        key = self.headers.get("Authorization", "")
        if faults.key and key != f"Bearer {faults.key}":
            self._refuse(401, f"Incorrect API key provided: {key}.", {})
        elif isinstance(fault, tuple):
            self._refuse(fault[0], "As told.", fault[1])
        elif fault == "hang":
            faults.stopping.wait(5)
            self.close_connection = True
        elif fault == "reset":
            self.close_connection = True
        elif isinstance(fault, Raw):
            self._raw(fault)
        elif refused := [name for name in faults.unknown if name in body]:
            error = faults.unknown[refused[0]](refused[0])
            self._send(400, json.dumps(error), {})
        elif fault == "page":
            self._send(200, "<html>Log in first.</html>", {})
        elif body.get("stream"):
            self._stream(body, fault)
        else:
            self._whole(body, fault)

    def _raw(self, answer: Raw) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Encoding", answer.encoding)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for part in answer.parts:
            self.wfile.write(part)
            self.wfile.flush()
            self.faults.stopping.wait(0.001 if len(answer.parts) < 50 else 0)
        self.faults.stopping.wait(answer.hang)

    def _refuse(self, status: int, message: str, headers: Mapping[str, str]) -> None:
        error = {"message": message, "type": "error", "code": headers.get("code")}
        self._send(status, json.dumps({"error": error}), headers)

    def _send(self, status: int, text: str, headers: Mapping[str, str]) -> None:
        content = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _pieces(self, body: Mapping[str, Any]) -> tuple[list[str], str]:
        pieces = split(self.faults.writes(body))
        most = body.get("max_tokens", body.get("max_completion_tokens", 1000))
        return pieces[:most], "stop" if len(pieces) <= most else "length"

    def _whole(self, body: Mapping[str, Any], fault: Any) -> None:
        pieces, finish = self._pieces(body)
        if self.faults.drip:
            self.faults.stopping.wait(self.faults.drip)
        text = json.dumps(self._value(body, "".join(pieces), finish, pieces, "message"))
        self._send(200, text[:20] if fault == "garbage" else text, {})

    def _stream(self, body: Mapping[str, Any], fault: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "Text/Event-Stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self._event(": a comment")
        pieces, finish = self._pieces(body)
        for number, piece in enumerate(pieces):
            if number == 2 and fault == "cut":
                return
            if number == 2 and fault == "garbage":
                self._event('data: {"choices": [')
                return
            if number == 2 and fault == "error":
                self._event('data: {"error": {"message": "Out of memory."}}')
                return
            if self.faults.drip and self.faults.stopping.wait(self.faults.drip):
                return
            self._event(f"data: {json.dumps(self._value(body, piece, None, [piece], 'delta'))}")
            with self.faults.lock:
                self.faults.sent += 1
        if fault == "unfinished":
            return
        self._event(f"data: {json.dumps(self._value(body, '', finish, [], 'delta'))}")
        if self.faults.usage and body.get("stream_options"):
            self._event(f"data: {json.dumps({'choices': [], 'usage': self._usage(body, pieces)})}")
        self._event("data: [DONE]")

    def _event(self, text: str) -> None:
        self.wfile.write(f"{text}\n\n".encode())
        self.wfile.flush()

    def _value(
        self, body: Mapping[str, Any], text: str, finish: str | None, pieces: list[str], name: str
    ) -> dict[str, Any]:
        chat = "messages" in body
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        choice |= {name: {"content": text}} if chat else {"text": text}
        requested = body.get("logprobs") is not None and body.get("logprobs") is not False
        if requested and self.faults.logprobs and pieces:
            best = body.get("top_logprobs") if chat else body["logprobs"]
            choice["logprobs"] = self._logprobs(pieces, chat, bool(best))
        value: dict[str, Any] = {"id": "x", "choices": [choice]}
        if name == "message" and self.faults.usage:
            value["usage"] = self._usage(body, pieces)
        return value

    def _logprobs(self, pieces: list[str], chat: bool, best: bool) -> dict[str, Any]:
        """Return log-probabilities, for a chat as a list, else by text."""
        alternatives = [dict(self.faults.alternatives(piece)) if best else {} for piece in pieces]
        if not chat:
            logprobs = [-0.5 for _ in pieces]
            return {"token_logprobs": logprobs, "top_logprobs": alternatives if best else None}
        tokens = [
            {"token": piece, "logprob": -0.5, "top_logprobs": [*map(_token, found.items())]}
            for piece, found in zip(pieces, alternatives, strict=True)
        ]
        return {"content": tokens}

    def _usage(self, body: Mapping[str, Any], pieces: list[str]) -> dict[str, int]:
        sent = body.get("prompt") or json.dumps(body.get("messages"))
        return {"prompt_tokens": len(sent) // 4, "completion_tokens": len(pieces)}


def _token(likely: tuple[str, float]) -> dict[str, Any]:
    return {"token": likely[0], "logprob": likely[1]}


@contextmanager
def serving(faults: Faults) -> Iterator[str]:
    """Serve on a free port of this machine; yield the base of the API."""
    handler = type("Bound", (Handler,), {"faults": faults})

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None: ...

    server = Quiet(("127.0.0.1", 0), handler)
    # An earlier server may have had this port, and refused something.
    dialect._dialects.clear()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        faults.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
