"""What a server has refused of the API, remembered while the program runs. Sends nothing.

The first refusal costs a request; those after it are sent as the server takes them. Only what
leaves the text's meaning alone is left out: for the rest, the error says what to set.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from ostinato.remote.api_error import ApiError
from ostinato.remote.retry import UnsupportedSetting
from ostinato.remote.server import Server

REFUSING = frozenset({400, 403, 422})  # statuses that can mean a field; 403: OpenAI, for `logprobs`

HARMLESS: Mapping[str, str] = {
    "seed": "so the same request may get another answer",
    "stream": "so answers arrive whole",
    "stream_options": "so the tokens of a stream are estimated",
    "logprobs": "so there are no log-probabilities",
    "top_logprobs": "so there are no alternatives to a token",
}
"""Fields that change nothing about the text, and what is lost without them."""

NEUTRAL: Mapping[str, float] = {
    "temperature": 1,
    "top_p": 1,
    "top_k": 0,
    "min_p": 0,
    "repetition_penalty": 1,
}
"""Values that mean the same as leaving the field out."""

LONGEST_EXCERPT = 160  # characters of a server's message inside one of ours
LIMIT, NEWER_LIMIT = "max_tokens", "max_completion_tokens"


class Dialect:
    """What one server and model do not take, and what is to be told of it. For any thread."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._refused: set[str] = set()
        self._taken: set[tuple[str, object]] = set()
        self._told: set[str] = set()
        self._notices: list[str] = []
        self._lock = threading.Lock()

    def adapt(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request's body as the server takes it."""
        with self._lock:
            left_out = {name for name in self._refused if body.get(name) == NEUTRAL.get(name)}
            left_out |= self._refused & HARMLESS.keys()
            renamed = LIMIT in self._refused
        if "stream" in left_out:
            left_out.add("stream_options")
        if "logprobs" in left_out:
            left_out.add("top_logprobs")
        adapted = {name: value for name, value in body.items() if name not in left_out}
        if renamed:
            adapted[NEWER_LIMIT] = adapted.pop(LIMIT)
        return adapted

    def succeeded(self, sent: Mapping[str, Any]) -> None:
        """Note what a body held that the server has accepted."""
        known = HARMLESS.keys() | NEUTRAL.keys()
        with self._lock:
            self._taken |= {_setting(name, sent[name]) for name in known & sent.keys()}

    def learn(self, sent: Mapping[str, Any], status: int, error: ApiError) -> bool:
        """Learn from a refusal of a body; return whether `adapt` now makes another one.

        Raises `UnsupportedSetting` for a field without which the text would be another.
        """
        if status not in REFUSING:
            return False
        with self._lock:
            # Not what it has taken before: a message may quote the prompt, and that any word.
            named = [
                name
                for name in sent
                if error.names(name) and _setting(name, sent[name]) not in self._taken
            ]
            if NEWER_LIMIT in named:  # it takes neither, so the number is wrong, and not the name
                self._refused.discard(LIMIT)
                return False
            learned = [name for name in named if self._can_omit(name, sent[name], error)]
            self._refused.update(learned)
        for name in learned:
            if name in HARMLESS:
                self.tell(
                    f"{self._server.name} does not take {name}: it is left out from now on, "
                    f"{HARMLESS[name]}."
                )
        needed = [name for name in named if name in NEUTRAL and name not in learned]
        if needed and not learned:
            raise UnsupportedSetting(self._needs(needed[0], sent[needed[0]], status, error))
        return bool(learned)

    def tell(self, notice: str) -> None:
        """Keep a notice for `take_notices`; each is told once."""
        with self._lock:
            if notice not in self._told:
                self._told.add(notice)
                self._notices.append(notice)

    def take_notices(self) -> list[str]:
        """Return the notices that nobody has taken."""
        with self._lock:
            notices, self._notices = self._notices, []
        return notices

    def _can_omit(self, name: str, value: Any, error: ApiError) -> bool:
        # A limit may also be refused for its number; the newer name would not help then.
        if name == LIMIT:
            return error.is_unsupported or error.names(NEWER_LIMIT)
        return name in HARMLESS or (name in NEUTRAL and value == NEUTRAL[name])

    def _needs(self, name: str, value: Any, status: int, error: ApiError) -> str:
        neutral = f"{NEUTRAL[name]:g}"
        return (
            f"{name} must be {neutral} for {self._server.name}, which refuses others, got "
            f"{value:g}. It answered {status}: {error.message[:LONGEST_EXCERPT]} Set {name} = "
            f"{neutral}, or to a value that it takes."
        )


def _setting(name: str, value: object) -> tuple[str, object]:
    """Return what a server takes or refuses: of some fields the value, of others the name alone."""
    return name, value if name in NEUTRAL else None


_dialects: dict[str, Dialect] = {}
_registry = threading.Lock()


def dialect_of(server: Server) -> Dialect:
    """Return the dialect of a server's model, which all requests to it share."""
    with _registry:
        return _dialects.setdefault(f"{server.name} {server.api}", Dialect(server))
