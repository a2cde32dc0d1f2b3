"""Server lanes: many answers of a server side by side, one chunk of each in a step.

A lane process. Its reports hold the text that arrived, so a resumed lane sends no request for what
it has. Nothing is sent before `step` is called.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ostinato.arguments import counted, require_sampling
from ostinato.errors import ItemError
from ostinato.journal import EditKind, StopKind
from ostinato.loop import Exhausted, ExternalSource, Lane, Report, Text, fold_in, is_end
from ostinato.remote import text_ids
from ostinato.remote.client import Client, Stream
from ostinato.remote.edits import KNOWN, forced_at, prompt_edits_of, sampling_at
from ostinato.remote.openai_api import CompletionRequest, Finish, PromptInput, StreamChunk
from ostinato.remote.retry import CannotContinue, PermanentError, ServerError
from ostinato.remote.server import Server
from ostinato.remote.spend_limit import Reserved, SpendLimit
from ostinato.remote.text_ids import start_logprobs

PromptFn = Callable[[Any, Mapping[str, object]], PromptInput]
"""Makes an item's prompt, a text or messages, from the item and the edits named `prompt_edits`."""

Watch = Callable[[Any], Sequence[str]]
"""Names an item's texts whose chance to start is tracked at every position."""

WAIT = 0.1  # seconds that a step waits for a chunk
SEEDS = 1 << 31  # servers take the seed as a signed number of 32 bits
GUESSED_PER_BYTE = 0.25  # tokens of a prompt for each byte, until a server reports its usage


@dataclass(slots=True)
class _Request:
    """A request in transit: what it may spend, and what the reports have counted of it."""

    stream: Stream
    reserved: Reserved
    bytes: int  # of its prompt
    prompt: int  # tokens of its prompt, estimated
    tokens: int = 0
    prompts: int = 1  # how often the prompt was read, with retries
    new: bool = True  # nothing of it has been reported


@dataclass(slots=True)
class _StreamSlot:
    """A lane in its slot; the lists hold one entry for each piece."""

    lane: Lane
    prompt: PromptInput
    tracked_texts: Sequence[str] = ()
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # tokens of the piece
    tracked: list[dict[int, float]] = field(default_factory=list)
    finished: bool = False  # no piece follows
    ended: bool = False  # by the text's own end
    request: _Request | None = None
    wasted: tuple[int, float] = (0, 0.0)  # tokens and cost that no report holds yet


class ServerLanes(ExternalSource):
    """Texts written by a server, many side by side.

    `prompt` makes an item's prompt, and gets the edits that `prompt_edits` names. `max_tokens` cuts
    an answer. `sampling` holds `temperature`, `top_p` and, where the server has the extensions,
    `top_k`, `min_p` and `repetition_penalty`. `spend_limit` limits what all lanes spend.
    `track_logprobs` names an item's texts; where each was likely to start is in the output's
    `tracked_logprobs`, by the text's number, if the server sends its most likely tokens.

    Edits: sampling settings hold from their position on. `force` (numbers from `character_ids`) is
    written at its position. `forbid` is accepted and not sent, as no API can exclude a piece of
    text: after going back, the rest is sampled again with another seed.

    Reports: `token` (the piece's number), `text`, `tokens` (of the piece: from log-probabilities
    and usage, else 1), `computed` (tokens received, including wasted ones). `logprob` and
    `tracked_logprobs` (pairs of a text's number and its log-probability) where the server sends
    them. With a request's first piece `calls` (1), `prompt` and `cost`, corrected when the usage
    arrives. At the end `finish`, and `ended` or `out_of_room`; `failed` where the answer cannot be
    continued or is no text; `error` where the server refuses the item.

    Raises `ServerError` where the server cannot be used, `Exhausted` at the spend limit.
    """

    costs = ("tokens", "computed", "prompt", "cost", "calls")
    unit = "tokens"

    def __init__(
        self,
        server: Server,
        prompt: PromptFn,
        *,
        sampling: Mapping[str, float] | None = None,
        max_tokens: int = 128,
        slots: int = 16,
        spend_limit: SpendLimit | None = None,
        prompt_edits: frozenset[str] = frozenset(),
        track_logprobs: Watch | None = None,
    ) -> None:
        self._sampling = dict(sampling or {})
        require_sampling(self._sampling)
        self.slots = slots
        self.server = server
        self.client = Client(server, slots)
        # Lanes that nobody closes must not keep their thread for the rest of the program.
        self._close = weakref.finalize(self, self.client.close)
        self._max_tokens = max_tokens
        self._spend_limit = spend_limit or SpendLimit()
        self._prompt = prompt
        self._prompt_edits = prompt_edits
        self._track_logprobs = track_logprobs or (lambda item: ())
        self._slots: dict[str, _StreamSlot] = {}
        self._per_byte = 0.0  # tokens of a prompt for each byte by the last usage; 0: unknown

    def close(self) -> None:
        """End all requests and the client's thread."""
        self._close()

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a slot; its past is taken from the reports, not from the server."""
        prompt = self._prompt(item, prompt_edits_of(lane, self._prompt_edits))
        slot = _StreamSlot(lane, prompt, self._track_logprobs(item))
        for report in lane.past:
            _add(slot, report)
        self._slots[lane.key] = slot

    def rewind(self, lane: Lane, to: int) -> None:
        """Crop the lane's answer to `to` pieces and close its stream."""
        prompt_edits_of(lane, self._prompt_edits)  # raises for unknown edits
        slot = self._slots[lane.key]
        slot.lane = lane
        self._break_off(slot)
        if to < len(slot.tokens):
            slot.text = slot.text[: slot.starts[to]]
            del slot.tokens[to:], slot.starts[to:], slot.logprobs[to:], slot.counts[to:]
            del slot.tracked[to:]
            slot.finished = slot.ended = False

    def drop(self, key: str) -> None:
        """Free the lane's slot and close its stream."""
        self._break_off(self._slots.pop(key))
        self._tell()

    def output(self, key: str) -> Text:
        """Return the answer so far; its tokens are the numbers of its pieces."""
        slot = self._slots[key]
        starts, logprobs = tuple(slot.starts), tuple(slot.logprobs)
        tracked = tuple(slot.tracked)
        return Text(slot.text, tuple(slot.tokens), starts, logprobs, slot.ended, tracked)

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Return the next piece of every lane that has one; wait up to `WAIT` where none has."""
        self._tell()
        # Cleared before looking: a chunk that arrives after the look ends the wait below at once.
        self.client.arrived.clear()
        moved, refused, error = self._poll()
        if moved:  # they are paid for, so they are reported before an error is raised
            return moved
        if error is not None:
            raise error
        going = any(slot.request is not None for slot in self._slots.values())
        if refused and not going:
            raise Exhausted(refused, StopKind.BUDGET)
        if going:
            self.client.arrived.wait(WAIT)
        return self._poll()[0]

    def _tell(self) -> None:
        """Warn of what the server does not take, in the caller's thread."""
        for notice in self.client.dialect.take_notices():
            warnings.warn(notice, stacklevel=3)

    def _poll(self) -> tuple[dict[str, Report], str, Exception | None]:
        """Return the reports, why the spend limit refused a request, and the server's error."""
        moved: dict[str, Report] = {}
        refused, server_error = "", None
        for key, slot in self._slots.items():
            if slot.finished:
                continue
            try:
                report = self._next(slot)
            except ServerError as error:
                server_error = error
            except _OverBudget as refusal:
                refused = str(refusal)
            else:
                if report is not None:
                    _add(slot, report)
                    moved[key] = report
        return moved, refused, server_error

    def _next(self, slot: _StreamSlot) -> Report | None:
        """Return the report of a lane's next piece, None where none has arrived."""
        forced = forced_at(slot.lane, len(slot.tokens), slot.tokens)
        if forced is not None:
            return self._force(slot, forced)
        full = sum(slot.counts) >= self._max_tokens
        if full and slot.request is None:
            return self._report(slot, "", 0) | self._ending(Finish.LENGTH)
        try:
            if slot.request is None:
                slot.request = self._send(slot)
            chunk = slot.request.stream.take()
        except (PermanentError, ItemError) as error:
            self._break_off(slot)
            return self._report(slot, "", 0) | {"error": str(error)}
        except CannotContinue as error:
            self._break_off(slot)
            return self._report(slot, "", 0) | {"failed": str(error)}
        if chunk is None:
            return None
        if full and chunk.text:  # the server writes beyond the limit
            return self._cut(slot, slot.request, chunk)
        return self._received(slot, slot.request, chunk)

    def _cut(self, slot: _StreamSlot, request: _Request, chunk: StreamChunk) -> Report:
        """End an answer at its limit, and count the chunk beyond it as wasted."""
        tokens = chunk.tokens + chunk.repeated
        cost = self.server.cost(chunk.wasted_prompts * request.prompt, tokens)
        request.reserved.used_tokens += tokens
        request.reserved.used_cost += cost
        slot.wasted = (slot.wasted[0] + tokens, slot.wasted[1] + cost)
        self._break_off(slot)
        return self._report(slot, "", 0) | self._ending(Finish.LENGTH)

    def _force(self, slot: _StreamSlot, number: int) -> Report:
        """Write a piece of a `force` edit; the server's answer from here on is another one."""
        self._break_off(slot)
        report = self._report(slot, text_ids.character(number) or "", 0)
        if number == text_ids.END:
            ended = "It wrote the end of text."
            report |= {"token": text_ids.END, "finish": Finish.STOP.value, "ended": ended}
        return report

    # Requests ---------------------------------------------------------------------------------

    def _send(self, slot: _StreamSlot) -> _Request:
        """Reserve the most that a request may spend, and send it."""
        lane, position = slot.lane, len(slot.tokens)
        continues = self.server.continues
        # A server that starts again must write the same prefix, so its seed stays the same.
        at = position if continues else 0
        request = CompletionRequest(
            prompt=slot.prompt,
            prefix=slot.text,
            max_tokens=self._max_tokens - sum(slot.counts),
            total_tokens=self._max_tokens,
            seed=fold_in(lane.seed, lane.key, lane.round, lane.backtracks, at) % SEEDS,
            sampling=sampling_at(lane, position, self._sampling),
        )
        most = request.max_tokens if continues else request.total_tokens
        cost = self.server.cost(request.bytes, most)
        reserved = self._spend_limit.reserve(most, cost)
        if reserved is None:
            raise _OverBudget(self._spend_limit.refusal(most, cost))
        try:
            stream = self.client.start(request)
        except BaseException:
            self._spend_limit.settle(reserved)
            raise
        prompt = round(request.bytes * (self._per_byte or GUESSED_PER_BYTE))
        return _Request(stream, reserved, request.bytes, prompt)

    def _received(self, slot: _StreamSlot, request: _Request, chunk: StreamChunk) -> Report:
        """Count what a chunk cost, and return its report."""
        tokens, prompt = chunk.tokens, chunk.wasted_prompts * request.prompt
        report: dict[str, object] = {}
        if request.new:
            request.new = False
            report["calls"] = 1
            prompt += request.prompt
        request.prompts += chunk.wasted_prompts
        usage = chunk.usage
        if usage is not None:  # the last report corrects the sums of the earlier ones
            tokens = usage.tokens - request.tokens - chunk.repeated
            prompt += (usage.prompt - request.prompt) * request.prompts
            self._per_byte = usage.prompt / request.bytes
        request.tokens += tokens + chunk.repeated
        cost = self.server.cost(prompt, tokens + chunk.repeated)
        request.reserved.used_tokens += tokens + chunk.repeated
        request.reserved.used_cost += cost
        if prompt:
            report["prompt"] = prompt
        report |= self._report(slot, chunk.text, tokens, chunk.repeated, cost)
        if chunk.logprob is not None:
            report["logprob"] = chunk.logprob
        tracked = start_logprobs(slot.tracked_texts, chunk.top_logprobs)
        if tracked:
            report["tracked_logprobs"] = tracked
        if chunk.finish:
            report |= self._ending(chunk.finish, chunk.detail)
            if not chunk.text:
                report["token"] = text_ids.END
            self._settle(slot)
        return report

    def _report(
        self, slot: _StreamSlot, text: str, tokens: int, repeated: int = 0, cost: float = 0.0
    ) -> dict[str, object]:
        """Return a report that also counts what was wasted since the one before."""
        wasted, wasted_cost = slot.wasted
        slot.wasted = (0, 0.0)
        report: dict[str, object] = {
            "token": text_ids.text_id(text),
            "text": text,
            "tokens": tokens,
            "computed": tokens + repeated + wasted,
        }
        if self.server.priced:
            report["cost"] = cost + wasted_cost
        return report

    def _ending(self, finish: Finish, detail: str = "") -> dict[str, object]:
        """Return the keys of a lane's last report, from why its answer finished."""
        match finish:
            case Finish.STOP:
                why = {"ended": "The server ended the text."}
            case Finish.LENGTH:
                why = {"out_of_room": f"The limit of {self._max_tokens} tokens is reached."}
            case Finish.CONTENT_FILTER:
                why = {"failed": "The server's content filter cut it off."}
            case Finish.TOOL_CALLS:
                why = {"failed": f"The server's model called a tool ({detail or 'unnamed'})."}
            case Finish.REFUSAL:
                why = {"failed": f"The server's model refused: {detail}"}
            case Finish.NO_TEXT:
                why = {
                    "failed": f"The server sent {detail or 'nothing'} and no text, with a limit of "
                    f"{counted(self._max_tokens, 'tokens')}. If it was spent on reasoning, "
                    "raise the limit."
                }
        return {"finish": finish.value, **why}

    def _break_off(self, slot: _StreamSlot) -> None:
        """Close a lane's stream, and count what it had received as wasted."""
        request = slot.request
        if request is None:
            return
        left = request.stream.close()
        tokens = sum(chunk.tokens + chunk.repeated for chunk in left)
        # More than the final chunk of waste: the server has read the prompt and started to answer.
        prompts = sum(chunk.wasted_prompts for chunk in left) + (request.new and len(left) > 1)
        cost = self.server.cost(prompts * request.prompt, tokens)
        request.reserved.used_tokens += tokens
        request.reserved.used_cost += cost
        slot.wasted = (slot.wasted[0] + tokens, slot.wasted[1] + cost)
        self._settle(slot)

    def _settle(self, slot: _StreamSlot) -> None:
        assert slot.request is not None
        self._spend_limit.settle(slot.request.reserved)
        slot.request = None

    # Edits ------------------------------------------------------------------------------------

    @property
    def known_edits(self) -> Mapping[str, EditKind]:
        """The names of a lane's edits, with the type of their values."""
        return {**KNOWN, **dict.fromkeys(self._prompt_edits, "any")}


class _OverBudget(Exception):
    """The spend limit does not cover a request."""


def _add(slot: _StreamSlot, report: Mapping[str, Any]) -> None:
    """Append a report's piece to the answer."""
    slot.tokens.append(report["token"])
    slot.starts.append(len(slot.text))
    slot.logprobs.append(report.get("logprob", 0.0))
    slot.counts.append(report["tokens"])
    slot.tracked.append(dict(report.get("tracked_logprobs", ())))
    slot.text += report["text"]
    slot.finished = is_end(report)
    slot.ended = report.get("finish") == Finish.STOP
