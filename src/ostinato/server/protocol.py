"""Requests of the OpenAI API as values, checked key by key. Knows no model and no connection."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ostinato.checks import BaseCheck, JsonSchema, from_spec, refers_outside
from ostinato.errors import InputError
from ostinato.loop import check_seed
from ostinato.refine import STRATEGIES, Strategy, option_names
from ostinato.server.body_fields import BodyFields, RequestError, wrong
from ostinato.server.response_format import read_form

ROLES = ("system", "developer", "user", "assistant")
MOST_CHOICES = 8
MOST_STOPS = 4
MOST_CHECKS = 16
MOST_LIKELIEST = 20
LONGEST_STOP = 1000  # characters: it is looked for at every token
MOST_OPTION = 100  # rounds and the like: an answer that never passes keeps its place so long
MOST_CANDIDATES = 1 << 31
COMPILED, LARGEST_COMPILED = ("checks", "response_format"), 1 << 15
LANE_STRATEGIES = ("backtrack", "abort", "constrain", "feedback", "resample")
"""Those that act on one lane; the others need many lanes of their own."""

UNSAFE_CHECKS = frozenset({"judge", "python"})
"""Kinds of checks that run what they name: only the one who serves may give these."""

UNSAFE_KEYS = frozenset({"file", "model"})
"""Keys of checks that name files of the server."""

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}


@dataclass(frozen=True, kw_only=True)
class ApiRequest:
    """What is asked for: a prompt, how it is drawn, when it ends, and what it must pass.

    `begun` is the beginning of a chat's answer, which is to be gone on with. `top_logprobs` is how
    many of the likeliest tokens are told at each place. `form` is what the whole answer must be.
    """

    prompt: str | Sequence[Mapping[str, str]]
    chat: bool
    begun: str = ""
    sampling: Mapping[str, float]
    max_tokens: int
    stop: tuple[str, ...] = ()
    seed: int | None = None
    choices: int = 1
    stream: bool = False
    usage: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    form: JsonSchema | None = None
    checks: tuple[BaseCheck, ...] | None = None
    strategy: Strategy | None = None
    columns: Mapping[str, object] | None = None


def read_request(value: Any, *, chat: bool, models: Sequence[str], longest: int) -> ApiRequest:
    """Read a request's body. Raises `RequestError` that names the key."""
    if not isinstance(value, Mapping):
        raise RequestError(400, f"The body must be a JSON object, got {type(value).__name__}.")
    _refuse_large(value)
    keys = BodyFields(value)
    model = keys.text("model")
    if model not in models:
        raise RequestError(
            404,
            f"The model {model!r} does not exist here. It must be {' or '.join(models)}.",
            "model",
            "model_not_found",
        )
    logprobs, top_logprobs = _logprobs(keys) if chat else _completion_logprobs(keys)
    prompt: str | list[dict[str, str]] = _messages(keys) if chat else _prompt(keys)
    choices = keys.whole("n", 1, least=1, most=MOST_CHOICES)
    if not chat and keys.value("best_of") not in (None, choices):
        raise wrong("best_of", f"n, which is {choices}", value["best_of"], "Leave it out.")
    request = ApiRequest(
        prompt=prompt,
        chat=chat,
        begun=_begun(keys, prompt) if isinstance(prompt, list) else "",
        sampling=_sampling(keys),
        max_tokens=_max_tokens(keys, longest),
        stop=_stop(keys),
        seed=_seed(keys),
        choices=choices,
        stream=keys.flag("stream"),
        usage=keys.table("stream_options").flag("include_usage"),
        logprobs=logprobs,
        top_logprobs=top_logprobs,
        form=read_form(keys),
        checks=_checks(keys),
        strategy=_strategy(keys),
        columns=keys.mapping("columns"),
    )
    keys.close()
    _refuse_halves(value)
    return request


def _refuse_halves(value: Mapping[str, Any]) -> None:
    """Refuse halves of characters, which JSON can spell and no tokenizer reads."""
    if not _is_text(json.dumps(value, ensure_ascii=False)):
        raise RequestError(400, "The body's texts must hold whole characters, got half of one.")


def _refuse_large(value: Mapping[str, Any]) -> None:
    """Refuse checks and forms that would take long to compile."""
    for name in COMPILED:
        size = len(json.dumps(value.get(name)))
        if size > LARGEST_COMPILED:
            raise RequestError(
                400,
                f"{name!r} must have at most {LARGEST_COMPILED} bytes of JSON, got {size}. The one "
                "who serves can give larger checks: with --job.",
                name,
            )


def _messages(keys: BodyFields) -> list[dict[str, str]]:
    value = keys.value("messages")
    if not isinstance(value, list) or not value:
        raise wrong("messages", "a list of at least one message", value)
    return [_message(number, message) for number, message in enumerate(value)]


def _begun(keys: BodyFields, messages: list[dict[str, str]]) -> str:
    """Take the answer off that a conversation ends in, where it is to be gone on with."""
    goes_on, opens = keys.flag("continue_final_message"), keys.value("add_generation_prompt")
    if opens not in (None, not goes_on):
        raise wrong("add_generation_prompt", "the opposite of continue_final_message", opens)
    if not goes_on:
        return ""
    if len(messages) < 2 or messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        raise wrong("messages[-1]", "the begun answer of the assistant", messages[-1])
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
    role = "system" if message["role"] == "developer" else str(message["role"])
    return {"role": role, "content": content}


def _part(key: str, part: Any) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        raise wrong(key, "a part of the type 'text'", part)
    text = part.get("text")
    if not isinstance(text, str):
        raise wrong(f"{key}.text", "a text", text)
    return text


def _prompt(keys: BodyFields) -> str:
    value = keys.value("prompt")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not value or not _is_text(value):
        raise wrong("prompt", "one text", value)
    return value


def _is_text(value: str) -> bool:
    """Tell whether a text holds whole characters: JSON can spell halves of one."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _sampling(keys: BodyFields) -> dict[str, float]:
    """Read the settings of sampling; the temperature is 1 where none is given, as in the API."""
    numbers = {name: keys.number(name, default) for name, default in SAMPLING.items()}
    return {**numbers, "top_k": keys.whole("top_k", 0, least=0, most=MOST_CANDIDATES)}


def _max_tokens(keys: BodyFields, longest: int) -> int:
    newer = keys.whole("max_completion_tokens", 0, least=1, most=1 << 31)
    older = keys.whole("max_tokens", 0, least=1, most=1 << 31)
    return min(newer or older or longest, longest)


def _stop(keys: BodyFields) -> tuple[str, ...]:
    value = keys.value("stop")
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if (
        not isinstance(texts, list)
        or len(texts) > MOST_STOPS
        or not all(isinstance(text, str) and 0 < len(text) <= LONGEST_STOP for text in texts)
    ):
        raise wrong(
            "stop", f"a text of up to {LONGEST_STOP} characters, or at most {MOST_STOPS}", value
        )
    return tuple(texts)


def _seed(keys: BodyFields) -> int | None:
    value = keys.value("seed")
    try:
        return None if value is None else check_seed(value)
    except InputError as error:
        raise RequestError(400, f"'seed': {error}", "seed") from None


def _logprobs(keys: BodyFields) -> tuple[bool, int]:
    """Return whether a chat's log-probabilities are told, and of how many of the likeliest."""
    asked = keys.flag("logprobs")
    most = keys.whole("top_logprobs", 0, least=0, most=MOST_LIKELIEST)
    if most and not asked:
        raise wrong("top_logprobs", "left out without logprobs", most, "Add 'logprobs': true.")
    return asked, most


def _completion_logprobs(keys: BodyFields) -> tuple[bool, int]:
    """Return the same for a completion, where one number says both."""
    asked = keys.value("logprobs") is not None
    return asked, keys.whole("logprobs", 0, least=0, most=MOST_LIKELIEST)


def _checks(keys: BodyFields) -> tuple[BaseCheck, ...] | None:
    value = keys.value("checks")
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
                f"{where} must not run or read files of the server, got {table!r:.80}. Only the "
                "one who serves can name such a check: with --job.",
                where,
            )
        if refers_outside(table):
            raise RequestError(
                400, f"{where} must refer to itself only ('$ref': '#/…'), got another.", where
            )
        try:
            checks.append(from_spec("", table))
        except InputError as error:
            raise RequestError(400, f"{where}: {error}", where) from None
    names = [check.name for check in checks]
    if len(set(names)) < len(names):
        raise RequestError(400, "'checks' must have names that differ. Add a name to each.")
    return tuple(checks)


def _strategy(keys: BodyFields) -> Strategy | None:
    value = keys.value("strategy")
    if value is None:
        return None
    table = {"kind": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping) or table.get("kind") not in LANE_STRATEGIES:
        names = ", ".join(LANE_STRATEGIES)
        raise wrong("strategy", f"one of {names}, or an object with one", value)
    kind = STRATEGIES[str(table["kind"])]
    options: dict[str, Any] = {name: given for name, given in table.items() if name != "kind"}
    known = option_names(kind)
    for name, given in options.items():
        if name not in known or type(given) not in (type(known[name]), int):
            raise wrong(f"strategy.{name}", f"one of {', '.join(known)}, a number", given)
        if given > MOST_OPTION:
            raise wrong(f"strategy.{name}", f"at most {MOST_OPTION}", given)
    try:
        return kind(**options)
    except InputError as error:
        raise RequestError(400, f"'strategy': {error}", "strategy") from None
