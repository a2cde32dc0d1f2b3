"""Write texts token by token: the loop over prompts, ready to be iterated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

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
from ostinato.loop import AnyOf, Condition, LaneProcess, Lanes, Loop, Steps, content_keys
from ostinato.models import LanguageModel, load_model
from ostinato.remote import Server, ServerLanes, check_sampling, is_server

LENGTH = Steps(200)
"""Where a text ends that does not end by itself: after 200 tokens."""

Messages = Sequence[Mapping[str, str]]

LONGEST = 4096
"""The tokens of a server's answer where no `Steps` ends it."""


def write(
    prompts: Sequence[str | Messages],
    *,
    model: LanguageModel | Server | str = "smollm2",
    each: Condition = LENGTH,
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
) -> Loop:
    """Return the loop that writes one text for every prompt, side by side.

    A prompt is a text or chat messages; a text is the user's message where the model has a chat
    template and `chat` is true, else it is continued. `each` ends a text (its end token always
    does). A text's draws depend on its prompt, not on its place in the list. `alternatives` adds
    that many runners-up to each report. `loop` goes to `Loop`, as `run`
    and `until`. The texts are `step.lanes` as they come and `step.results` when done.

    `model` may be a `Server`, or be named `URL#MODEL`; its answers come piece by piece, and it
    has no runners-up and no `chat` (that is the server's `api`).

    `proposer` names tokens that are computed ahead: the same texts, sooner. `beams` above 1 searches
    the likeliest texts with so many kept, and draws nothing; `length_penalty` is its. `constraint`
    is what each text must be as a whole; where `each` has `Steps`, it is whole within them.
    """
    if not prompts:
        raise InputError("There must be at least one prompt, got none.")
    count = slots or min(len(prompts), 16)
    if isinstance(model, str):
        model = Server.of(model) if is_server(model) else load_model(model)
    process: LaneProcess
    if isinstance(model, Server):
        _refuse(
            alternatives=alternatives,
            proposer=proposer,
            num_beams=num_beams > 1,
            constraint=constraint,
        )
        process = _server_lanes(model, each, sampling, count)
    elif num_beams > 1:
        _refuse("beams", alternatives=alternatives, proposer=proposer, constraint=constraint)
        process = Beam(
            model,
            _prompter(model, chat),
            num_beams=num_beams,
            length_penalty=length_penalty,
            limit=_limit(each),
            slots=count,
        )
    else:
        process = Decode(
            model,
            _prompter(model, chat),
            sampling=sampling,
            slots=count,
            alternatives=alternatives,
            proposer=proposer,
            constraint=constraint,
            limit=None if (most := _limit(each)) == LONGEST else most,
        )
    items = list(zip(content_keys(prompts), prompts, strict=True))
    loop.setdefault("until", Steps(1 << 62))
    return Loop(Lanes(process, items, each=each, seed=seed), **loop)


def _refuse(what: str = "a server", **given: object) -> None:
    for name, value in given.items():
        if value:
            raise InputError(f"{name} must not be given with {what}, got {value}. Leave it out.")


def _prompter(model: LanguageModel, chat: bool) -> Prompter:
    tokenizer = model.tokenizer

    def prompt(item: object, edits: Mapping[str, object]) -> TokenPrompt:
        if not isinstance(item, str):
            return TokenPrompt(tokenizer.chat(_messages(item)))
        if chat and tokenizer.chat_template is not None:
            return TokenPrompt(tokenizer.chat([{"role": "user", "content": item}]))
        return TokenPrompt([*tokenizer.bos_ids, *tokenizer.encode(item)])

    return prompt


def _server_lanes(
    server: Server, each: Condition, sampling: SamplingParams | None, slots: int
) -> ServerLanes:
    def prompt(item: object, edits: Mapping[str, object]) -> str | Messages:
        return item if isinstance(item, str) else _messages(item)

    values = asdict(sampling or SamplingParams())
    for unsaid in ("logit_bias", "end_bias", "end_within"):
        del values[unsaid]
    return ServerLanes(
        server,
        prompt,
        sampling=check_sampling(server, values),
        max_tokens=_limit(each),
        slots=slots,
    )


def _limit(each: Condition) -> int:
    """Return after how many positions a text ends at the latest."""
    if isinstance(each, AnyOf):
        return min(map(_limit, each.conditions))
    return each.limit if isinstance(each, Steps) else LONGEST


def _messages(item: object) -> Messages:
    if isinstance(item, Sequence):
        return item
    raise ItemError(f"A prompt must be a text or chat messages, got {type(item).__name__}.")
