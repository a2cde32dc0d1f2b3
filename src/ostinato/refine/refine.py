"""Refine: write a text for every item until it passes its checks.

Knows no driver and no job file: it builds `Loop(Lanes(Decode(…)))` and returns the rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Literal

from ostinato.arguments import require_above, require_arguments, require_at_least
from ostinato.checks import TIME_LIMIT, judge_all
from ostinato.decode import Constraint, Decode, SamplingParams, TokenPrompt
from ostinato.errors import InputError, ItemError
from ostinato.journal import JSON, Journal, Run, RunSource
from ostinato.loop import (
    Budget,
    Check,
    CheckpointSchedule,
    Condition,
    LaneProcess,
    Lanes,
    Loop,
    OnStop,
    Seconds,
    Steps,
    UniqueItems,
    Verdict,
    check_seed,
    compute_mode,
    digest,
)
from ostinato.models import LanguageModel, shared_model
from ostinato.refine.inputs import (
    PromptOf,
    Row,
    check_value,
    checks_of,
    keyed,
    module_source,
    prompt_of,
    require_columns,
    strategy_of,
    strategy_value,
)
from ostinato.refine.loaded_later import LanesLater, LoadedLater
from ostinato.refine.progress import in_terminal, progress_of
from ostinato.refine.prompts import Message, PlainPrompt, refuse_unusable
from ostinato.refine.recorded import Recorded
from ostinato.refine.results import from_lane
from ostinato.refine.strategies.base import SteeringContext, StillPassable, Strategy
from ostinato.remote import (
    END,
    Server,
    ServerLanes,
    SpendLimit,
    character_ids,
    check_sampling,
    is_server,
    text_id,
)
from ostinato.text_files import half_character

DEFAULT_SAMPLING = SamplingParams(temperature=0.7, top_k=50)
# `Decode` passes these edits to the prompt function.
PROMPT_EDITS = frozenset({"feedback"})


class Refine:
    """Write a text for every item until it passes `checks`.

    `model`: a loaded model, a `Server`, or the name of either. `items`: mappings of columns, or
    pairs of a key and a mapping; a job's `UniqueItems` are read as they are needed. `prompt`: a
    template with `{column}` fields, or a function of (item, edits) that returns a text or chat
    messages. A text is sent as the user's message if the model has a chat template. `checks`:
    checks, or functions of the text (and of the item). `strategy`: a strategy, or its kind.

    `max_new_tokens` limits one draft; `tokens` and `seconds` limit an item over all its rounds;
    `spend_limit` limits what a server may cost over all items. `alternatives` is the number of
    other likely tokens to record. `ready` returns the answer of an item that needs no model, or
    None. `slots` is the number of items written in parallel, `block` the number of rows that a
    product is padded to; results do not depend on `slots`. `time_limit` is in seconds, for one
    verdict of one check.
    """

    def __init__(
        self,
        model: LanguageModel | Server | str | LoadedLater,
        items: Iterable[Row | tuple[str, Row]] | UniqueItems,
        *,
        prompt: str | PromptOf,
        checks: Iterable[Check | Callable[..., object]],
        strategy: Strategy | str | None = None,
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
        spend_limit: SpendLimit | None = None,
    ) -> None:
        check_seed(seed)
        given = {**locals(), "checks": ()}
        self.items = items if isinstance(items, UniqueItems) else keyed(items)
        self.prompt = prompt
        self.checks = checks_of(checks)
        self.strategy = strategy_of(strategy)
        self._prompt = _of_usable(prompt_of(prompt), self.checks)
        if not isinstance(self.items, UniqueItems):  # whoever made those has looked at each
            require_columns(self.items, prompt, self.checks)
        require_arguments(Refine.__init__, given)
        require_at_least(1, slots=slots, block=block, max_new_tokens=max_new_tokens)
        limits = {"tokens": tokens, "seconds": seconds}
        require_above(0, **{name: limit for name, limit in limits.items() if limit is not None})
        require_above(0, time_limit=time_limit)
        require_at_least(0, alternatives=alternatives)
        self.sampling, self.seed = sampling, seed
        self.limits = {**limits, "max_new_tokens": max_new_tokens}
        self._time_limit = time_limit
        self._max_new_tokens = max_new_tokens
        self._slots, self._block, self._alternatives = slots, block, alternatives
        self._spend_limit = spend_limit
        self._given_model = model
        self._late = set[str]()  # checks that took too long on a prefix
        self.lanes = Lanes(
            self._lanes_of(model),  # last: everything above is quicker to refuse
            self.items,
            each=self._end_of_draft(tokens, seconds),
            judge=_Judges(self.checks, time_limit, spend_limit),
            on_stop=lambda stopped, history: self._on_stop(stopped, history),
            seed=seed,
            ready=None if ready is None else lambda item: ready(_row(item)),
        )
        if spend_limit is not None:
            # What the run spent before it was resumed counts, and the lanes restore that.
            spend_limit.before = lambda: self.lanes.spent

    @cached_property
    def model(self) -> LanguageModel | Server:
        """The model, which is loaded now if it was not needed before."""
        model = self._given_model
        if isinstance(model, LoadedLater):
            return model.load()
        if not isinstance(model, str):
            return model
        return Server.of(model) if is_server(model) else shared_model(model)

    @cached_property
    def decode(self) -> Decode | ServerLanes:
        """What writes the tokens: the model's lanes, or those of a server."""
        if isinstance(self.model, Server):
            return self._server_lanes(self.model, self._spend_limit or SpendLimit())
        return self._decode(self.model)

    def loop(
        self,
        *,
        until: Condition | None = None,
        run: RunSource | str | None = None,
        journal: Journal | None = None,
        keep: Literal["steps", "results"] = "steps",
        checkpoint: CheckpointSchedule | None = None,
    ) -> Loop:
        """Return the loop over all items; `until` is the budget of all items together."""
        return Loop(
            self.lanes,
            # No budget: the lanes end the loop when no item is left.
            until=until or Steps(1 << 62),
            run=run,
            journal=journal,
            keep=keep,
            checkpoint=checkpoint or (CheckpointSchedule(steps=64) if run is not None else None),
        )

    def run(
        self,
        *,
        run: Run | str | None = None,
        journal: Journal | None = None,
        progress: bool = True,
    ) -> list[Row]:
        """Run to the end; return the results in the order of the items.

        Each has the keys of a job's output (docs/jobs.md). With `run`, a name, they are recorded:
        the same call resumes, and returns what is there already. Raises `InputError` for a run of
        other items, checks or settings. `progress`: show a line where standard error is a terminal.
        """
        with Recorded(self._inputs(), run, journal) as recorded:
            loop = self.loop(run=recorded.run, keep="results")
            done = dict(recorded.results())
            quiet = not (progress and in_terminal())
            display = progress_of(len(self.items), recorded.run, quiet=quiet)
            with loop, display:
                for step in loop:
                    display.step(step)
                    done |= step.results
        return [self._result(key, done[key]) for key, _ in self.items if key in done]

    def __iter__(self) -> Iterator[Row]:
        """Run without a journal; yield each result, as of `run`, when it is ready."""
        for step in self.loop():
            for key, row in step.results:
                yield self._result(key, row)

    def _inputs(self) -> dict[str, JSON]:
        """Return by name a hash of each thing that results depend on."""
        prompt = self.prompt
        return {
            "model": digest(self.model.name),
            "items": digest([[key, dict(_row(row))] for key, row in self.items]),
            "prompt": digest(prompt if isinstance(prompt, str) else module_source(prompt)),
            "checks": digest([check_value(check) for check in self.checks]),
            "strategy": digest(strategy_value(self.strategy)),
            "sampling": digest(asdict(self.sampling)),
            "limits": digest(self.limits),
            "seed": digest(self.seed),
        }

    def _result(self, key: str, row: Mapping[str, object]) -> Row:
        return from_lane(key, row, columns=self._columns[key]).to_json()

    @cached_property
    def _columns(self) -> dict[str, Row]:
        return {key: _row(item) for key, item in self.items}

    # The lane process -------------------------------------------------------------------------

    @cached_property
    def _on_stop(self) -> OnStop:
        return self.strategy.on_stop(self._context)

    @cached_property
    def _context(self) -> SteeringContext:
        if isinstance(self.model, Server):
            return SteeringContext(
                character_ids,
                END,
                self.checks,
                self._time_limit,
                can_continue=self.model.continues,
                pays_per_token=True,
                tracking_id=text_id,
                late=self._late,
            )
        tokenizer = self.model.tokenizer
        end = min(tokenizer.eos_ids, default=None)
        return SteeringContext(
            tokenizer.continuation, end, self.checks, self._time_limit, late=self._late
        )

    def _server_lanes(self, server: Server, spend_limit: SpendLimit) -> ServerLanes:
        return ServerLanes(
            server,
            self._server_prompt,
            sampling=check_sampling(server, server_sampling(server, self.sampling)),
            max_tokens=self._max_new_tokens,
            slots=self._slots,
            spend_limit=spend_limit,
            prompt_edits=PROMPT_EDITS,
            track_logprobs=self._tracked_texts,
        )

    def _decode(self, model: LanguageModel) -> Decode:
        self._refuse_messages_without_template(model)
        return Decode(
            model,
            self._token_prompt,
            sampling=self.sampling,
            # A group of lanes needs all of its slots at once.
            slots=max(self._slots, self.strategy.lanes),
            block=self._block,
            alternatives=self._alternatives,
            prompt_edits=PROMPT_EDITS,
            limit=self._max_new_tokens,
        )

    def _lanes_of(self, model: object) -> LaneProcess:
        if isinstance(model, LoadedLater):
            return LanesLater(self._lane_process)
        return self._lane_process()

    def _lane_process(self) -> LaneProcess:
        """Return the lanes of the server or of the model, or groups of the model's lanes."""
        if isinstance(self.decode, Decode):
            return self.strategy.process(self.decode, self._context)
        if self.strategy.masks or self.strategy.lanes > 1:
            raise InputError(
                f"The strategy of a model on a server must be backtrack, abort, feedback or "
                f"resample, got {self.strategy.kind!r}. Choose one, or load the model here."
            )
        return self.decode

    def _refuse_messages_without_template(self, model: LanguageModel) -> None:
        """Raise `InputError` for chat messages if the model has no template to write them with.

        Only the first item is tried: that finds a wrong job before any work. A feedback prompt is
        chat messages, too.
        """
        if model.tokenizer.chat_template is not None:
            return
        strategy = self.strategy
        feedback = {"feedback": {"draft": "", "reasons": []}}
        first = _row(next(iter(self.items))[1])
        try:
            prompt = self._prompt(first, feedback if strategy.gives_feedback else {})
        except ItemError:
            return
        if isinstance(prompt, str | TokenPrompt):
            return
        cause = f"from the strategy {strategy.kind!r}" if strategy.gives_feedback else "from it"
        raise InputError(
            f"The prompt must be a text, as the model {model.name!r} has no chat template, "
            f"got chat messages {cause}. Use a model tuned for conversations"
            + (", another strategy" if strategy.gives_feedback else "")
            + ", or a plain text: plain = true in a job's [prompt], or a prompt function that "
            "returns a text."
        )

    # Callbacks of Lanes and Decode ------------------------------------------------------------

    def _end_of_draft(self, tokens: int | None, seconds: float | None) -> Condition:
        each: Condition = Steps(self.strategy.steps(self._max_new_tokens))
        if tokens is not None:
            each = each | Budget("tokens", tokens)
        if seconds is not None:
            each = each | Seconds(seconds)
        if not self.strategy.checks_prefixes:
            return each
        return each | StillPassable(self.checks, self._time_limit, self._late)

    def _token_prompt(self, item: object, edits: Mapping[str, object]) -> TokenPrompt:
        row = _row(item)
        prompt = self._prompt(row, edits)
        assert not isinstance(self.model, Server)
        tokenizer = self.model.tokenizer
        if isinstance(prompt, TokenPrompt):
            room = self._max_new_tokens
            return replace(prompt, constraint=prompt.constraint or self._constraint(row, room))
        if not isinstance(prompt, str):
            tokens = tokenizer.chat(prompt)
        elif tokenizer.chat_template is not None and not isinstance(prompt, PlainPrompt):
            tokens = tokenizer.chat([{"role": "user", "content": prompt}])
        else:
            tokenizer.require_known(prompt)
            tokens = tokenizer.prompt(prompt)
        room = min(self._max_new_tokens, self.model.config.max_position_embeddings - len(tokens))
        return TokenPrompt(
            tokens, track_logprobs=self._tracked(row), constraint=self._constraint(row, room)
        )

    def _server_prompt(self, item: object, edits: Mapping[str, object]) -> str | Sequence[Message]:
        """Return an item's prompt for a server. Raises `ItemError` for a prompt of tokens."""
        prompt = self._prompt(_row(item), edits)
        if isinstance(prompt, TokenPrompt):
            raise ItemError(
                "A server's prompt must be a text or chat messages, got tokens. Return a text."
            )
        return prompt

    def _constraint(self, row: Row, room: int) -> Constraint | None:
        """Return the checks as a mask, if the strategy masks.

        It keeps room to close within `room` tokens, unless no such text is found.
        """
        if not self.strategy.masks:
            return None
        # Imported here: only strategies with masks need it.
        from ostinato.refine.strategies.constrain import constraint_of, fitting

        assert not isinstance(self.model, Server)
        found = constraint_of(self.checks, row, self.model.tokenizer).constraint
        return found and fitting(found, self.model.tokenizer, room)

    def _tracked(self, row: Row) -> list[int]:
        """Return the tokens to track; none for a strategy that inserts no required text."""
        return self._context.required_ids(row) if self.strategy.checks_prefixes else []

    def _tracked_texts(self, item: object) -> list[str]:
        """Return the same for a server, whose tokens are not known: texts."""
        return self._context.required_texts(_row(item)) if self.strategy.checks_prefixes else []


@dataclass(frozen=True)
class _Judges:
    """Judges with every check; a judge on a server is charged after the fact."""

    checks: tuple[Check, ...]
    time_limit: float
    spend_limit: SpendLimit | None

    def __call__(self, output: object, item: object) -> Sequence[Verdict]:
        verdicts = judge_all(self.checks, output, _row(item), self.time_limit)
        if self.spend_limit is not None:
            self.spend_limit.charge(sum(verdict.cost for verdict in verdicts))
        return verdicts

    @property
    def compute_mode(self) -> str:
        """How each check's model computes, as JSON by the check's name; "" without such a check."""
        modes = {check.name: compute_mode(check) for check in self.checks}
        modes = {name: mode for name, mode in modes.items() if mode}
        return json.dumps(modes) if modes else ""

    def use_compute_mode(self, mode: str) -> None:
        """Let each check's model compute in its recorded mode."""
        modes = json.loads(mode)
        for check in self.checks:
            use = getattr(check, "use_compute_mode", None)
            if use is not None and check.name in modes:
                use(modes[check.name])


def _of_usable(prompt: PromptOf, checks: Sequence[Check]) -> PromptOf:
    """Return a prompt function that raises `ItemError` for an item or prompt of no use."""

    def checked(row: Row, edits: Mapping[str, object]) -> str | Sequence[Message] | TokenPrompt:
        refuse_unusable(row, checks)
        made = prompt(row, edits)
        if half := half_character(made):  # of a prompt function's own
            raise ItemError(f"The prompt must hold whole characters, got half of one, {half}.")
        return made

    return checked


def server_sampling(server: Server, sampling: SamplingParams) -> dict[str, float]:
    """Return the sampling parameters that a server accepts.

    The default `top_k` is dropped where the server has no such extension: the user did not set it.
    Raises `InputError` for a bias on tokens, whose ids are not known here.
    """
    values = asdict(sampling)
    for name in ("logit_bias", "end_bias"):
        bias = values.pop(name, None)
        if bias:
            raise InputError(
                f"{name} must be left out with a server, whose tokens are not known, got {bias}. "
                "Remove it."
            )
    unset = not server.extensions and sampling.top_k == DEFAULT_SAMPLING.top_k
    return values | ({"top_k": 0} if unset else {})


def _row(item: object) -> Row:
    assert isinstance(item, Mapping)
    return item
