"""Conversations as text: the checkpoint's template in a sandbox, which traces the messages.

Knows no tokenizer.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from ostinato.errors import InputError, ModelError
from ostinato.models.traced_text import (
    GENERATED,
    OUTSIDE,
    Span,
    TracedText,
    blended,
    holds_traced,
    joined,
    outside,
    trace_result,
)

_NO_WORDS = ("role", "name")  # of a message: they set its frame
# Filters that return a text they are given, or apply a method of it that keeps its spans.
_EXACT = ("attr", "d", "default", "first", "last", "max", "min", "random", "replace", "trim")
_ROLE = re.compile(r"[A-Za-z][\w-]*")
_REASONING = ("reasoning_content", "thinking", "reasoning")  # one thing under three names


class ChatTemplate:
    """A jinja template with the functions that the Hugging Face layout provides to it."""

    def __init__(self, source: str) -> None:
        """Compile `source`. Raises `ModelError` where it is not a template."""
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(
                f"chat_template must be a jinja template, got: {error}. "
                "Fix tokenizer_config.json or chat_template.jinja."
            ) from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        values: Mapping[str, Any],
        names: Mapping[str, Any],
    ) -> TracedText:
        """Return the conversation as text that knows which parts are from `messages` or `values`.

        `names` are the checkpoint's own. Raises `InputError` where the template refuses it.
        """
        for i, message in enumerate(messages):
            _check_message(i, message)
        traced = [_traced_message(i, message) for i, message in enumerate(messages)]
        try:
            text = self._template.render(messages=traced, **{**names, **_traced(values, OUTSIDE)})
        except Exception as error:  # a template is a program: it may fail like one
            reason = str(error) if isinstance(error, jinja2.TemplateError) else repr(error)
            reason = reason.rstrip(".")
            raise InputError(
                f"messages must be a conversation that the chat template takes, got: {reason}. "
                "Give each a role and content, with the roles in the order of the model's tuning."
            ) from error
        assert isinstance(text, TracedText)
        return text


def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.filters = {
        name: _traced_filter(name, function) for name, function in environment.filters.items()
    }
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _CodeGenerator(CodeGenerator):
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        """Write `a ~ b` as a call of `_Environment.joined`; jinja's own makes plain texts."""
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_EvalContextModifier(self, node: nodes.EvalContextModifier, frame: Frame) -> None:
        """Refuse `{% autoescape %}`, whose texts forget where they are from."""
        raise jinja2.TemplateAssertionError("it sets autoescape", node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox in which everything that is made of traced text is traced."""

    code_generator_class = _CodeGenerator
    concat = staticmethod(joined)
    intercepted_binops = frozenset(("%", "*", "+"))

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_shown, **options)

    @staticmethod
    def joined(parts: Sequence[Any]) -> TracedText:
        """Return what `~` makes of its operands."""
        return joined(str(_shown(part)) for part in parts)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls."""

        def called(owner: Any, *args: Any, **kwargs: Any) -> Any:
            bound = function if owner is None else getattr(owner, function.__name__)
            return ImmutableSandboxedEnvironment.call(self, context, bound, *args, **kwargs)

        owner = getattr(function, "__self__", None)
        if not isinstance(owner, str):
            if isinstance(owner, Mapping | list | tuple):  # returns what it holds
                return called(None, *args, **kwargs)
            owner = None
        return _traced_call(called, owner, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `left % right`, `left * right` or `left + right`."""
        compute = self.binop_table[operator]
        if operator == "+" and not isinstance(left, Markup):  # else texts keep their places
            return compute(left, right)
        return _traced_call(compute, left, right)


def _listed(value: Any) -> Any:
    # A loop is an iterator too, but a template passes it on to be asked where it is.
    iterates = isinstance(value, Iterator) and not isinstance(value, LoopContext)
    return list(value) if iterates else value


def _traced_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # An iterator can be read once only, and what it yields must be seen here too.
    args = tuple(_listed(value) for value in args)
    result = function(*args, **kwargs)
    if isinstance(result, bytes | bytearray):  # a way back to text that forgets where it is from
        raise jinja2.exceptions.SecurityError("a template must not make bytes")
    return trace_result(result, function, args, kwargs)


def _traced_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    if name in _EXACT:
        return functools.wraps(function)(functools.partial(_traced_call, function))

    @functools.wraps(function)
    def forgetful(*args: Any, **kwargs: Any) -> Any:
        # Inside, it may join texts that know where they are from with copies that do not.
        result = function(*args, **kwargs)
        return "".join([result]) if isinstance(result, TracedText) else result

    return functools.wraps(function)(functools.partial(_traced_call, forgetful))


def _shown(value: Any) -> Any:
    """Return a value as `{{ value }}` shows it."""
    if isinstance(value, str) or not holds_traced(value):
        return value
    return blended(str(value), [value])


class _Generation(Extension):
    """Support `{% generation %}`, with which training templates mark the model's own text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Return a call of `_marked` on the statements between the two tags."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Macro) -> TracedText:
        text = joined([caller()])
        return TracedText(text, [*text.spans, Span(0, len(text), GENERATED)])


def _check_message(index: int, message: Mapping[str, Any]) -> None:
    for key in ("role", "content"):
        value = message.get(key)
        if not isinstance(value, str):
            kind = "none" if value is None else type(value).__name__
            raise InputError(
                f"{key} of message {index} must be text, got {kind}. Give each message a role "
                "(system, user or assistant) and content."
            )


def _traced_message(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message whose texts know that they are from it."""
    values = dict(message)
    reasoning = next((v for key in _REASONING if (v := values.get(key)) is not None), None)
    if reasoning is not None:  # as `transformers` does for templates that read another name
        values = {"thinking": reasoning, **values, "reasoning_content": reasoning}
    traced = {
        key: _traced(value, OUTSIDE if key in _NO_WORDS else index) for key, value in values.items()
    }
    # Some templates build control tokens of roles: '<|' + role + '|>'.
    if _ROLE.fullmatch(values["role"]):
        traced["role"] = str(values["role"])
    return traced


def _traced(value: Any, source: int) -> Any:
    if isinstance(value, str):
        return outside(value, source)
    if isinstance(value, Mapping):
        return {_traced(key, source): _traced(inner, source) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_traced(inner, source) for inner in value]
    return value


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON without the HTML escapes of jinja's own filter."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
