"""Refine: write a text for every item until it passes its checks.

Knows no driver and no job file: it builds `Loop(Lanes(Decode(…)))` and returns the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Literal

from ostinato.arguments import require_arguments, require_at_least
from ostinato.checks import TIME_LIMIT
from ostinato.decode import Decode, SamplingParams, TokenPrompt
from ostinato.journal import Journal, Run, RunSource
from ostinato.loop import (
    CheckpointSchedule,
    Condition,
    LaneProcess,
    LaneResult,
    Lanes,
    Loop,
    UniqueItems,
    check_seed,
)
from ostinato.models import LanguageModel
from ostinato.refine.drafts import loop_of
from ostinato.refine.inputs import (
    AnyCheck,
    PromptOf,
    Row,
    checks_of,
    keyed,
    prompt_of,
    require_columns,
    strategy_of,
    usable_prompt,
)
from ostinato.refine.prompts import Message
from ostinato.refine.python_run import RefineConfig, run_of
from ostinato.refine.results import from_lane
from ostinato.refine.rows import Rows, rows_of
from ostinato.refine.settings import ItemBudget, check_tables, strategy_table
from ostinato.refine.strategies.base import Strategy
from ostinato.refine.text_writer import (
    DEFAULT_SAMPLING,
    PROMPT_EDITS,
    TextWriter,
    opened,
    require_limits,
)
from ostinato.remote import Server, ServerLanes, SpendLimit


class Refine:
    """Write a text for every item until it passes `checks`.

    `model`: a loaded model, a `Server`, or the name of either. `items`: mappings of columns, or
    pairs of a key and a mapping; `UniqueItems` are read as they are needed. `prompt`: a template
    with `{column}` fields, or a function of (item, edits) that returns a text or chat messages. A
    text is sent as the user's message if the model has a chat template. `checks`: checks,
    functions of the text (and of the item), or kinds of checks such as "repetition". `strategy`: a
    strategy, or its kind.

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
        checks: Iterable[AnyCheck],
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
        require_at_least(1, slots=slots, block=block)
        require_at_least(0, alternatives=alternatives)
        require_limits(max_new_tokens, tokens, seconds, time_limit)
        # Last: everything else is quicker to refuse.
        self.model = opened(model)
        self.sampling, self.seed = sampling, seed
        self._budget = ItemBudget(item_tokens=tokens, item_seconds=seconds)
        self.writer = TextWriter(
            model=self.model,
            checks=self.checks,
            strategy=self.strategy,
            sampling=sampling,
            max_new_tokens=max_new_tokens,
            tokens=tokens,
            seconds=seconds,
            time_limit=time_limit,
            spend_limit=spend_limit,
        )
        self.decode: Decode | ServerLanes
        process: LaneProcess
        if isinstance(self.model, Server):
            self.decode = process = self.writer.server_lanes(
                self._server_prompt, self.writer.tracked_texts, slots
            )
        else:
            first = next(iter(self.items))[1]  # only it is tried: a wrong job is found before work
            self.writer.require_template(lambda edits: self._prompt(first, edits))
            self.decode = Decode(
                self.model,
                self._token_prompt,
                sampling=sampling,
                # A group of lanes needs all of its slots at once.
                slots=max(slots, self.strategy.lanes),
                block=block,
                alternatives=alternatives,
                prompt_edits=PROMPT_EDITS,
                limit=max_new_tokens,
            )
            process = self.writer.process(self.decode)
        self.policy = self.writer.policy(ready)
        self.lanes = Lanes(process, self.items, self.policy, seed=seed)
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
        progress: bool | None = None,
    ) -> Rows:
        """Run to the end; return the results in the order of the items.

        Each has the keys of a job's output (docs/jobs.md), and the item's columns as `columns`.
        With `run`, a name, they are recorded: the same call resumes, and returns what is there
        already. Raises `InputError` for a run of other items, checks or settings, and tells each.
        `progress`: show it on standard error; None: in a terminal or a notebook only.
        """
        with ExitStack() as stack:
            recorded = self._recorded(run, journal, stack)
            return rows_of(self.loop(run=recorded, keep="results"), self._columns, progress)

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
            max_new_tokens=self.writer.max_new_tokens,
            budget=self._budget,
            seed=self.seed,
        )

    def _result(self, result: LaneResult) -> Row:
        return from_lane(result, columns=self._columns[result.key]).to_json()

    @cached_property
    def _columns(self) -> dict[str, Row]:
        return dict(self.items)

    # Callbacks of Decode and ServerLanes ------------------------------------------------------

    def _token_prompt(self, row: Row, edits: Mapping[str, object]) -> TokenPrompt:
        return self.writer.token_prompt(self._prompt(row, edits), row)

    def _server_prompt(self, row: Row, edits: Mapping[str, object]) -> str | Sequence[Message]:
        return self.writer.server_prompt(self._prompt(row, edits))
