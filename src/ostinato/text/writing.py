"""Write texts token by token: the loop over prompts, ready to be iterated.

Chooses the process (local model, beam search, server); knows no sampling and no checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ostinato.arguments import refuse_single, require_arguments, require_at_least
from ostinato.decode import (
    Beam,
    Constraint,
    Decode,
    DraftProposer,
    Prompter,
    SamplingParams,
    TokenPrompt,
)
from ostinato.errors import InputError, ItemError
from ostinato.loop import AnyOf, Condition, LaneProcess, Lanes, Loop, Policy, Steps, content_keys
from ostinato.models import (
    LanguageModel,
    shared_model,
)
from ostinato.remote import Server, ServerLanes, check_sampling, is_server

if TYPE_CHECKING:
    from ostinato.refine import Rows

DEFAULT_LENGTH = Steps(200)
"""Ends a text after 200 tokens, if its end token does not come first."""

Messages = Sequence[Mapping[str, str]]

UNLIMITED_TOKENS = 4096
"""The token limit of a server's or a beam search's text if `each` has no `Steps`: they need one."""


def write(
    prompts: Sequence[str | Messages | TokenPrompt],
    *,
    model: LanguageModel | Server | str = "smollm2",
    each: Condition = DEFAULT_LENGTH,
    sampling: SamplingParams | None = None,
    seed: int = 0,
    chat: bool = True,
    slots: int | None = None,
    alternatives: int = 0,
    proposer: DraftProposer | None = None,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    constraint: Constraint | None = None,
    **loop: Any,
) -> TextLoop:
    """Return the loop that writes one text for every prompt, side by side.

    A prompt is a text, chat messages, or the tokens of a `TokenPrompt`. With `chat` and a model
    that has a chat template, a text is the user's message; otherwise it is continued. `each` ends a
    text, as its end token always does.
    The random numbers of a text depend on its prompt, not on its place in the list. `alternatives`
    adds that many of the most likely tokens to each report. `loop` goes to `Loop`, such as `run`
    and `until`. Texts are in `step.lanes` as they grow and in `step.results` when done; `rows()`
    runs to the end and returns them all.

    `model` may be a `Server`, or `URL#MODEL` for one. Its texts come in chunks; it supports none of
    `alternatives`, `proposer`, `num_beams` and `constraint`, and its `api` decides about chat.

    `proposer` names draft tokens to compute ahead: the same texts, sooner. `num_beams` above 1
    searches for the most likely text instead of sampling, scored with `length_penalty`.
    `constraint` is what each whole text must be; if `each` has `Steps`, it is whole within them.
    """
    require_arguments(write, locals())
    for name in ("checks", "strategy"):
        if name in loop:
            raise InputError(
                f"{name} must be left out of write, which judges no text, got {loop[name]!r:.60}. "
                "ostinato.refine.Refine writes until checks pass."
            )
    refuse_single("prompts", prompts)
    require_at_least(0, alternatives=alternatives)
    require_at_least(1, num_beams=num_beams, slots=1 if slots is None else slots)
    if not prompts:
        raise InputError("There must be at least one prompt, got none.")
    if isinstance(model, str):
        model = Server.of(model) if is_server(model) else shared_model(model)
    # 16 lanes fill the rows of one product on a CPU (`block` of a backend).
    process = _process(
        model,
        each,
        slots or min(len(prompts), 16),
        sampling,
        chat,
        num_beams,
        length_penalty,
        alternatives=alternatives,
        proposer=proposer,
        constraint=constraint,
    )
    items = list(zip(content_keys(prompts), prompts, strict=True))
    return TextLoop(Lanes(process, items, Policy(each=each), seed=seed), dict(items), **loop)


class TextLoop(Loop):
    """The loop over the texts of `prompts`, which are by their keys; `loop` goes to `Loop`."""

    def __init__(
        self, lanes: Lanes, prompts: Mapping[str, str | Messages | TokenPrompt], **loop: Any
    ) -> None:
        super().__init__(lanes, **loop)
        self._prompts = prompts

    def rows(self, *, progress: bool | None = None) -> Rows:
        """Run to the end; return a row for each prompt, in their order.

        Each has the keys of a job's output (docs/jobs.md), and its prompt as a column; a text that
        its limit has cut is not accepted. Of a loop with `run`, texts that are recorded already are
        among them. `progress`: show it on standard error; None: in a terminal or a notebook only.
        """
        # Imported here: a text that is only watched as it grows needs no rows.
        from ostinato.refine import rows_of

        columns = {key: {"prompt": _plain(prompt)} for key, prompt in self._prompts.items()}
        return rows_of(self, columns, progress)


def _plain(prompt: str | Messages | TokenPrompt) -> object:
    """Return a prompt as JSON holds it."""
    if isinstance(prompt, TokenPrompt):
        return list(prompt.tokens)
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]


def _process(
    model: LanguageModel | Server,
    each: Condition,
    slots: int,
    sampling: SamplingParams | None,
    chat: bool,
    num_beams: int,
    length_penalty: float,
    **decode_only: Any,
) -> LaneProcess:
    """Return the lane process for a model; refuse the options that it does not have."""
    limit, beams = _token_limit(each), num_beams if num_beams > 1 else 0
    if isinstance(model, Server):
        _refuse("a server", **decode_only, num_beams=beams)
        return _server_lanes(model, limit or UNLIMITED_TOKENS, sampling, slots)
    prompter = _prompter(model, chat)
    if beams:
        _refuse("num_beams", **decode_only)
        return Beam(
            model,
            prompter,
            num_beams=beams,
            length_penalty=length_penalty,
            limit=limit or UNLIMITED_TOKENS,
            slots=slots,
        )
    return Decode(model, prompter, sampling=sampling, limit=limit, slots=slots, **decode_only)


def _refuse(what: str, **options: object) -> None:
    for name, value in options.items():
        if value:
            raise InputError(f"{name} must not be given with {what}, got {value}. Leave it out.")


def _prompter(model: LanguageModel, chat: bool) -> Prompter:
    tokenizer = model.tokenizer

    def prompt(item: object, edits: Mapping[str, object]) -> TokenPrompt:
        if isinstance(item, TokenPrompt):
            return item
        if not isinstance(item, str):
            return TokenPrompt(tokenizer.chat(_messages(item)))
        if chat and tokenizer.chat_template is not None:
            return TokenPrompt(tokenizer.chat([{"role": "user", "content": item}]))
        tokenizer.require_known(item)
        return TokenPrompt(tokenizer.prompt(item))

    return prompt


def _server_lanes(
    server: Server, max_tokens: int, sampling: SamplingParams | None, slots: int
) -> ServerLanes:
    def prompt(item: object, edits: Mapping[str, object]) -> str | Messages:
        return item if isinstance(item, str) else _messages(item)

    sampling = sampling or SamplingParams()
    _refuse("a server", logit_bias=sampling.logit_bias, end_bias=sampling.end_bias)
    values = check_sampling(server, asdict(sampling))
    return ServerLanes(server, prompt, sampling=values, max_tokens=max_tokens, slots=slots)


def _token_limit(each: Condition) -> int | None:
    """Return the number of tokens after which `each` ends a text in any case; None without one."""
    if isinstance(each, AnyOf):
        limits = [limit for part in each.conditions if (limit := _token_limit(part)) is not None]
        return min(limits, default=None)
    return each.limit if isinstance(each, Steps) else None


def _messages(item: object) -> Messages:
    if isinstance(item, Sequence):
        return item
    raise ItemError(f"A prompt must be a text or chat messages, got {type(item).__name__}.")
