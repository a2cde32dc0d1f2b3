"""Requests of the OpenAI API as values, checked field by field. Knows no model, no connection."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ostinato.arguments import NumberRange
from ostinato.checks import BaseCheck, JsonSchema, from_spec
from ostinato.decode import SamplingParams
from ostinato.errors import InputError
from ostinato.loop import check_seed
from ostinato.refine import STRATEGIES, Strategy, option_names
from ostinato.server.body_fields import BodyFields, RequestError, wrong
from ostinato.server.response_format import read_response_format

ROLES = ("system", "developer", "user", "assistant")
MOST_CHOICES = 8
MOST_STOPS = 4
MOST_CHECKS = 16
MOST_TOP_LOGPROBS = 20
LONGEST_STOP = 1000  # characters: it is searched for at every token
MOST_OPTION = 100  # rounds and the like: an answer that never passes keeps its slot that long
COMPILED, LARGEST_COMPILED = ("checks", "response_format"), 1 << 15  # bytes
LONGEST_ID = 9  # digits
MOST_BIASES = 1024  # they are added one by one, at every token
BIAS = NumberRange(lambda value: -100 <= value <= 100, "numbers from -100 to 100")
LANE_STRATEGIES = ("backtrack", "abort", "constrain", "feedback", "resample")
"""Strategies that act on one lane; the others need several lanes for an answer."""

UNSAFE_CHECKS = frozenset({"judge", "python"})
"""Kinds of checks that run what they name: only the operator may set these."""

UNSAFE_KEYS = frozenset({"file", "model"})
"""Fields of checks that name files of the server."""

SAMPLING: Mapping[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "top_k": 0,
}


@dataclass(frozen=True, kw_only=True)
class ApiRequest:
    """A request's body: the prompt, the sampling, the limits, and the checks to pass.

    `prefill` is the start of the assistant's answer, which the model continues. `top_logprobs` is
    the number of most likely tokens to report at each position. `response_format` is the schema
    that the whole answer must match. `checks` None: the operator's.
    """

    prompt: str | Sequence[Mapping[str, str]]
    chat: bool
    prefill: str = ""
    sampling: SamplingParams
    max_tokens: int
    stop: tuple[str, ...] = ()
    seed: int | None = None
    choices: int = 1
    stream: bool = False
    usage: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    response_format: JsonSchema | None = None
    checks: tuple[BaseCheck, ...] | None = None
    strategy: Strategy | None = None
    columns: Mapping[str, object] | None = None


def read_request(
    value: Any, *, chat: bool, models: Sequence[str], longest: int, sampling: Mapping[str, float]
) -> ApiRequest:
    """Read a request's body; `sampling` are the settings where it names none.

    Raises `RequestError` that names the field.
    """
    if not isinstance(value, Mapping):
        raise RequestError(400, f"The body must be a JSON object, got {type(value).__name__}.")
    # First: nothing large may be parsed or compiled.
    _refuse_large(value)
    fields = BodyFields(value)
    model = fields.text("model")
    if model not in models:
        raise RequestError(
            404,
            f"The model {model!r} does not exist here. It must be {' or '.join(models)}.",
            "model",
            "model_not_found",
        )
    logprobs, top_logprobs = _logprobs(fields) if chat else _completion_logprobs(fields)
    prompt: str | list[dict[str, str]] = _messages(fields) if chat else _prompt(fields)
    choices = fields.integer("n", 1, least=1, most=MOST_CHOICES)
    # A completion's `best_of` would select among drafts; equal to `n` it selects nothing.
    if not chat and fields.value("best_of") not in (None, choices):
        raise wrong("best_of", f"n, which is {choices}", value["best_of"], "Leave it out.")
    body = ApiRequest(
        prompt=prompt,
        chat=chat,
        prefill=_take_prefill(fields, prompt) if isinstance(prompt, list) else "",
        sampling=_sampling(fields, {**SAMPLING, **sampling}),
        max_tokens=_max_tokens(fields, longest),
        stop=_stop(fields),
        seed=_seed(fields),
        choices=choices,
        stream=fields.flag("stream"),
        usage=fields.table("stream_options").flag("include_usage"),
        logprobs=logprobs,
        top_logprobs=top_logprobs,
        response_format=read_response_format(fields),
        checks=_checks(fields),
        strategy=_strategy(fields),
        columns=fields.mapping("columns"),
    )
    fields.close()
    _refuse_surrogates(value)
    return body


def _refuse_surrogates(value: Mapping[str, Any]) -> None:
    """Refuse lone surrogates, which JSON can write and no tokenizer reads."""
    if not _is_text(json.dumps(value, ensure_ascii=False)):
        raise RequestError(
            400, "The body's texts must hold whole characters, got a lone surrogate. Remove it."
        )


def _refuse_large(value: Mapping[str, Any]) -> None:
    """Refuse checks and schemas that would take long to compile."""
    for name in COMPILED:
        size = len(json.dumps(value.get(name)))
        if size > LARGEST_COMPILED:
            raise RequestError(
                400,
                f"{name!r} must have at most {LARGEST_COMPILED} bytes of JSON, got {size}. The "
                "operator can set larger checks with --job.",
                name,
            )


def _messages(fields: BodyFields) -> list[dict[str, str]]:
    value = fields.value("messages")
    if not isinstance(value, list) or not value:
        raise wrong("messages", "a list of at least one message", value)
    return [_message(number, message) for number, message in enumerate(value)]


def _take_prefill(fields: BodyFields, messages: list[dict[str, str]]) -> str:
    """Remove the last message and return it, if the model is to continue it."""
    continues = fields.flag("continue_final_message")
    opens_turn = fields.value("add_generation_prompt")
    if opens_turn not in (None, not continues):
        raise wrong("add_generation_prompt", "the opposite of continue_final_message", opens_turn)
    if not continues:
        return ""
    if len(messages) < 2 or messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        raise wrong("messages[-1]", "the start of the assistant's answer", messages[-1])
    return messages.pop()["content"]


def _message(number: int, message: Any) -> dict[str, str]:
    key = f"messages[{number}]"
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise wrong(key, f"an object with a role of {', '.join(ROLES)}", message)
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(f"{key}.content[{at}]", part) for at, part in enumerate(content))
    if not isinstance(content, str) or not _is_text(content):
        raise wrong(f"{key}.content", "a text, or parts of text", content)
    # OpenAI's newer name for the system role, which no chat template knows.
    role = "system" if message["role"] == "developer" else str(message["role"])
    return {"role": role, "content": content}


def _part(key: str, part: Any) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        raise wrong(key, "a part of the type 'text'", part)
    text = part.get("text")
    if not isinstance(text, str):
        raise wrong(f"{key}.text", "a text", text)
    return text


def _prompt(fields: BodyFields) -> str:
    value = fields.value("prompt")
    # The API takes a batch of prompts; clients often wrap a single one.
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not value or not _is_text(value):
        raise wrong("prompt", "one text", value)
    return value


def _is_text(value: str) -> bool:
    """Return whether a text has no lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _sampling(fields: BodyFields, usual: Mapping[str, Any]) -> SamplingParams:
    """Read the sampling parameters; those that are not given are as usual."""
    given = {name: fields.value(name) for name in SAMPLING}
    # An explicit null means not set.
    settings = {name: usual[name] if given[name] is None else given[name] for name in SAMPLING}
    try:
        return SamplingParams(**settings, logit_bias=_logit_bias(fields))
    except InputError as error:
        raise RequestError(400, str(error), error.key or None) from None


def _logit_bias(fields: BodyFields) -> dict[int, float]:
    """Read what is added to the logits of tokens; JSON writes their ids as texts."""
    value = fields.mapping("logit_bias") or {}
    for token, shift in value.items():
        if not (token.isascii() and token.isdecimal() and len(token) <= LONGEST_ID):
            raise wrong("logit_bias", "an object from token ids to numbers", token)
        if not BIAS.includes(shift):
            raise wrong("logit_bias", f"an object from token ids to {BIAS.expected}", shift)
    if len(value) > MOST_BIASES:
        raise wrong("logit_bias", f"an object of at most {MOST_BIASES} tokens", len(value))
    return {int(token): cast(float, shift) for token, shift in value.items()}


def _max_tokens(fields: BodyFields, longest: int) -> int:
    # 0 means not set: `least` refuses it as a value.
    newer = fields.integer("max_completion_tokens", 0, least=1, most=1 << 31)
    older = fields.integer("max_tokens", 0, least=1, most=1 << 31)
    return min(newer or older or longest, longest)


def _stop(fields: BodyFields) -> tuple[str, ...]:
    value = fields.value("stop")
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if (
        not isinstance(texts, list)
        or len(texts) > MOST_STOPS
        or not all(isinstance(text, str) and 0 < len(text) <= LONGEST_STOP for text in texts)
    ):
        raise wrong(
            "stop", f"a text of 1 to {LONGEST_STOP} characters, or at most {MOST_STOPS}", value
        )
    return tuple(texts)


def _seed(fields: BodyFields) -> int | None:
    value = fields.value("seed")
    try:
        return None if value is None else check_seed(value)
    except InputError as error:
        raise RequestError(400, f"'seed': {error}", "seed") from None


def _logprobs(fields: BodyFields) -> tuple[bool, int]:
    """Return whether a chat reports log-probabilities, and of how many most likely tokens."""
    enabled = fields.flag("logprobs")
    most = fields.integer("top_logprobs", 0, least=0, most=MOST_TOP_LOGPROBS)
    if most and not enabled:
        raise wrong("top_logprobs", "left out without logprobs", most, "Add 'logprobs': true.")
    return enabled, most


def _completion_logprobs(fields: BodyFields) -> tuple[bool, int]:
    """Return the same for a completion, where one number sets both."""
    enabled = fields.value("logprobs") is not None
    return enabled, fields.integer("logprobs", 0, least=0, most=MOST_TOP_LOGPROBS)


def _checks(fields: BodyFields) -> tuple[BaseCheck, ...] | None:
    value = fields.value("checks")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MOST_CHECKS:
        raise wrong("checks", f"a list of at most {MOST_CHECKS} checks", value)
    checks: list[BaseCheck] = []
    for number, table in enumerate(value):
        where = f"checks[{number}]"
        if not isinstance(table, Mapping):
            raise wrong(where, "an object with a kind", table)
        if table.get("kind") in UNSAFE_CHECKS or not UNSAFE_KEYS.isdisjoint(table):
            raise RequestError(
                400,
                f"{where} must not run code or read files of the server, got {table!r:.80}. Only "
                "the operator can set such a check, with --job.",
                where,
            )
        try:
            checks.append(from_spec("", table))
        except InputError as error:
            raise RequestError(400, f"{where}: {error}", where) from None
    names = [check.name for check in checks]
    if len(set(names)) < len(names):
        raise RequestError(400, "The names of checks must be unique, got one twice. Set 'name'.")
    return tuple(checks)


def _strategy(fields: BodyFields) -> Strategy | None:
    value = fields.value("strategy")
    if value is None:
        return None
    table = {"kind": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping) or table.get("kind") not in LANE_STRATEGIES:
        names = ", ".join(LANE_STRATEGIES)
        raise wrong("strategy", f"one of {names}, or an object with one", value)
    kind = STRATEGIES[str(table["kind"])]
    options: dict[str, Any] = {name: option for name, option in table.items() if name != "kind"}
    known = option_names(kind)
    for name, option in options.items():
        # By exact type: true is an int to Python. A whole number is fine for a float.
        if name not in known or type(option) not in (type(known[name]), int):
            raise wrong(f"strategy.{name}", f"one of {', '.join(known)}, a number", option)
        if option > MOST_OPTION:
            raise wrong(f"strategy.{name}", f"at most {MOST_OPTION}", option)
    try:
        return kind(**options)
    except InputError as error:
        raise RequestError(400, f"'strategy': {error}", "strategy") from None
