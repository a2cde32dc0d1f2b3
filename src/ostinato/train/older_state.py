"""The states of trainings that were saved before a training was made of parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def as_parts(state: Mapping[str, Any], batches_per_step: int) -> Mapping[str, Any]:
    """Return a saved state by the parts of `Training`; one that has them is returned as it is."""
    if "step" not in state:
        return state
    step = state["step"]
    return {
        "weights": state["weights"],
        "updater": {
            "steps": step,
            "lr": state["lr"],
            "lr_scale": state["lr_scale"],
            "optimizer": state["optimizer"],
        },
        "averages": {"updates": step, "weights": state["ema"]},
        # The oldest have neither `best_step`, `validated` nor `left_out`.
        "best": {
            "value": state["best_loss"],
            "step": state.get("best_step"),
            "weights": state["best"],
        },
        "validation": {"last": state.get("validated", -1)},
        "cursor": {
            "steps": step,
            "index": step * batches_per_step + state["skipped"],
            "left_out": state.get("left_out", ()),
        },
    }
