"""The configuration of a run that samples images with a diffusers pipeline. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ostinato.arguments import require_at_least
from ostinato.image import ImageSamplingRun


@dataclass(frozen=True, kw_only=True)
class SamplePipelineRun(ImageSamplingRun):
    """Images that a pipeline samples; None is its own default.

    Without `prompts`, the pipeline is unconditional.
    """

    kind: ClassVar[str] = "sample pipeline"

    prompts: tuple[str, ...] = ()
    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("height", "width", "steps"):
            value = getattr(self, name)
            require_at_least(1, **{name: 1 if value is None else value})
