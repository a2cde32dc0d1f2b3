"""Keeps a named run to the inputs it started with: its results depend on nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ostinato.cli.runs.recorded_command import command_spec
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.journal import JSON

WEIGHTS = "weights"
"""The input that is a hash of the model's weights; empty where they cannot be read."""
MODES = ("compile", "bits", "device")  # inputs that decide how a model computes
SHOWN_AS = {
    ("generate", WEIGHTS): "model (its files have changed)",
    ("fill", WEIGHTS): "model (its files have changed)",
    ("generate", "each"): "--max-new-tokens, --stop or --each",
    ("generate", "alternatives"): "--show or --each",
    ("generate", "constraint"): "--regex, --json-schema, --choice or --grammar",
    ("generate", "sampling"): "the sampling options",
}
"""How an input of a kind of run is shown, where its name is not that of an argument or option."""


def require_same_inputs(run_name: str, key: str, inputs: Mapping[str, JSON]) -> bool:
    """Return whether the run is finished; False where there is none of this name.

    Its spec holds its inputs under `key`. Raises `InputError` where they are others.
    """
    from ostinato.journal import DEFAULT, Journal

    # Opening would create the file, and bad input must leave nothing behind.
    if not DEFAULT.exists():
        return False
    with Journal() as journal:
        run = journal.find(run_name)
        if run is None:
            return False
        before = run.spec.get(key)
        known = before if isinstance(before, dict) else {}
        changed = [name for name in {**inputs, **known} if known.get(name) != inputs.get(name)]
        if changed == [WEIGHTS] and not (known.get(WEIGHTS) and inputs.get(WEIGHTS)):
            changed = []  # a finished text is shown even where the model's files are gone
        if changed:
            names = ", ".join(SHOWN_AS.get((key, name), name) for name in changed)
            begun = [f"{name} {known[name]}" for name in MODES if name in changed and name in known]
            told = f" (it began with {', '.join(begun)})" if begun else ""
            raise InputError(
                f"The run {run_name!r} must keep the inputs it started with, got new values for "
                f"{names}{told}. Give the same ones, or another name with --run."
            )
        return run.status == "stopped"


def run_settings(
    run_name: str | None, key: str, inputs: dict[str, JSON], **more: JSON
) -> dict[str, Any]:
    """Return `run` and `spec` of a loop that records a run; {} without a name.

    The spec holds the inputs under `key`, `more`, and the command that is running. Raises
    `InputError` where a run of this name has other inputs.
    """
    if run_name is None:
        return {}
    require_same_inputs(run_name, key, inputs)
    return {"run": run_name, "spec": {**more, key: inputs, **command_spec()}}
