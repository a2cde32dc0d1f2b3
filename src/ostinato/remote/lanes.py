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
from ostinato.journal import StopKind
from ostinato.loop import Exhausted, ExternalSource, Lane, Report, Text, fold_in
from ostinato.remote import text_ids
from ostinato.remote.client import Client, Stream
from ostinato.remote.openai_api import EXTENSIONS, CompletionRequest, PromptInput, StreamChunk
from ostinato.remote.retry import CannotContinue, PermanentError, ServerError
from ostinato.remote.server import Server
from ostinato.remote.spend_limit import Reserved, SpendLimit
from ostinato.remote.text_ids import chances

PromptFn = Callable[[object, Mapping[str, object]], PromptInput]
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
class _StreamSlot:
    """A lane in its slot."""

    lane: Lane
    prompt: PromptInput
    track_logprobs: Sequence[str] = ()
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # tokens of each piece
    tracked: list[dict[int, float]] = field(default_factory=list)
    finished: bool = False  # nothing comes any more
    ended: bool = False  # it was the text's own end
    request: _Request | None = None
    wasted: tuple[int, float] = (0, 0.0)  # tokens and cost that are still to be told


class ServerLanes(ExternalSource):
    """Have texts written by a server, many side by side.

    `prompt` makes an item's prompt; its edits are passed on where `prompt_edits` names them.
    `max_tokens` cuts an answer. `sampling` holds `temperature`, `top_p` and, where the server has
    the extensions, `top_k`, `min_p` and `repetition_penalty`. `allowance` limits what is spent by
    all lanes. `track_logprobs` names an item's texts of which is noted where they were likely to begin (the
    output's `tracked_logprobs`, by the numbers of the texts), if the server tells its likeliest tokens.
    Edits: the settings of sampling hold from their position on; `force` (numbers of
    `ostinato.remote.spell`) is written at its position; after going back the answer is drawn
    anew from there, so `forbid` needs no more than that: a server cannot be told which piece not
    to write.

    Reports: `token` (the piece's number), `text`, `tokens` (how many the piece holds: told by
    log-probabilities and usage, else 1), `computed` (those received, also in vain), `logprob`
    and `tracked_logprobs` (pairs of a text's number and its log-probability) where told, at a request's
    first piece `calls` (1), `prompt` and `cost` (corrected where the server tells its usage),
    `finish` and `ended` at the end, `failed` where the answer cannot
    be gone on with, `error` where the server refuses the item. Raises `ServerError` where the
    server cannot be worked with, `Exhausted` where the allowance is spent.
    """

    def __init__(
        self,
        server: Server,
        prompt: PromptFn,
        *,
        sampling: Mapping[str, float] | None = None,
        max_tokens: int = 128,
        slots: int = 16,
        allowance: SpendLimit | None = None,
        prompt_edits: frozenset[str] = frozenset(),
        track_logprobs: Watch | None = None,
    ) -> None:
        self.slots = slots
        self.server = server
        self.client = Client(server, slots)
        self._close = weakref.finalize(self, self.client.close)
        self._sampling = dict(sampling or {})
        self._max_tokens = max_tokens
        self._allowance = allowance or SpendLimit()
        self._prompt = prompt
        self._prompt_edits = prompt_edits
        self._track_logprobs = track_logprobs or (lambda item: ())
        self._slots: dict[str, _StreamSlot] = {}
        self._per_byte = 0.0  # tokens of a prompt for each of its bytes, as told so far

    def close(self) -> None:
        """End all requests and the connection's thread."""
        self._close()

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a place; what it has received before is not asked for again."""
        slot = _StreamSlot(
            lane, self._prompt(item, self._for_prompt(lane)), self._track_logprobs(item)
        )
        for report in lane.past:
            _add(slot, report)
        self._slots[lane.key] = slot

    def rewind(self, lane: Lane, to: int) -> None:
        """Crop the lane's answer to `to` pieces; a stream beyond is closed at once."""
        self._for_prompt(lane)
        slot = self._slots[lane.key]
        slot.lane = lane
        self._break_off(slot)
        if to < len(slot.tokens):
            slot.text = slot.text[: slot.starts[to]]
            del slot.tokens[to:], slot.starts[to:], slot.logprobs[to:], slot.counts[to:]
            del slot.tracked[to:]
            slot.finished = slot.ended = False

    def drop(self, key: str) -> None:
        """Free the lane's slot; a stream is closed."""
        self._break_off(self._slots.pop(key))

    def output(self, key: str) -> Text:
        """Return the answer as it stands; its tokens are the numbers of its pieces."""
        slot = self._slots[key]
        starts, logprobs = tuple(slot.starts), tuple(slot.logprobs)
        watched = tuple(slot.tracked)
        return Text(slot.text, tuple(slot.tokens), starts, logprobs, slot.ended, watched)

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Return a piece of every lane that has one; wait a moment where none has."""
        self.client.news.clear()
        moved, refused, error = self._look()
        if moved:
            return moved
        if error is not None:
            raise error
        going = any(slot.request is not None for slot in self._slots.values())
        if refused and not going:
            raise Exhausted(refused, StopKind.BUDGET)
        if going:
            self.client.news.wait(WAIT)
        return self._look()[0]

    def _look(self) -> tuple[dict[str, Report], str, Exception | None]:
        """Return what has come, why a lane may not ask, and what went wrong with the server."""
        moved: dict[str, Report] = {}
        refused, wrong = "", None
        for key, slot in self._slots.items():
            if slot.finished:
                continue
            try:
                report = self._next(slot)
            except ServerError as error:
                wrong = error
            except _Refused as refusal:
                refused = str(refusal)
            else:
                if report is not None:
                    _add(slot, report)
                    moved[key] = report
        return moved, refused, wrong

    def _next(self, slot: _StreamSlot) -> Report | None:
        forced = _forced(slot.lane, len(slot.tokens), slot.tokens)
        if forced is not None:
            self._break_off(slot)
            end = {"finish": "stop", "ended": "It wrote the end of text."}
            return self._report(slot, text_ids.character(forced) or "", 0) | (
                {} if forced else {"token": text_ids.END, **end}
            )
        if sum(slot.counts) >= self._max_tokens:
            return self._report(slot, "", 0) | self._ending("length")
        try:
            if slot.request is None:
                slot.request = self._begin(slot)
            piece = slot.request.stream.take()
        except (PermanentError, ItemError) as error:
            self._break_off(slot)
            return self._report(slot, "", 0) | {"error": str(error)}
        except CannotContinue as error:
            self._break_off(slot)
            return self._report(slot, "", 0) | {"failed": str(error)}
        return None if piece is None else self._received(slot, slot.request, piece)

    # Requests ---------------------------------------------------------------------------------

    def _begin(self, slot: _StreamSlot) -> _Request:
        """Set aside what a request may take, and send it."""
        lane, place = slot.lane, len(slot.tokens)
        at = place if self.server.continues else 0
        ask = CompletionRequest(
            prompt=slot.prompt,
            begun=slot.text,
            max_tokens=self._max_tokens - sum(slot.counts),
            whole=self._max_tokens,
            seed=fold_in(lane.seed, lane.key, lane.round, lane.backtracks, at) % SEEDS,
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

    def _received(self, slot: _StreamSlot, request: _Request, piece: StreamChunk) -> Report:
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
        report |= self._report(slot, piece.text, tokens, piece.again, cost)
        if piece.logprob is not None:
            report["logprob"] = piece.logprob
        watched = chances(slot.track_logprobs, piece.likeliest)
        if watched:
            report["tracked_logprobs"] = watched
        if piece.finish:
            report |= self._ending(piece.finish)
            if not piece.text:
                report["token"] = text_ids.END
            self._settle(slot)
        return report

    def _report(
        self, slot: _StreamSlot, text: str, tokens: int, again: int = 0, cost: float = 0.0
    ) -> dict[str, object]:
        """Return a report, with what was wasted since the last one."""
        wasted, wasted_cost = slot.wasted
        slot.wasted = (0, 0.0)
        report: dict[str, object] = {"token": text_ids.sign(text), "text": text, "tokens": tokens}
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

    def _break_off(self, slot: _StreamSlot) -> None:
        """Close a lane's stream; what had come of it is spent."""
        request = slot.request
        if request is None:
            return
        left = request.stream.close()
        tokens = sum(piece.tokens + piece.again for piece in left)
        prompts = sum(piece.prompts for piece in left) + (request.new and len(left) > 1)
        cost = self.server.cost(prompts * request.prompt, tokens)
        request.reserved.used_tokens += tokens
        request.reserved.used_cost += cost
        slot.wasted = (slot.wasted[0] + tokens, slot.wasted[1] + cost)
        self._settle(slot)

    def _settle(self, slot: _StreamSlot) -> None:
        assert slot.request is not None
        self._allowance.settle(slot.request.reserved)
        slot.request = None

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


def _add(slot: _StreamSlot, report: Report) -> None:
    """Take a piece into the answer."""
    text = cast(str, report["text"])
    slot.tokens.append(cast(int, report["token"]))
    slot.starts.append(len(slot.text))
    slot.logprobs.append(cast(float, report.get("logprob", 0.0)))
    slot.counts.append(cast(int, report["tokens"]))
    slot.tracked.append(dict(cast(Sequence[tuple[int, float]], report.get("tracked_logprobs", ()))))
    slot.text += text
    slot.finished = any(name in report for name in ("ended", "failed", "error"))
    slot.ended = report.get("finish") == "stop"


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
