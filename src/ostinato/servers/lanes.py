"""Server lanes: answers of a server, a piece a step, many side by side.

A lane process. A step waits for pieces, shortly; nothing is sent before it is called. What came is
in the reports, from which a lane is brought back without asking again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from ostinato.errors import EditError, InputError, ItemError
from ostinato.loop import Exhausted, Kind, Lane, Received, Report, Text, derive
from ostinato.servers import pieces
from ostinato.servers.allowance import Allowance, Reserved
from ostinato.servers.client import Client, Stream
from ostinato.servers.faults import CannotGoOn, ServerError, Unworkable
from ostinato.servers.likely import chances
from ostinato.servers.server import Server
from ostinato.servers.wire import EXTENSIONS, Ask, Piece, Prompt

Asker = Callable[[object, Mapping[str, object]], Prompt]
"""Makes an item's prompt, a text or messages; the second argument holds the edits that are not
the server's own."""

Watch = Callable[[object], Sequence[str]]
"""Names an item's texts of which it is noted where they were likely to begin."""

SAMPLING = ("temperature", "top_p", *EXTENSIONS)
KNOWN = frozenset({*SAMPLING, "forbid", "force"})
WAIT = 0.1  # seconds that a step waits for news
SEEDS = 1 << 31


@dataclass(slots=True)
class _Request:
    """A request that is on its way: what it may take, and what it was told to have taken."""

    stream: Stream
    reserved: Reserved
    bytes: int  # of its prompt
    prompt: int  # its prompt's tokens, estimated until they are told
    tokens: int = 0
    prompts: int = 1  # how often it was read
    new: bool = True


@dataclass(slots=True)
class _Seat:
    """A lane at its place."""

    lane: Lane
    prompt: Prompt
    watch: Sequence[str] = ()
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # tokens of each piece
    watched: list[dict[int, float]] = field(default_factory=list)
    finished: bool = False  # nothing comes any more
    ended: bool = False  # it was the text's own end
    request: _Request | None = None
    wasted: tuple[int, float] = (0, 0.0)  # tokens and cost that are still to be told


class ServerLanes(Received):
    """Have texts written by a server, many side by side.

    `prompt` makes an item's prompt; its edits are passed on where `prompt_edits` names them.
    `max_tokens` cuts an answer. `sampling` holds `temperature`, `top_p` and, where the server has
    the extensions, `top_k`, `min_p` and `repetition_penalty`. `allowance` limits what is spent by
    all lanes. `watch` names an item's texts of which is noted where they were likely to begin (the
    output's `watched`, by the numbers of the texts), if the server tells its likeliest tokens.
    Edits: the settings of sampling hold from their position on; `force` (numbers of
    `ostinato.servers.spell`) is written at its position; after going back the answer is drawn
    anew from there, so `forbid` needs no more than that: a server cannot be told which piece not
    to write.

    Reports: `token` (the piece's number), `text`, `tokens` (how many the piece holds: told by
    log-probabilities and usage, else 1), `computed` (those received, also in vain), `logprob`
    and `watched` (pairs of a text's number and its log-probability) where told, at a request's
    first piece `calls` (1), `prompt` and `cost` (corrected where the server tells its usage),
    `finish` and `ended` at the end, `failed` where the answer cannot
    be gone on with, `error` where the server refuses the item. Raises `ServerError` where the
    server cannot be worked with, `Exhausted` where the allowance is spent.
    """

    def __init__(
        self,
        server: Server,
        prompt: Asker,
        *,
        sampling: Mapping[str, float] | None = None,
        max_tokens: int = 128,
        places: int = 16,
        allowance: Allowance | None = None,
        prompt_edits: frozenset[str] = frozenset(),
        watch: Watch | None = None,
    ) -> None:
        self.capacity = places
        self.server = server
        self.client = Client(server, places)
        self._close = weakref.finalize(self, self.client.close)
        self._sampling = dict(sampling or {})
        self._max_tokens = max_tokens
        self._allowance = allowance or Allowance()
        self._prompt = prompt
        self._prompt_edits = prompt_edits
        self._watch = watch or (lambda item: ())
        self._seats: dict[str, _Seat] = {}
        self._per_byte = 0.0  # tokens of a prompt for each of its bytes, as told so far

    def close(self) -> None:
        """End all requests and the connection's thread."""
        self._close()

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a place; what it has received before is not asked for again."""
        seat = _Seat(lane, self._prompt(item, self._for_prompt(lane)), self._watch(item))
        for report in lane.past:
            _add(seat, report)
        self._seats[lane.key] = seat

    def rewind(self, lane: Lane, to: int) -> None:
        """Crop the lane's answer to `to` pieces; a stream beyond is closed at once."""
        self._for_prompt(lane)
        seat = self._seats[lane.key]
        seat.lane = lane
        self._break_off(seat)
        if to < len(seat.tokens):
            seat.text = seat.text[: seat.starts[to]]
            del seat.tokens[to:], seat.starts[to:], seat.logprobs[to:], seat.counts[to:]
            del seat.watched[to:]
            seat.finished = seat.ended = False

    def drop(self, key: str) -> None:
        """Free the lane's place; a stream is closed."""
        self._break_off(self._seats.pop(key))

    def output(self, key: str) -> Text:
        """Return the answer as it stands; its tokens are the numbers of its pieces."""
        seat = self._seats[key]
        starts, logprobs = tuple(seat.starts), tuple(seat.logprobs)
        watched = tuple(seat.watched)
        return Text(seat.text, tuple(seat.tokens), starts, logprobs, seat.ended, watched)

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Return a piece of every lane that has one; wait a moment where none has."""
        self.client.news.clear()
        moved, refused, error = self._look()
        if moved:
            return moved
        if error is not None:
            raise error
        going = any(seat.request is not None for seat in self._seats.values())
        if refused and not going:
            raise Exhausted(refused, Kind.BUDGET)
        if going:
            self.client.news.wait(WAIT)
        return self._look()[0]

    def _look(self) -> tuple[dict[str, Report], str, Exception | None]:
        """Return what has come, why a lane may not ask, and what went wrong with the server."""
        moved: dict[str, Report] = {}
        refused, wrong = "", None
        for key, seat in self._seats.items():
            if seat.finished:
                continue
            try:
                report = self._next(seat)
            except ServerError as error:
                wrong = error
            except _Refused as refusal:
                refused = str(refusal)
            else:
                if report is not None:
                    _add(seat, report)
                    moved[key] = report
        return moved, refused, wrong

    def _next(self, seat: _Seat) -> Report | None:
        forced = _forced(seat.lane, len(seat.tokens), seat.tokens)
        if forced is not None:
            self._break_off(seat)
            end = {"finish": "stop", "ended": "It wrote the end of text."}
            return self._report(seat, pieces.character(forced) or "", 0) | (
                {} if forced else {"token": pieces.END, **end}
            )
        if sum(seat.counts) >= self._max_tokens:
            return self._report(seat, "", 0) | self._ending("length")
        try:
            if seat.request is None:
                seat.request = self._begin(seat)
            piece = seat.request.stream.take()
        except (Unworkable, ItemError) as error:
            self._break_off(seat)
            return self._report(seat, "", 0) | {"error": str(error)}
        except CannotGoOn as error:
            self._break_off(seat)
            return self._report(seat, "", 0) | {"failed": str(error)}
        return None if piece is None else self._received(seat, seat.request, piece)

    # Requests ---------------------------------------------------------------------------------

    def _begin(self, seat: _Seat) -> _Request:
        """Set aside what a request may take, and send it."""
        lane, place = seat.lane, len(seat.tokens)
        at = place if self.server.continues else 0
        ask = Ask(
            prompt=seat.prompt,
            begun=seat.text,
            max_tokens=self._max_tokens - sum(seat.counts),
            whole=self._max_tokens,
            seed=derive(lane.seed, lane.key, lane.round, lane.tries, at) % SEEDS,
            sampling=self._sampling_at(lane, place),
        )
        most = ask.max_tokens if self.server.continues else ask.whole
        cost = self.server.cost(ask.bytes, most)
        reserved = self._allowance.reserve(most, cost)
        if reserved is None:
            raise _Refused(self._allowance.refusal(most, cost))
        try:
            stream = self.client.begin(ask)
        except BaseException:
            self._allowance.settle(reserved)
            raise
        return _Request(stream, reserved, ask.bytes, round(ask.bytes * (self._per_byte or 0.25)))

    def _received(self, seat: _Seat, request: _Request, piece: Piece) -> Report:
        tokens, prompt = piece.tokens, 0
        report: dict[str, object] = {}
        if request.new:
            request.new = False
            report["calls"] = 1
            prompt = request.prompt
        prompt += piece.prompts * request.prompt
        request.prompts += piece.prompts
        usage = piece.usage
        if usage is not None:
            tokens = usage.tokens - request.tokens - piece.again
            prompt += (usage.prompt - request.prompt) * request.prompts
            self._per_byte = usage.prompt / request.bytes
        request.tokens += tokens + piece.again
        cost = self.server.cost(prompt, tokens + piece.again)
        request.reserved.used_tokens += tokens + piece.again
        request.reserved.used_cost += cost
        if prompt:
            report["prompt"] = prompt
        report |= self._report(seat, piece.text, tokens, piece.again, cost)
        if piece.logprob is not None:
            report["logprob"] = piece.logprob
        watched = chances(seat.watch, piece.likeliest)
        if watched:
            report["watched"] = watched
        if piece.finish:
            report |= self._ending(piece.finish)
            if not piece.text:
                report["token"] = pieces.END
            self._settle(seat)
        return report

    def _report(
        self, seat: _Seat, text: str, tokens: int, again: int = 0, cost: float = 0.0
    ) -> dict[str, object]:
        """Return a report, with what was wasted since the last one."""
        wasted, wasted_cost = seat.wasted
        seat.wasted = (0, 0.0)
        report: dict[str, object] = {"token": pieces.sign(text), "text": text, "tokens": tokens}
        report["computed"] = tokens + again + wasted
        if self.server.priced:
            report["cost"] = cost + wasted_cost
        return report

    def _ending(self, finish: str) -> dict[str, object]:
        match finish:
            case "length":
                ended = f"The limit of {self._max_tokens} tokens is reached."
            case "content_filter":
                return {"finish": finish, "failed": "The server's content filter cut it off."}
            case _:
                ended = "The server ended the text."
        return {"finish": finish, "ended": ended}

    def _break_off(self, seat: _Seat) -> None:
        """Close a lane's stream; what had come of it is spent."""
        request = seat.request
        if request is None:
            return
        left = request.stream.close()
        tokens = sum(piece.tokens + piece.again for piece in left)
        prompts = sum(piece.prompts for piece in left) + (request.new and len(left) > 1)
        cost = self.server.cost(prompts * request.prompt, tokens)
        request.reserved.used_tokens += tokens
        request.reserved.used_cost += cost
        seat.wasted = (seat.wasted[0] + tokens, seat.wasted[1] + cost)
        self._settle(seat)

    def _settle(self, seat: _Seat) -> None:
        assert seat.request is not None
        self._allowance.settle(seat.request.reserved)
        seat.request = None

    # Edits ------------------------------------------------------------------------------------

    def _sampling_at(self, lane: Lane, position: int) -> dict[str, float]:
        sampling = dict(self._sampling)
        for at, edits in lane.edits:
            if at <= position:
                sampling |= {n: cast(float, v) for n, v in edits.items() if n in SAMPLING}
        return sampling

    def _for_prompt(self, lane: Lane) -> dict[str, object]:
        """Return the edits that the prompt wants; raise `EditError` for one that nobody knows."""
        wanted: dict[str, object] = {}
        for at, edits in lane.edits:
            for name, value in edits.items():
                if name in self._prompt_edits and at == 0:
                    wanted[name] = value
                elif name not in KNOWN:
                    names = ", ".join(sorted(KNOWN | self._prompt_edits))
                    raise EditError(f"Unknown edit {name!r} of a server's lane. Known: {names}.")
        return wanted


class _Refused(Exception):
    """The allowance does not cover a request."""


def _add(seat: _Seat, report: Report) -> None:
    """Take a piece into the answer."""
    text = cast(str, report["text"])
    seat.tokens.append(cast(int, report["token"]))
    seat.starts.append(len(seat.text))
    seat.logprobs.append(cast(float, report.get("logprob", 0.0)))
    seat.counts.append(cast(int, report["tokens"]))
    seat.watched.append(dict(cast(Sequence[tuple[int, float]], report.get("watched", ()))))
    seat.text += text
    seat.finished = any(name in report for name in ("ended", "failed", "error"))
    seat.ended = report.get("finish") == "stop"


def _forced(lane: Lane, position: int, written: Sequence[int]) -> int | None:
    """Return the piece that is to be written at a position, None where the server writes it."""
    for at, edits in reversed(lane.edits):
        if "force" not in edits or at > position:
            continue
        numbers = cast(Sequence[int], edits["force"])
        begun = list(numbers[: position - at])
        if position < at + len(numbers) and list(written[at:position]) == begun:
            return numbers[position - at]
        return None
    return None


def check_sampling(server: Server, sampling: Mapping[str, float]) -> dict[str, float]:
    """Return the settings of sampling that are sent.

    Raises `InputError` for one that a server without extensions does not know.
    """
    neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    for name, value in sampling.items():
        if name in EXTENSIONS and value != neutral[name] and not server.extensions:
            raise InputError(
                f"{name} must be {neutral[name]:g} with a server that knows only the API's own "
                f"settings, got {value:g}. Leave it out, or set extensions = true where the server "
                "knows it (llama.cpp, vLLM)."
            )
    return {name: value for name, value in sampling.items() if name in SAMPLING}
