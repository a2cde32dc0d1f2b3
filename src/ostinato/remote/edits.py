"""Edits of a server's lane: which values they may have, and what holds at a position.

Knows no request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

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


def prompt_edits_of(lane: Lane, for_prompt: Collection[str]) -> dict[str, object]:
    """Check a lane's edits; return those at its start that are named in `for_prompt`.

    Raises `EditError` for an unknown name, and for a value that cannot be applied.
    """
    lane.edits.check("a server's lane", KNOWN, _check, at_start=for_prompt)
    return lane.edits.in_force(0, for_prompt)


def sampling_at(lane: Lane, position: int, sampling: Mapping[str, float]) -> dict[str, float]:
    """Return the sampling settings at a position, edits included."""
    return {**sampling, **lane.edits.in_force(position, SAMPLING)}


def forced_at(lane: Lane, position: int, tokens: Sequence[int]) -> int | None:
    """Return the number that a `force` edit puts at a position, None where the server writes."""
    if not (forced := lane.edits.values(position, "force")):
        return None
    at, numbers = forced[-1]  # the newest edit decides
    # The tokens there must be those of the forced text; else the lane has left it since.
    on_it = list(tokens[at:position]) == list(numbers[: position - at])
    return numbers[position - at] if on_it and position < at + len(numbers) else None


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
    require_sampling({name: value})
