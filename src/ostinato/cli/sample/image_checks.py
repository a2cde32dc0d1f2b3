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
        help="Noise again what fails its checks; without others, what is not --recognised.",
    ),
    click.option(
        "--recognised",
        type=click.FloatRange(0, 1),
        help=f"The probability that the classifier must give the class.  [{SURE}]",
    ),
    click.option("--classifier", help="Who is to recognise: a folder or a name.  [digits]"),
    click.option("--sharp", type=click.FloatRange(0, 1), help="How steep the edges must be."),
    click.option(
        "--clip",
        type=click.Path(path_type=Path),
        help="A folder of a CLIP model: how well image and words must fit.",
    ),
    click.option(
        "--fits", type=click.FloatRange(-1, 1), help=f"The cosine that --clip asks for.  [{FITS}]"
    ),
    click.option("--words", help="What --clip compares with; else the prompt of a pipeline."),
    click.option(
        "--rounds",
        type=click.IntRange(min=1),
        default=3,
        show_default=True,
        help="Begin an image so often where checks fail.",
    ),
)
NAMES = {"until-passes", "recognised", "classifier", "sharp", "clip", "fits", "words", "rounds"}


def check_options(command: Any) -> Any:
    """Add the options of checks to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True)
class ImageChecks:
    """The options of checks as they were typed."""

    until_passes: bool
    recognised: float | None
    classifier: str | None
    sharp: float | None
    clip: Path | None
    fits: float | None
    words: str | None
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

        if self.clip is None:
            for name, value in (("--fits", self.fits), ("--words", self.words)):
                if value is not None:
                    raise InputError(f"{name} must come with --clip, the model to ask. Give both.")
        elif network is not None and self.words is None:
            raise InputError("--clip must come with --words, what the image is to show. Give both.")
        checks: list[Check] = []
        if self.sharp is not None:
            checks.append(Sharpness(least=self.sharp))
        if self.clip is not None:
            least = FITS if self.fits is None else self.fits
            checks.append(ClipScore(clip=load_clip(self.clip), words=self.words or "", least=least))
        if network is None:
            self._refuse_classifier(checks)
        elif self.recognised is not None or (self.until_passes and not checks):
            checks.append(self._recognised(network))
        elif self.classifier is not None:
            raise InputError("--classifier must come with --recognised or --until-passes. Add one.")
        return checks

    def _refuse_classifier(self, checks: Sequence[Check]) -> None:
        for name, value in (("--recognised", self.recognised), ("--classifier", self.classifier)):
            if value is not None:
                raise InputError(
                    f"{name} must be left out with a pipeline. Take --clip or --sharp."
                )
        if self.until_passes and not checks:
            raise InputError(
                "--until-passes must come with --clip or --sharp where a pipeline draws. Add one."
            )

    def _recognised(self, network: Denoiser) -> Check:
        from ostinato.image import ClassifiedAs, load_classifier

        classifier = load_classifier(self.classifier or "digits")
        _refuse_others(classifier, network)
        return ClassifiedAs(
            classifier=classifier, least=SURE if self.recognised is None else self.recognised
        )


def _refuse_others(classifier: Classifier, network: Denoiser) -> None:
    """Refuse a classifier of other images or classes than the network draws."""
    names = tuple(getattr(getattr(network, "config", None), "names", ()))
    draws = (network.channels, network.size, names)
    reads = (classifier.config.channels, classifier.config.size, classifier.names)
    if (names and draws != reads) or draws[:2] != reads[:2]:
        raise InputError(
            f"The classifier must read what the model draws, {_told(*draws)}, got one for "
            f"{_told(*reads)}. Name another with --classifier, or check with --sharp."
        )


def _told(channels: int, size: int, names: Sequence[str]) -> str:
    return f"{size} x {size} pixels, {channels} channel(s), classes {', '.join(names) or 'none'}"
