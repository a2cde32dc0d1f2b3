"""What a command was told: the same for a run that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ostinato.errors import InputError

WEIGHTS = "weights"
"""The entry of an order that is a hash of the model's weights, where these can be read."""
TOLD = {WEIGHTS: "model (its files have changed)"}

if TYPE_CHECKING:
    from ostinato.journal import JSON


def refuse_another(run_name: str, kept_as: str, order: Mapping[str, JSON]) -> bool:
    """Tell whether a run is finished; False where there is none.

    `order` is what its results depend on, which its spec holds as `kept_as`. Raises `InputError`
    where the run was begun with something else.
    """
    from ostinato.journal import DEFAULT, Journal

    if not DEFAULT.exists():
        return False
    with Journal() as journal:
        run = journal.find(run_name)
        if run is None:
            return False
        before = run.spec.get(kept_as)
        if before != order:
            known = before if isinstance(before, dict) else {}
            names = {**order, **known}
            changed = [name for name in names if known.get(name) != order.get(name)]
            if changed == [WEIGHTS] and not (known.get(WEIGHTS) and order.get(WEIGHTS)):
                return run.status == "stopped"  # of one of the two they are not known
            told = ", ".join(TOLD.get(name, name) for name in changed)
            raise InputError(
                f"The run {run_name!r} must be given what it was begun with, got another {told}. "
                "Give the same, or another name with --run."
            )
        return run.status == "stopped"
