"""Draw with a pipeline: the loop over prompts, ready to be iterated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ostinato.errors import InputError
from ostinato.image.drawing import ALL_STEPS, drawn
from ostinato.image.pipelines.families import Family
from ostinato.image.pipelines.folder import load_pipeline
from ostinato.image.pipelines.process import DenoisePipeline
from ostinato.image.pipelines.prompted import as_prompted
from ostinato.loop import Check, Condition, Loop, OnStop, accept


def draw_pipeline(
    items: Sequence[object],
    *,
    pipeline: Family | str,
    each: Condition = ALL_STEPS,
    checks: Sequence[Check] = (),
    on_stop: OnStop = accept,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    places: int | None = None,
    decode: bool = False,
    **loop: Any,
) -> Loop:
    """Return the loop that draws one image for every item, side by side.

    An item is a text (its prompt), a `Prompted`, a mapping of its fields, or None where the
    pipeline takes no words. `each` ends an image before its last step, such as
    `Converges("change", 0.01)`; `checks` judge it, and `on_stop` answers where it fails.
    `decode` adds the predicted `image` to every report. `loop` goes to `Loop`, as `run` and
    `until`. The row's `output` is a tensor (C, H, W) in [-1, 1].
    """
    if not items:
        raise InputError("There must be at least one item, got none.")
    family = pipeline if isinstance(pipeline, Family) else load_pipeline(pipeline)
    process = DenoisePipeline(
        family, steps=steps, guidance=guidance, places=places or min(len(items), 16), decode=decode
    )
    values = [asdict(as_prompted(item)) for item in items]
    return drawn(process, values, dict, each, checks, on_stop, seed, **loop)
