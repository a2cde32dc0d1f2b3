"""What belongs to one item of lanes: its stop, its judge, its strategy. Knows no process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ostinato.errors import InputError
from ostinato.loop.actions import OnStop, accept
from ostinato.loop.check import Verdict
from ostinato.loop.conditions.base import Condition, as_condition
from ostinato.loop.step import Step
from ostinato.loop.timeline import Edits

Judge = Callable[[object, Any], Sequence[Verdict]]
"""Judges the whole output of an item: `judge(output, item)`."""

Ready = Callable[[Any], str | None]
"""Returns the output of an item that needs no process, else None: `ready(item)`."""

Edited = Callable[[Any, Edits], object]
"""Returns an item as edits from outside have changed it: `edited(item, edits)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How an item is worked on in `Lanes`.

    `each` ends a draft: a condition, or a callable of the step. `judge` returns the verdicts on a
    draft that ended. `on_stop` answers a stop that is not good enough. An item for which `ready`
    has an output that passes takes no slot. A lane that is changed from outside is judged by its
    item as `edited` returns it. Raises `InputError` for an `each` that is no condition, and for
    another field that cannot be called.
    """

    each: Condition | Callable[[Step], object]
    judge: Judge | None = None
    on_stop: OnStop = accept
    ready: Ready | None = None
    edited: Edited | None = None

    def __post_init__(self) -> None:
        as_condition(self.each)
        for name in ("judge", "on_stop", "ready", "edited"):
            value = getattr(self, name)
            if not callable(value) and (value is not None or name == "on_stop"):
                raise InputError(
                    f"Policy({name}) must be a function, got {value!r}. Give one, or leave it out."
                )

    @property
    def condition(self) -> Condition:
        """The condition that ends a draft."""
        return as_condition(self.each)

    def judged(self, output: object, item: object) -> tuple[Verdict, ...]:
        """Return the verdicts on an output; none without a judge.

        Raises `InputError` where the judge returns anything else.
        """
        if self.judge is None:
            return ()
        returned: object = self.judge(output, item)
        verdicts = tuple(returned) if isinstance(returned, Iterable) else (returned,)
        if not all(isinstance(each, Verdict) for each in verdicts):
            raise InputError(
                f"A judge must return verdicts, got {returned!r:.80}. Return for example "
                "[Verdict('length', True)]."
            )
        return verdicts


PolicyOf = Callable[[Any], Policy]
"""Returns the policy of an item: the same one whenever it is called, as a resume calls it again."""


def per_item(policy: Policy | PolicyOf) -> PolicyOf:
    """Return a function from an item to its policy. Raises `InputError` for anything else."""
    if isinstance(policy, Policy):
        return lambda item: policy
    if not callable(policy) or isinstance(policy, type):
        raise InputError(
            "The policy of lanes must be a Policy, or a function from an item to one, got "
            f"{policy!r}. Write for example Policy(each=Steps(100))."
        )

    def checked(item: object) -> Policy:
        made = policy(item)
        if not isinstance(made, Policy):
            raise InputError(
                f"The policy of an item must be a Policy, got {made!r}. Return for example "
                "Policy(each=Steps(100))."
            )
        return made

    return checked
