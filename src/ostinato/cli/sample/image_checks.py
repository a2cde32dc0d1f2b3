"""`ostinato sample image`: the checks that an image is to pass, and what is done where it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.image import Classifier, Denoiser
    from ostinato.loop import Check, OnStop

SURE = 0.9
FITS = 0.25
OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--until-passes",
        is_flag=True,
        help="Noise again what fails its checks; without others, what is not --min-class-probability.",
    ),
    click.option(
        "--min-class-probability",
        type=click.FloatRange(0, 1),
        help=f"The probability that the classifier must give the class.  [{SURE}]",
    ),
    click.option("--classifier", help="Who is to recognize: a folder or a name.  [digits]"),
    click.option(
        "--min-sharpness", type=click.FloatRange(0, 1), help="How steep the edges must be."
    ),
    click.option(
        "--clip-model",
        type=click.Path(path_type=Path),
        help="A folder of a CLIP model: how well image and words must fit.",
    ),
    click.option(
        "--min-clip-score",
        type=click.FloatRange(-1, 1),
        help=f"The cosine that --clip-model asks for.  [{FITS}]",
    ),
    click.option(
        "--clip-text", help="What --clip-model compares with; else the prompt of a pipeline."
    ),
    click.option(
        "--rounds",
        type=click.IntRange(min=1),
        default=3,
        show_default=True,
        help="Begin an image so often where checks fail.",
    ),
)
NAMES = {
    *("until-passes", "min-class-probability", "classifier", "min-sharpness"),
    *("clip-model", "min-clip-score", "clip-text", "rounds"),
}


def check_options(command: Any) -> Any:
    """Add the options of checks to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True)
class ImageChecks:
    """The options of checks as they were typed."""

    until_passes: bool
    min_class_probability: float | None
    classifier: str | None
    min_sharpness: float | None
    clip_model: Path | None
    min_clip_score: float | None
    clip_text: str | None
    rounds: int

    def on_stop(self, checks: Sequence[Check]) -> OnStop:
        """Return what answers an image that fails."""
        from ostinato.image import Renoise
        from ostinato.loop import accept

        return Renoise(rounds=self.rounds) if checks else accept

    def checks(self, network: Denoiser | None) -> list[Check]:
        """Return the checks of images by a network of ours, or (None) by a pipeline.

        Raises `InputError` where they do not go with it, or with one another.
        """
        from ostinato.image import ClipScore, Sharpness, load_clip

        if self.clip_model is None:
            for name, value in (
                ("--min-clip-score", self.min_clip_score),
                ("--clip-text", self.clip_text),
            ):
                if value is not None:
                    raise InputError(
                        f"{name} must come with --clip-model, the model to ask. Give both."
                    )
        elif network is not None and self.clip_text is None:
            raise InputError(
                "--clip-model must come with --clip-text, what the image is to show. Give both."
            )
        checks: list[Check] = []
        if self.min_sharpness is not None:
            checks.append(Sharpness(least=self.min_sharpness))
        if self.clip_model is not None:
            least = FITS if self.min_clip_score is None else self.min_clip_score
            checks.append(
                ClipScore(clip=load_clip(self.clip_model), words=self.clip_text or "", least=least)
            )
        if network is None:
            self._refuse_classifier(checks)
        elif self.min_class_probability is not None or (self.until_passes and not checks):
            checks.append(self._recognized(network))
        elif self.classifier is not None:
            raise InputError(
                "--classifier must come with --min-class-probability or --until-passes. Add one."
            )
        return checks

    def _refuse_classifier(self, checks: Sequence[Check]) -> None:
        for name, value in (
            ("--min-class-probability", self.min_class_probability),
            ("--classifier", self.classifier),
        ):
            if value is not None:
                raise InputError(
                    f"{name} must be left out with a pipeline. Take --clip-model or --min-sharpness."
                )
        if self.until_passes and not checks:
            raise InputError(
                "--until-passes must come with --clip-model or --min-sharpness where a pipeline draws. Add one."
            )

    def _recognized(self, network: Denoiser) -> Check:
        from ostinato.image import ClassifiedAs, load_classifier

        classifier = load_classifier(self.classifier or "digits")
        _refuse_others(classifier, network)
        return ClassifiedAs(
            classifier=classifier,
            least=SURE if self.min_class_probability is None else self.min_class_probability,
        )


def _refuse_others(classifier: Classifier, network: Denoiser) -> None:
    """Refuse a classifier of other images or classes than the network draws."""
    names = tuple(getattr(getattr(network, "config", None), "names", ()))
    draws = (network.channels, network.size, names)
    reads = (classifier.config.channels, classifier.config.size, classifier.names)
    if (names and draws != reads) or draws[:2] != reads[:2]:
        raise InputError(
            f"The classifier must read what the model draws, {_told(*draws)}, got one for "
            f"{_told(*reads)}. Name another with --classifier, or check with --min-sharpness."
        )


def _told(channels: int, size: int, names: Sequence[str]) -> str:
    return f"{size} x {size} pixels, {channels} channel(s), classes {', '.join(names) or 'none'}"
