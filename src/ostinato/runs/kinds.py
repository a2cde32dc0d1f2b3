"""The kinds of runs: for each the class of its configuration and the function that builds it.

A new kind is one entry here, one configuration and one builder. Knows no family: names are
imported when they are needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from ostinato.arguments import did_you_mean
from ostinato.errors import RunError
from ostinato.journal import RunConfig


class RunKind(NamedTuple):
    """Where the configuration's class and the builder are: `package:name`.

    The builder takes the configuration and, as `run`, the `Run` that it drives (None for a run
    that nothing records), and returns a `Work`.
    """

    config: str
    build: str

    def config_class(self) -> type[RunConfig]:
        """Import the configuration's class."""
        found: type[RunConfig] = _imported(self.config)
        return found

    def builder(self) -> Callable[..., Any]:
        """Import the builder."""
        found: Callable[..., Any] = _imported(self.build)
        return found


KINDS: dict[str, RunKind] = {
    "chat": RunKind("ostinato.flow:ChatRun", "ostinato.flow:build_chat"),
    "flow": RunKind("ostinato.flow:FlowRun", "ostinato.flow:build_flow"),
    "fill": RunKind("ostinato.text:FillRun", "ostinato.text:build_fill"),
    "generate": RunKind("ostinato.text:GenerateRun", "ostinato.text:build_generate"),
    "play": RunKind("ostinato.reward.games:PlayRun", "ostinato.reward.games:build_play"),
    "sample image": RunKind("ostinato.image:SampleImageRun", "ostinato.image:build_sample_image"),
    "sample gan": RunKind(
        "ostinato.adversarial:SampleGanRun", "ostinato.adversarial:build_sample_gan"
    ),
    "sample pipeline": RunKind(
        "ostinato.image.pipelines:SamplePipelineRun",
        "ostinato.image.pipelines:build_sample_pipeline",
    ),
    "sample image-tokens": RunKind(
        "ostinato.image.tokens:SampleImageTokensRun",
        "ostinato.image.tokens:build_sample_image_tokens",
    ),
    "sample vae": RunKind("ostinato.image.vae:SampleVaeRun", "ostinato.image.vae:build_sample_vae"),
    "sample music": RunKind("ostinato.music:SampleMusicRun", "ostinato.music:build_sample_music"),
    "teach": RunKind("ostinato.reward.minigame:TeachRun", "ostinato.reward.minigame:build_teach"),
    "train gan": RunKind("ostinato.adversarial:GanTrainingRun", "ostinato.train:build_training"),
    "train text": RunKind("ostinato.text:TextTrainingRun", "ostinato.train:build_training"),
    "train image": RunKind("ostinato.image:ImageTrainingRun", "ostinato.train:build_training"),
    "train image-tokens": RunKind(
        "ostinato.image.tokens:ImageTokenTrainingRun",
        "ostinato.image.tokens:build_image_token_training",
    ),
    "train image-codec": RunKind(
        "ostinato.image.tokens:CodecTrainingRun", "ostinato.train:build_training"
    ),
    "train vae": RunKind("ostinato.image.vae:VaeTrainingRun", "ostinato.train:build_training"),
    "train policy": RunKind(
        "ostinato.reward.games:PolicyTrainingRun", "ostinato.train:build_training"
    ),
    "train music": RunKind("ostinato.music:MusicTrainingRun", "ostinato.train:build_training"),
    "train preferences": RunKind("ostinato.reward:PreferenceRun", "ostinato.train:build_training"),
    "tune": RunKind("ostinato.reward:TuneRun", "ostinato.train:build_training"),
    "Refine": RunKind("ostinato.refine:RefineConfig", "ostinato.refine:build_refine"),
    "refine": RunKind("ostinato.refine:JobRunConfig", "ostinato.refine:build_job"),
}
"""By name: all kinds of runs that can be built from their record."""


def kind_of(name: str) -> RunKind:
    """Return a kind of run. Raises `RunError` for an unknown one."""
    kind = KINDS.get(name)
    if kind is None:
        raise RunError(
            f"The kind of a run must be one of {', '.join(KINDS)}, got {name!r}."
            f"{did_you_mean(name, KINDS)}"
        )
    return kind


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
