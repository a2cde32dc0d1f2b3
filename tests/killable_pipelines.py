"""A loop of a pipeline that `check_killed` starts in processes of its own and kills.

The pipeline is loaded once, when this is imported: these processes start often.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiny_pipelines import stable_diffusion
from toys import slowly

from ostinato.image import Renoise, Sharpness
from ostinato.image.pipelines import load_pipeline, pipeline_loop
from ostinato.loop import CheckpointSchedule, Loop, Steps

with TemporaryDirectory() as folder:
    FAMILY = load_pipeline(stable_diffusion(Path(folder)))


def pipeline(**where: Any) -> Loop:
    """Images of 64 x 64 in color, decoded at every step; those that fail are noised again."""
    return pipeline_loop(
        [{"prompt": name, "height": 64, "width": 64} for name in ("a cat", "a dog", "a house")],
        pipeline=FAMILY,
        each=Steps(100) | slowly(0.004),
        checks=[Sharpness(least=0.99)],
        on_stop=Renoise(rounds=2),
        steps=6,
        slots=2,
        decode=True,
        checkpoint=CheckpointSchedule(steps=5),
        **where,
    )
