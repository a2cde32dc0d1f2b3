"""Refine: write a text for every item until it passes its checks.

Knows no driver and no job file: it builds `Loop(Lanes(Decode(…)))` and returns the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cached_property
from typing import Literal

from ostinato.arguments import require_above, require_arguments, require_at_least
from ostinato.checks import TIME_LIMIT
from ostinato.decode import Constraint, Decode, SamplingParams, TokenPrompt
from ostinato.errors import InputError, ItemError
from ostinato.journal import Journal, Run, RunSource
from ostinato.loop import (
    Check,
    CheckpointSchedule,
    Condition,
    LaneProcess,
    LaneResult,
    Lanes,
    Loop,
    Policy,
    UniqueItems,
    check_seed,
)
from ostinato.models import LanguageModel, Tokenizer, shared_model
from ostinato.refine.drafts import Judges, end_of_draft, loop_of
from ostinato.refine.inputs import (
    PromptOf,
    Row,
    checks_of,
    keyed,
    prompt_of,
    require_columns,
    strategy_of,
    usable_prompt,
)
from ostinato.refine.progress import in_terminal, progress_of
from ostinato.refine.prompts import Message, PlainPrompt
from ostinato.refine.python_run import RefineConfig, run_of
from ostinato.refine.results import from_lane
from ostinato.refine.settings import ItemBudget, check_tables, strategy_table
from ostinato.refine.strategies.base import SteeringContext, Strategy
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

DEFAULT_SAMPLING = SamplingParams(temperature=0.7, top_k=50)
# `Decode` passes these edits to the prompt function.
PROMPT_EDITS = frozenset({"feedback"})


class Refine:
    """Write a text for every item until it passes `checks`.

    `model`: a loaded model, a `Server`, or the name of either. `items`: mappings of columns, or
    pairs of a key and a mapping; `UniqueItems` are read as they are needed. `prompt`: a template
    with `{column}` fields, or a function of (item, edits) that returns a text or chat messages. A
    text is sent as the user's message if the model has a chat template. `checks`: checks, or
    functions of the text (and of the item). `strategy`: a strategy, or its kind.

    `max_new_tokens` limits one draft; `tokens` and `seconds` limit an item over all its rounds;
    `spend_limit` limits what a server may cost over all items. `alternatives` is the number of
    other likely tokens to record. `ready` returns the answer of an item that needs no model, or
    None. `slots` is the number of items written in parallel, `block` the number of rows that a
    product is padded to; results do not depend on `slots`. `time_limit` is in seconds, for one
    verdict of one check.
    """

    def __init__(
        self,
        model: LanguageModel | Server | str,
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
        self._prompt = usable_prompt(prompt_of(prompt), self.checks)
        if not isinstance(self.items, UniqueItems):  # whoever made those has looked at each
            require_columns(self.items, prompt, self.checks)
        require_arguments(Refine.__init__, given)
        require_at_least(1, slots=slots, block=block, max_new_tokens=max_new_tokens)
        limits = {"tokens": tokens, "seconds": seconds}
        require_above(0, **{name: limit for name, limit in limits.items() if limit is not None})
        require_above(0, time_limit=time_limit)
        require_at_least(0, alternatives=alternatives)
        # Last: everything else is quicker to refuse.
        self.model = _opened(model)
        self.sampling, self.seed = sampling, seed
        self._budget = ItemBudget(item_tokens=tokens, item_seconds=seconds)
        self._time_limit = time_limit
        self._max_new_tokens = max_new_tokens
        self._context = self._steering_context()
        self._spend_limit = spend_limit
        self.decode: Decode | ServerLanes
        if isinstance(self.model, Server):
            self.decode = self._server_lanes(
                self.model, sampling, slots, spend_limit or SpendLimit()
            )
        else:
            self.decode = self._decode(self.model, sampling, slots, block, alternatives)
        self.policy = Policy(
            each=end_of_draft(
                self.strategy,
                self.checks,
                max_new_tokens=max_new_tokens,
                tokens=tokens,
                seconds=seconds,
                time_limit=time_limit,
                late=self._context.late,
            ),
            judge=Judges(self.checks, time_limit, spend_limit),
            on_stop=self.strategy.on_stop(self._context),
            ready=ready,
        )
        self.lanes = Lanes(self._lane_process(), self.items, self.policy, seed=seed)
        if spend_limit is not None:
            # What the run spent before it was resumed counts, and the lanes restore that.
            spend_limit.before = lambda: self.lanes.spent

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
        return loop_of(
            self.lanes, until=until, run=run, journal=journal, keep=keep, checkpoint=checkpoint
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
        other items, checks or settings, and tells each. `progress`: show a line where standard
        error is a terminal.
        """
        with ExitStack() as stack:
            recorded = self._recorded(run, journal, stack)
            loop = self.loop(run=recorded, keep="results")
            before = () if recorded is None else recorded.results()
            done = {key: LaneResult.from_json(row) for key, row in before}
            quiet = not (progress and in_terminal())
            display = progress_of(len(self.items), recorded, quiet=quiet)
            with loop, display:
                for step in loop:
                    display.step(step)
                    done |= {result.key: result for result in step.results}
        return [self._result(done[key]) for key, _ in self.items if key in done]

    def __iter__(self) -> Iterator[Row]:
        """Run without a journal; yield each result, as of `run`, when it is ready."""
        for step in self.loop():
            for result in step.results:
                yield self._result(result)

    def _recorded(
        self, run: Run | str | None, journal: Journal | None, stack: ExitStack
    ) -> Run | None:
        """Return the run to resume or to start; `stack` closes the journal opened for it."""
        if run is None:
            return None
        if isinstance(run, str) and journal is None:
            journal = stack.enter_context(Journal())
        return run_of(self._config(), run, journal)

    def _config(self) -> RefineConfig:
        """Return what results depend on, as the run records it."""
        return RefineConfig.of(
            self.model.name,
            list(self.items),
            self.prompt,
            sampling=self.sampling,
            checks=check_tables(self.checks),
            order=tuple(check.name for check in self.checks),
            strategy=strategy_table(self.strategy),
            max_new_tokens=self._max_new_tokens,
            budget=self._budget,
            seed=self.seed,
        )

    def _result(self, result: LaneResult) -> Row:
        return from_lane(result, columns=self._columns[result.key]).to_json()

    @cached_property
    def _columns(self) -> dict[str, Row]:
        return dict(self.items)

    # The lane process -------------------------------------------------------------------------

    def _steering_context(self) -> SteeringContext:
        if isinstance(self.model, Server):
            return SteeringContext(
                character_ids,
                END,
                self.checks,
                self._time_limit,
                can_continue=self.model.continues,
                pays_per_token=True,
                tracking_id=text_id,
            )
        tokenizer = self.model.tokenizer
        end = min(tokenizer.eos_ids, default=None)
        return SteeringContext(tokenizer.continuation, end, self.checks, self._time_limit)

    def _server_lanes(
        self, server: Server, sampling: SamplingParams, slots: int, spend_limit: SpendLimit
    ) -> ServerLanes:
        return ServerLanes(
            server,
            self._server_prompt,
            sampling=check_sampling(server, server_sampling(server, sampling)),
            max_tokens=self._max_new_tokens,
            slots=slots,
            spend_limit=spend_limit,
            prompt_edits=PROMPT_EDITS,
            track_logprobs=self._tracked_texts,
        )

    def _decode(
        self,
        model: LanguageModel,
        sampling: SamplingParams,
        slots: int,
        block: int,
        alternatives: int,
    ) -> Decode:
        self._refuse_messages_without_template(model)
        return Decode(
            model,
            self._token_prompt,
            sampling=sampling,
            # A group of lanes needs all of its slots at once.
            slots=max(slots, self.strategy.lanes),
            block=block,
            alternatives=alternatives,
            prompt_edits=PROMPT_EDITS,
            limit=self._max_new_tokens,
        )

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
        first = next(iter(self.items))[1]
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

    def _token_prompt(self, row: Row, edits: Mapping[str, object]) -> TokenPrompt:
        prompt = self._prompt(row, edits)
        assert not isinstance(self.model, Server)
        tokenizer = self.model.tokenizer
        if isinstance(prompt, TokenPrompt):
            room = self._max_new_tokens
            return replace(prompt, constraint=prompt.constraint or self._constraint(row, room))
        tokens = prompt_tokens(prompt, tokenizer)
        room = min(self._max_new_tokens, self.model.config.max_position_embeddings - len(tokens))
        return TokenPrompt(
            tokens, track_logprobs=self._tracked(row), constraint=self._constraint(row, room)
        )

    def _server_prompt(self, row: Row, edits: Mapping[str, object]) -> str | Sequence[Message]:
        """Return an item's prompt for a server. Raises `ItemError` for a prompt of tokens."""
        prompt = self._prompt(row, edits)
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

    def _tracked_texts(self, row: Row) -> list[str]:
        """Return the same for a server, whose tokens are not known: texts."""
        return self._context.required_texts(row) if self.strategy.checks_prefixes else []


def prompt_tokens(
    prompt: str | Sequence[Mapping[str, str]] | TokenPrompt, tokenizer: Tokenizer
) -> Sequence[int]:
    """Return the tokens of what a prompt function has made.

    A text becomes the user's message if the tokenizer has a chat template. Raises `ItemError` for a
    text with characters that have no token.
    """
    if isinstance(prompt, TokenPrompt):
        return prompt.tokens
    if not isinstance(prompt, str):
        return tokenizer.chat(prompt)
    if tokenizer.chat_template is not None and not isinstance(prompt, PlainPrompt):
        return tokenizer.chat([{"role": "user", "content": prompt}])
    tokenizer.require_known(prompt)
    return tokenizer.prompt(prompt)


def _opened(model: LanguageModel | Server | str) -> LanguageModel | Server:
    if not isinstance(model, str):
        return model
    return Server.of(model) if is_server(model) else shared_model(model)


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
