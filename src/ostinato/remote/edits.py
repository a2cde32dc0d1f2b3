"""Edits of a server's lane: which values they may have, and what holds at a position.

Knows no request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from ostinato.arguments import require_sampling
from ostinato.errors import EditError, InputError
from ostinato.journal import EditKind
from ostinato.loop import Lane
from ostinato.remote.dialect import NEUTRAL
from ostinato.remote.openai_api import EXTENSIONS
from ostinato.remote.server import Server

SAMPLING = ("temperature", "top_p", *EXTENSIONS)
LISTS = ("forbid", "force")
KNOWN: Mapping[str, EditKind] = {
    **dict.fromkeys(SAMPLING, "number"),
    **dict.fromkeys(LISTS, "list"),
}


def prompt_edits_of(lane: Lane, for_prompt: Iterable[str]) -> dict[str, object]:
    """Check a lane's edits; return those at its start that are named in `for_prompt`.

    Raises `EditError` for an unknown name, and for a value that cannot be applied.
    """
    found: dict[str, object] = {}
    known = {*KNOWN, *for_prompt}
    for at, edits in lane.edits:
        for name, value in edits.items():
            if name in for_prompt and at == 0:
                found[name] = value
            elif name in KNOWN:
                _check(name, value)
            else:
                names = ", ".join(sorted(known))
                raise EditError(f"Unknown edit {name!r} of a server's lane. Known: {names}.")
    return found


def sampling_at(lane: Lane, position: int, sampling: Mapping[str, float]) -> dict[str, float]:
    """Return the sampling settings at a position, edits included."""
    settings = dict(sampling)
    for at, edits in lane.edits:
        if at <= position:
            settings |= {n: cast(float, v) for n, v in edits.items() if n in SAMPLING}
    return settings


def forced_at(lane: Lane, position: int, tokens: Sequence[int]) -> int | None:
    """Return the number that a `force` edit puts at a position, None where the server writes."""
    for at, edits in reversed(lane.edits):
        if "force" not in edits or at > position:
            continue
        numbers = cast(Sequence[int], edits["force"])
        # The tokens there must be those of the forced text; else the lane has left it since.
        on_it = list(tokens[at:position]) == list(numbers[: position - at])
        if position < at + len(numbers) and on_it:
            return numbers[position - at]
        return None  # the newest edit decides
    return None


def check_sampling(server: Server, sampling: Mapping[str, float]) -> dict[str, float]:
    """Return the sampling settings that are sent.

    Raises `InputError` for one that a server without extensions does not know.
    """
    for name, value in sampling.items():
        if name in EXTENSIONS and value != NEUTRAL[name] and not server.extensions:
            raise InputError(
                f"{name} must be {NEUTRAL[name]:g} with a server that knows only the API's own "
                f"settings, got {value:g}. Leave it out, or set extensions = true where the server "
                "knows it (llama.cpp, vLLM)."
            )
    return {name: value for name, value in sampling.items() if name in SAMPLING}


def _check(name: str, value: object) -> None:
    if name in LISTS:
        is_list = isinstance(value, list | tuple) and all(type(one) is int for one in value)
        if not is_list:
            raise EditError(f"{name} must be a list of the numbers of characters, got {value!r}.")
        return
    try:
        require_sampling({name: value})
    except InputError as error:
        raise EditError(f"The edit cannot be applied: {error}") from None
