"""Refine: write a text for every item until it passes its checks.

No process and no driver: it builds `Loop(Lanes(Decode(…)))` and says what came out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Literal

from ostinato.checks import TIME_LIMIT, Template, judge_all, required_by
from ostinato.decode import Constraint, Decode, SamplingParams, TokenPrompt
from ostinato.errors import InputError, ItemError
from ostinato.journal import Journal, Run
from ostinato.loop import (
    Budget,
    Check,
    CheckpointSchedule,
    Condition,
    LaneProcess,
    Lanes,
    Loop,
    Seconds,
    Steps,
    Verdict,
    check_seed,
    content_keys,
)
from ostinato.models import LanguageModel, load_model
from ostinato.refine.prompts import Message, PlainPrompt, with_feedback
from ostinato.refine.strategies.backtrack import Backtrack
from ostinato.refine.strategies.base import SteeringContext, Strategy
from ostinato.refine.strategies.still_passable import StillPassable
from ostinato.remote import (
    END,
    Server,
    ServerLanes,
    SpendLimit,
    check_sampling,
    is_server,
    sign,
    spell,
)

Row = Mapping[str, object]
PromptOf = Callable[[Row, Mapping[str, object]], str | Sequence[Message] | TokenPrompt]
"""Makes an item's prompt: `prompt(item, edits)`; `edits["feedback"]` holds the last draft.

A `PromptTemplate` is for a model in this process: its tokens are taken as they are."""

DEFAULT_SAMPLING = SamplingParams(temperature=0.7, top_k=50)
PROMPT_EDITS = frozenset({"feedback"})


class Refine:
    """Write a text for every item until it passes `checks`.

    `model` is a loaded model, a `Server`, or the name of either; `items` are mappings, or pairs
    (key, mapping); `prompt` is a template with `{column}` in it, or a function of (item, edits)
    that returns a text or chat messages. A prompt that is a text is the user's message where the
    model has a chat template. `max_new_tokens` cuts a draft, `tokens` and `seconds` are an item's
    budgets over all its rounds; `allowance` limits what a server may spend on all items. `ready`
    gives the answer of an item that needs no model. `slots` is how many items are written side by
    side; results do not depend on it.
    """

    def __init__(
        self,
        model: LanguageModel | Server | str,
        items: Iterable[Row | tuple[str, Row]],
        *,
        prompt: str | PromptOf,
        checks: Sequence[Check],
        strategy: Strategy | None = None,
        sampling: SamplingParams = DEFAULT_SAMPLING,
        max_new_tokens: int = 128,
        tokens: int | None = None,
        seconds: float | None = None,
        seed: int = 0,
        slots: int = 16,
        block: int = 16,
        time_limit: float = TIME_LIMIT,
        alternatives: int = 0,
        ready: Callable[[Row], str | None] | None = None,
        allowance: SpendLimit | None = None,
    ) -> None:
        check_seed(seed)
        items = _keyed(items)
        self.model = _opened(model)
        self.checks = tuple(checks)
        self.strategy = strategy or Backtrack()
        self.items = items
        self._prompt = template(prompt) if isinstance(prompt, str) else prompt
        self._time_limit = time_limit
        self.decode: Decode | ServerLanes
        if isinstance(self.model, Server):
            self._words = SteeringContext(
                spell,
                END,
                self.checks,
                time_limit,
                continues=self.model.continues,
                costly=True,
                sign=sign,
            )
            self.decode = self._server_lanes(
                self.model, sampling, max_new_tokens, slots, allowance or SpendLimit()
            )
        else:
            self._refuse_messages_without_template(self.model)
            end = min(self.model.tokenizer.eos_ids, default=None)
            self._words = SteeringContext(self.model.tokenizer.encode, end, self.checks, time_limit)
            self._limit = max_new_tokens
            self.decode = Decode(
                self.model,
                self._tokens,
                sampling=sampling,
                slots=max(slots, self.strategy.lanes),
                block=block,
                alternatives=alternatives,
                prompt_edits=PROMPT_EDITS,
                limit=max_new_tokens,
            )
        self.lanes = Lanes(
            self._lane_process(),
            self.items,
            each=self._each(max_new_tokens, tokens, seconds),
            judge=self._judge,
            on_stop=self.strategy.on_stop(self._words),
            seed=seed,
            ready=None if ready is None else lambda item: ready(_row(item)),
        )
        self._allowance = allowance
        if allowance is not None:
            allowance.before = lambda: self.lanes.spent

    def loop(
        self,
        *,
        until: Condition | None = None,
        run: Run | str | None = None,
        journal: Journal | None = None,
        keep: Literal["steps", "results"] = "steps",
        checkpoint: CheckpointSchedule | None = None,
    ) -> Loop:
        """Return the loop over all items; `until` is the budget of the whole job."""
        return Loop(
            self.lanes,
            until=until or Steps(1 << 62),
            run=run,
            journal=journal,
            keep=keep,
            checkpoint=checkpoint or (CheckpointSchedule(steps=64) if run is not None else None),
        )

    def run(self) -> list[Row]:
        """Run to the end without a journal; return the results in the order of the items."""
        return sorted(self, key=lambda row: int(str(row["index"])))

    def __iter__(self) -> Iterator[Row]:
        """Run without a journal; yield results as they come."""
        for step in self.loop():
            for _, row in step.results:
                yield row

    def _server_lanes(
        self,
        server: Server,
        sampling: SamplingParams,
        max_tokens: int,
        slots: int,
        allowance: SpendLimit,
    ) -> ServerLanes:
        return ServerLanes(
            server,
            self._of_text,
            sampling=check_sampling(server, server_sampling(server, sampling)),
            max_tokens=max_tokens,
            slots=slots,
            allowance=allowance,
            prompt_edits=PROMPT_EDITS,
            track_logprobs=lambda item: self._wanted(_row(item)),
        )

    def _lane_process(self) -> LaneProcess:
        """Return what writes the items: lanes of the model or server, or groups of the former."""
        if isinstance(self.decode, Decode):
            return self.strategy.process(self.decode, self._words)
        if self.strategy.masks or self.strategy.lanes > 1:
            raise InputError(
                f"The strategy {self.strategy.kind!r} must have a model in this process, got a "
                "server. Use backtrack, abort, feedback or resample."
            )
        return self.decode

    def _refuse_messages_without_template(self, model: LanguageModel) -> None:
        """Refuse chat messages, which feedback is too, for a model that cannot be given any."""
        if model.tokenizer.chat_template is not None:
            return
        feedback = {"feedback": {"draft": "", "reasons": []}}
        try:
            prompt = self._prompt(self.items[0][1], feedback if self.strategy.tells else {})
        except ItemError:
            return
        if isinstance(prompt, str | TokenPrompt):
            return
        what = f"the strategy {self.strategy.kind!r} writes" if self.strategy.tells else "it makes"
        raise InputError(
            f"The prompt must be a text, as the model {model.name!r} has no chat template, "
            f"got chat messages: {what} them. Use a model tuned for conversations"
            + (", another strategy" if self.strategy.tells else "")
            + ", or a text to go on with: plain = true in a job's [prompt], or a prompt function "
            "that returns a text."
        )

    # What Lanes and Decode ask ----------------------------------------------------------------

    def _each(self, length: int, tokens: int | None, seconds: float | None) -> Condition:
        each: Condition = Steps(self.strategy.steps(length))
        if tokens is not None:
            each = each | Budget("tokens", tokens)
        if seconds is not None:
            each = each | Seconds(seconds)
        if not self.strategy.checks_prefixes:
            return each
        return each | StillPassable(self.checks, self._time_limit, self._words.late)

    def _judge(self, output: object, item: object) -> Sequence[Verdict]:
        verdicts = judge_all(self.checks, output, _row(item), self._time_limit)
        if self._allowance is not None:
            self._allowance.charge(sum(verdict.cost for verdict in verdicts))
        return verdicts

    def _tokens(self, item: object, edits: Mapping[str, object]) -> TokenPrompt:
        row = _row(item)
        prompt = self._prompt(row, edits)
        assert not isinstance(self.model, Server)
        tokenizer = self.model.tokenizer
        if isinstance(prompt, TokenPrompt):
            room = self._limit
            return replace(prompt, constraint=prompt.constraint or self._constraint(row, room))
        if not isinstance(prompt, str):
            tokens = tokenizer.chat(prompt)
        elif tokenizer.chat_template is not None and not isinstance(prompt, PlainPrompt):
            tokens = tokenizer.chat([{"role": "user", "content": prompt}])
        else:
            tokens = [*tokenizer.bos_ids, *tokenizer.encode(prompt)]
        room = min(self._limit, self.model.config.max_position_embeddings - len(tokens))
        return TokenPrompt(
            tokens, track_logprobs=self._watched(row), constraint=self._constraint(row, room)
        )

    def _of_text(self, item: object, edits: Mapping[str, object]) -> str | Sequence[Message]:
        """Return an item's prompt for a server. Raises `ItemError` for one of tokens."""
        prompt = self._prompt(_row(item), edits)
        if isinstance(prompt, TokenPrompt):
            raise ItemError("A server's prompt must be a text or chat messages, got tokens.")
        return prompt

    def _constraint(self, row: Row, room: int) -> Constraint | None:
        """Return what the checks demand of an item's text, where the strategy makes masks of it.

        Where no text of `room` tokens is found that meets it, none is kept.
        """
        if not self.strategy.masks:
            return None
        from ostinato.refine.strategies.constrain import constraint_of, fitting

        assert not isinstance(self.model, Server)
        found = constraint_of(self.checks, row, self.model.tokenizer).constraint
        return found and fitting(found, self.model.tokenizer, room)

    def _watched(self, row: Row) -> list[int]:
        """Return the first tokens of what the text must say, to see where it is likeliest."""
        return sorted({self._words.sign_of(text) for text in self._wanted(row)})

    def _wanted(self, row: Row) -> list[str]:
        """Return the texts of which one must be said, with and without a space before them."""
        if not self.strategy.checks_prefixes:
            return []
        found = required_by(self.checks, "", row, self._time_limit, self._words.late)
        texts = [text for one in found for text in one.texts]
        return [spaced for text in texts for spaced in (text, f" {text}")]


def template(text: str) -> PromptOf:
    """Make a prompt of a template with `{column}` in it; feedback comes as further turns."""
    filled = Template(text)

    def prompt(row: Row, edits: Mapping[str, object]) -> str | Sequence[Message]:
        asked = filled.fill(row)
        feedback = edits.get("feedback")
        if not isinstance(feedback, Mapping):
            return asked
        return with_feedback([{"role": "user", "content": asked}], feedback)

    return prompt


def _opened(model: LanguageModel | Server | str) -> LanguageModel | Server:
    if not isinstance(model, str):
        return model
    return Server.of(model) if is_server(model) else load_model(model)


def server_sampling(server: Server, sampling: SamplingParams) -> dict[str, float]:
    """Return settings for a server; a `top_k` that it does not know is left out if not asked for.

    Raises `InputError` for a bias on tokens, which are not known here.
    """
    values = asdict(sampling)
    for name in ("logit_bias", "end_bias"):
        biased = values.pop(name, None)
        if biased:
            raise InputError(
                f"{name} must be left out with a server, whose tokens are not known, got {biased}. "
                "Take it out."
            )
    usual = not server.extensions and sampling.top_k == DEFAULT_SAMPLING.top_k
    return values | ({"top_k": 0} if usual else {})


def _row(item: object) -> Row:
    assert isinstance(item, Mapping)
    return item


def _keyed(items: Iterable[Row | tuple[str, Row]]) -> list[tuple[str, Row]]:
    """Give each item its key: the given one, its `id`, else its content's hash and occurrence.

    Raises `InputError` that names the item (counted from 1) and the mend.
    """
    given = [_pair(number, item) for number, item in enumerate(items, 1)]
    if not given:
        raise InputError("A refine job must have at least one item, got none.")
    hashes = content_keys([row for _, row in given])
    keys = [key if key is not None else own for (key, _), own in zip(given, hashes, strict=True)]
    seen: dict[str, int] = {}
    for number, key in enumerate(keys, 1):
        if key in seen:
            raise InputError(
                f"Item {number} must have an id of its own, got {key!r} as item {seen[key]}. "
                "Give it another."
            )
        seen[key] = number
    return [(key, row) for key, (_, row) in zip(keys, given, strict=True)]


def _pair(number: int, item: object) -> tuple[str | None, Row]:
    """Return an item's given key, if it has one, and its columns."""
    pair = isinstance(item, tuple) and len(item) == 2
    key, row = item if isinstance(item, tuple) and pair else (None, item)
    if not isinstance(row, Mapping):
        raise InputError(
            f"Item {number} must be a mapping of columns, or a pair of a key and one, got "
            f"{item!r:.60}. Write for example {{'message': …}}."
        )
    if not pair and "id" not in row:
        return None, row
    key = key if pair else row["id"]
    if isinstance(key, bool) or not isinstance(key, str | int) or not str(key).strip():
        mend = "Give it a key" if pair else "Give it one, or leave 'id' out"
        raise InputError(
            f"The {'key' if pair else 'id'} of item {number} must be a text or a whole number, "
            f"got {key!r}. {mend}."
        )
    return str(key), row
