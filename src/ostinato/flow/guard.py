"""Refuses a flow whose code draws random numbers, reads a clock or iterates a set.

Such a flow makes other calls when it is replayed. Its source is read, and that of the functions of
its own module that it calls; a step may do all of it, as its answer is recorded.
"""

from __future__ import annotations

import ast
import builtins
import datetime
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakSet

from ostinato.errors import InputError

CHANCE = "Use uniform() of ostinato.flow, or make it a step"
CLOCK = "Use now() of ostinato.flow, or make it a step"
PERSON = "Use ask(…) of ostinato.flow, or make it a step"
SET = "Iterate over sorted(…)"

_MODULES = {
    "random": CHANCE,
    "secrets": CHANCE,
    "numpy.random": CHANCE,
}
"""Modules all of whose functions are refused."""

_FUNCTIONS = {
    "time": (CLOCK, ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter")),
    "os": (CHANCE, ("urandom", "getpid")),
    "uuid": (CHANCE, ("uuid1", "uuid4")),
    "torch": (CHANCE, ("rand", "randn", "randint", "randperm", "bernoulli", "multinomial")),
    "builtins": (PERSON, ("input",)),
}

_SEEDED = {"Random", "default_rng", "Generator", "RandomState", "SeedSequence"}
"""What gives the same numbers each time where it is made with a seed."""

_CLOCKS = {"now", "utcnow", "today"}
_KEEP_ORDER = {"list", "tuple", "enumerate", "iter", "map", "filter", "zip", "dict"}
"""Functions whose result has the order of what they are given."""


_repeatable: WeakSet[Callable[..., object]] = WeakSet()
_one_at_a_time = Lock()


def require_repeatable(function: Callable[..., object]) -> None:
    """Raise `InputError` for a flow that would not make the same calls again.

    It names the file, the line and what to use instead. A function is read once.
    """
    # One thread at a time: Python 3.11 can fail where two parse at once (SystemError).
    with _one_at_a_time:
        if function not in _repeatable:
            _read(function)
            _repeatable.add(function)


def _read(function: Callable[..., object]) -> None:
    for code in _with_helpers(function):
        for node, what, fix in _found(code):
            raise InputError(
                f"A flow must make the same calls when it is replayed, and {what} is different "
                f"each time, at {code.place(node)} in {function.__name__}. {fix}."
            )


class _Code:
    """A function's source as a tree, and what its names stand for."""

    def __init__(self, function: types.FunctionType, tree: ast.AST, first: int) -> None:
        self.function, self.tree, self._first = function, tree, first
        code = function.__code__
        self._local = {*code.co_varnames, *code.co_cellvars}
        closure = inspect.getclosurevars(function) if function.__closure__ else None
        self._names = {**function.__globals__, **(closure.nonlocals if closure else {})}

    def place(self, node: ast.AST) -> str:
        line = getattr(node, "lineno", 1) + self._first - 1
        return f"{Path(self.function.__code__.co_filename).name}:{line}"

    def value(self, node: ast.AST) -> Any:
        """Return what a name, or an attribute of a module or class, stands for; None if unknown."""
        if isinstance(node, ast.Name):
            if node.id in self._local:
                return None
            return self._names.get(node.id, getattr(builtins, node.id, None))
        if isinstance(node, ast.Attribute):
            owner = self.value(node.value)
            if isinstance(owner, types.ModuleType | type):
                return getattr(owner, node.attr, None)
        return None


def _with_helpers(function: Callable[..., object]) -> Iterator[_Code]:
    """Yield a function's code and that of the functions of its module that it calls."""
    waiting, seen = [inspect.unwrap(function)], set[object]()
    while waiting:
        one = waiting.pop()
        if one in seen or not isinstance(one, types.FunctionType):
            continue
        seen.add(one)
        code = _code(one)
        if code is None:
            continue
        yield code
        for node in ast.walk(code.tree):
            called = code.value(node.func) if isinstance(node, ast.Call) else None
            if isinstance(called, types.FunctionType) and called.__module__ == one.__module__:
                waiting.append(called)


def _code(function: types.FunctionType) -> _Code | None:
    try:
        lines, first = inspect.getsourcelines(function)
        return _Code(function, ast.parse(textwrap.dedent("".join(lines))), max(first, 1))
    except (OSError, TypeError, SyntaxError):  # typed in, or a lambda within a line
        return None


def _found(code: _Code) -> Iterator[tuple[ast.AST, str, str]]:
    sets = _set_names(code)
    for node in ast.walk(code.tree):
        if isinstance(node, ast.Call):
            value = code.value(node.func)
            fix = _refusal(value)
            seeded = getattr(value, "__name__", "") in _SEEDED and (node.args or node.keywords)
            if fix and not seeded:
                yield node, f"{ast.unparse(node.func)}()", fix
            ordered = isinstance(node.func, ast.Name) and node.func.id in _KEEP_ORDER
            joined = isinstance(node.func, ast.Attribute) and node.func.attr == "join"
            if (ordered or joined) and any(_is_set(each, code, sets) for each in node.args):
                yield node, "the order of a set", SET
        elif isinstance(node, ast.For | ast.AsyncFor):
            if _is_set(node.iter, code, sets):
                yield node, "the order of a set", SET
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp):
            # A comprehension that makes a set again keeps no order; sorted() makes one.
            of_set = any(_is_set(each.iter, code, sets) for each in node.generators)
            if of_set and not _in_sorted(node, code):
                yield node, "the order of a set", SET


def _in_sorted(node: ast.AST, code: _Code) -> bool:
    """Whether an expression is given to a function that does not depend on its order."""
    free = {"sorted", "sum", "min", "max", "len", "any", "all", "set", "frozenset"}
    return any(
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in free
        and node in call.args
        for call in ast.walk(code.tree)
    )


def _set_names(code: _Code) -> set[str]:
    """Return the local names that are only ever given sets."""
    given: dict[str, list[ast.expr]] = {}
    for node in ast.walk(code.tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    given.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            given.setdefault(node.target.id, []).append(node.value)
        elif isinstance(node, ast.For | ast.AugAssign) and isinstance(node.target, ast.Name):
            given.setdefault(node.target.id, []).append(ast.Constant(None))
    none = set[str]()
    return {name for name, values in given.items() if all(_is_set(v, code, none) for v in values)}


def _is_set(node: ast.AST, code: _Code, names: set[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.Call):
        return code.value(node.func) in (set, frozenset)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub):
        return _is_set(node.left, code, names) or _is_set(node.right, code, names)
    return False


def _refusal(value: Any) -> str:
    """Return what to use instead of a function that is different each time; "" for any other."""
    if value is None:
        return ""
    name = getattr(value, "__name__", "")
    owner = getattr(value, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, datetime.date):
        return CLOCK if name in _CLOCKS else ""
    for module, fix in _MODULES.items():
        there = sys.modules.get(module)
        if there is not None and getattr(there, name or "", None) == value and callable(value):
            return fix
    for module, (fix, names) in _FUNCTIONS.items():
        there = sys.modules.get(module)
        if there is not None and name in names and getattr(there, name, None) is value:
            return fix
    return ""
