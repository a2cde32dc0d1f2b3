"""How one text is written until it passes: model, checks, strategy, sampling and limits together.

Makes the prompt, the policy and the lane process of an item. Knows no items and no run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ostinato.arguments import require_above, require_at_least
from ostinato.checks import TIME_LIMIT
from ostinato.decode import Constraint, Decode, SamplingParams, TokenPrompt
from ostinato.errors import InputError, ItemError
from ostinato.loop import Check, LaneProcess, Policy, accept
from ostinato.models import LanguageModel, Tokenizer, shared_model
from ostinato.refine.drafts import Judges, end_of_draft, ready_texts
from ostinato.refine.inputs import Row
from ostinato.refine.prompts import Message, PlainPrompt
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

Prompted = str | Sequence[Message] | TokenPrompt
"""What a prompt function makes: a text, chat messages, or tokens."""


@dataclass(frozen=True, kw_only=True)
class TextWriter:
    """Writes a text until it passes `checks`; without checks, every text is accepted.

    `max_new_tokens` limits one draft; `tokens` and `seconds` limit an item over all its rounds.
    `time_limit` is in seconds, for one verdict of one check. `spend_limit` is that of all items.
    """

    model: LanguageModel | Server
    checks: tuple[Check, ...]
    strategy: Strategy
    sampling: SamplingParams = DEFAULT_SAMPLING
    max_new_tokens: int = 128
    tokens: int | None = None
    seconds: float | None = None
    time_limit: float = TIME_LIMIT
    spend_limit: SpendLimit | None = None
    context: SteeringContext = field(init=False)

    def __post_init__(self) -> None:
        require_limits(self.max_new_tokens, self.tokens, self.seconds, self.time_limit)
        object.__setattr__(self, "context", self._steering_context())

    def policy(self, ready: Callable[[Row], str | None] | None = None) -> Policy:
        """Return what ends, judges and answers the drafts of an item, which is its columns."""
        return Policy(
            each=end_of_draft(
                self.strategy,
                self.checks,
                max_new_tokens=self.max_new_tokens,
                tokens=self.tokens,
                seconds=self.seconds,
                time_limit=self.time_limit,
                late=self.context.late,
            ),
            judge=Judges(self.checks, self.time_limit, self.spend_limit) if self.checks else None,
            on_stop=self.strategy.on_stop(self.context) if self.checks else accept,
            ready=None if ready is None else ready_texts(ready),
        )

    def token_prompt(self, made: Prompted, row: Row) -> TokenPrompt:
        """Return an item's prompt for a model in this process."""
        assert not isinstance(self.model, Server)
        tokenizer = self.model.tokenizer
        if isinstance(made, TokenPrompt):
            room = self.max_new_tokens
            return replace(made, constraint=made.constraint or self._constraint(row, room))
        tokens = prompt_tokens(made, tokenizer)
        room = min(self.max_new_tokens, self.model.config.max_position_embeddings - len(tokens))
        return TokenPrompt(
            tokens, track_logprobs=self._tracked(row), constraint=self._constraint(row, room)
        )

    def server_prompt(self, made: Prompted) -> str | Sequence[Message]:
        """Return an item's prompt for a server. Raises `ItemError` for a prompt of tokens."""
        if isinstance(made, TokenPrompt):
            raise ItemError(
                "A server's prompt must be a text or chat messages, got tokens. Return a text."
            )
        return made

    # Lane processes ---------------------------------------------------------------------------

    def server_lanes(
        self,
        prompt: Callable[[Any, Mapping[str, object]], str | Sequence[Message]],
        track_logprobs: Callable[[Any], Sequence[str]],
        slots: int,
    ) -> ServerLanes:
        """Return the lanes of the server. Raises `InputError` for a strategy of another kind."""
        assert isinstance(self.model, Server)
        lanes = ServerLanes(
            self.model,
            prompt,
            sampling=check_sampling(self.model, server_sampling(self.model, self.sampling)),
            max_tokens=self.max_new_tokens,
            slots=slots,
            spend_limit=self.spend_limit or SpendLimit(),
            prompt_edits=PROMPT_EDITS,
            track_logprobs=track_logprobs,
        )
        if self.strategy.masks or self.strategy.lanes > 1:
            raise InputError(
                f"The strategy of a model on a server must be backtrack, abort, feedback or "
                f"resample, got {self.strategy.kind!r}. Choose one, or load the model here."
            )
        return lanes

    def process(self, decode: Decode) -> LaneProcess:
        """Return the lanes of the model, or groups of them."""
        return self.strategy.process(decode, self.context)

    def tracked_texts(self, row: Row) -> list[str]:
        """Return the texts to track on a server, whose tokens are not known."""
        return self.context.required_texts(row) if self.strategy.checks_prefixes else []

    def require_template(self, made: Callable[[Mapping[str, object]], Prompted]) -> None:
        """Raise `InputError` for chat messages if the model has no template to write them with.

        `made` returns the prompt of one item for some edits. A feedback prompt is chat messages,
        too.
        """
        assert not isinstance(self.model, Server)
        if self.model.tokenizer.chat_template is not None:
            return
        strategy = self.strategy
        feedback = {"feedback": {"draft": "", "reasons": []}}
        try:
            prompt = made(feedback if strategy.gives_feedback else {})
        except ItemError:
            return
        if isinstance(prompt, str | TokenPrompt):
            return
        cause = f"from the strategy {strategy.kind!r}" if strategy.gives_feedback else "from it"
        raise InputError(
            f"The prompt must be a text, as the model {self.model.name!r} has no chat template, "
            f"got chat messages {cause}. Use a model tuned for conversations"
            + (", another strategy" if strategy.gives_feedback else "")
            + ", or a plain text: plain = true in a job's [prompt], or a prompt function that "
            "returns a text."
        )

    # Inside -----------------------------------------------------------------------------------

    def _steering_context(self) -> SteeringContext:
        if isinstance(self.model, Server):
            return SteeringContext(
                character_ids,
                END,
                self.checks,
                self.time_limit,
                can_continue=self.model.continues,
                pays_per_token=True,
                tracking_id=text_id,
            )
        tokenizer = self.model.tokenizer
        end = min(tokenizer.eos_ids, default=None)
        return SteeringContext(tokenizer.continuation, end, self.checks, self.time_limit)

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
        return self.context.required_ids(row) if self.strategy.checks_prefixes else []


def require_limits(
    max_new_tokens: int, tokens: int | None, seconds: float | None, time_limit: float
) -> None:
    """Raise `InputError` for limits of a text that are out of their range."""
    require_at_least(1, max_new_tokens=max_new_tokens)
    limits = {"tokens": tokens, "seconds": seconds}
    require_above(0, **{name: limit for name, limit in limits.items() if limit is not None})
    require_above(0, time_limit=time_limit)


def opened(model: LanguageModel | Server | str) -> LanguageModel | Server:
    """Return a model by its name, or the server of an address; what is no name as it is."""
    if not isinstance(model, str):
        return model
    return Server.of(model) if is_server(model) else shared_model(model)


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
