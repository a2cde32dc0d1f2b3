"""`ostinato sample image`: the checks of an image, and what happens where it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ostinato.cli.options import add_options
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.image import Classifier, Denoiser
    from ostinato.loop import Check, OnStop

MIN_CLASS_PROBABILITY = 0.9
MIN_CLIP_SCORE = 0.25
check_options = add_options(
    click.option(
        "--until-passes",
        is_flag=True,
        help="Renoise images that fail a check; alone, the check is --min-class-probability.",
    ),
    click.option(
        "--min-class-probability",
        type=click.FloatRange(0, 1),
        help="Classifier's probability of the class, at least.  "
        f"[default: {MIN_CLASS_PROBABILITY}]",
    ),
    click.option(
        "--classifier", help="Classifier to check with: a folder or a name.  [default: digits]"
    ),
    click.option(
        "--min-sharpness", type=click.FloatRange(0, 1), help="Steepness of the edges, at least."
    ),
    click.option(
        "--clip-model",
        type=click.Path(path_type=Path),
        help="Folder of a CLIP model that compares image and text.",
    ),
    click.option(
        "--min-clip-score",
        type=click.FloatRange(-1, 1),
        help=f"CLIP score (cosine), at least.  [default: {MIN_CLIP_SCORE}]",
    ),
    click.option("--clip-text", help="Text for --clip-model.  [default: the prompt of a pipeline]"),
    click.option(
        "--rounds", type=click.IntRange(min=1), default=3, help="Drafts per image with checks."
    ),
)


@dataclass(frozen=True, kw_only=True)
class ImageChecks:
    """The options of checks as typed; None: not typed, so that one without effect is refused."""

    until_passes: bool
    min_class_probability: float | None
    classifier: str | None
    min_sharpness: float | None
    clip_model: Path | None
    min_clip_score: float | None
    clip_text: str | None
    rounds: int

    def on_stop(self, checks: Sequence[Check]) -> OnStop:
        """Return the strategy: renoise images that fail, or accept all without checks."""
        from ostinato.image import Renoise
        from ostinato.loop import accept

        return Renoise(rounds=self.rounds) if checks else accept

    def checks(self, network: Denoiser | None) -> list[Check]:
        """Return the checks of images from our network, or from a pipeline (None).

        Raises `InputError` for options that do not fit the model or one another.
        """
        from ostinato.image import Sharpness

        self._require_clip_options(network)
        checks: list[Check] = []
        if self.min_sharpness is not None:
            checks.append(Sharpness(least=self.min_sharpness))
        if self.clip_model is not None:
            checks.append(self._clip_score(self.clip_model))
        if network is None:
            self._refuse_classifier(checks)
        elif self.min_class_probability is not None or (self.until_passes and not checks):
            checks.append(self._classified(network))
        elif self.classifier is not None:
            raise InputError(
                "--classifier must come with --min-class-probability or --until-passes. Add one."
            )
        return checks

    def _require_clip_options(self, network: Denoiser | None) -> None:
        if self.clip_model is None:
            for name, value in (
                ("--min-clip-score", self.min_clip_score),
                ("--clip-text", self.clip_text),
            ):
                if value is not None:
                    raise InputError(f"{name} must come with --clip-model, the model. Give both.")
        elif network is not None and self.clip_text is None:
            # Our networks take labels; only a pipeline has a prompt to compare with.
            raise InputError(
                "--clip-model must come with --clip-text, what the image is to show. Give both."
            )

    def _clip_score(self, folder: Path) -> Check:
        from ostinato.image import ClipScore, load_clip

        least = MIN_CLIP_SCORE if self.min_clip_score is None else self.min_clip_score
        return ClipScore(clip=load_clip(folder), words=self.clip_text or "", least=least)

    def _refuse_classifier(self, checks: Sequence[Check]) -> None:
        for name, value in (
            ("--min-class-probability", self.min_class_probability),
            ("--classifier", self.classifier),
        ):
            if value is not None:
                raise InputError(
                    f"{name} must be left out with a pipeline. Take --clip-model or "
                    "--min-sharpness."
                )
        if self.until_passes and not checks:
            raise InputError(
                "--until-passes must come with --clip-model or --min-sharpness for a pipeline. "
                "Add one."
            )

    def _classified(self, network: Denoiser) -> Check:
        from ostinato.image import ClassifiedAs, load_classifier

        classifier = load_classifier(self.classifier or "digits")
        _require_same_images(classifier, network)
        least = self.min_class_probability
        return ClassifiedAs(
            classifier=classifier, least=MIN_CLASS_PROBABILITY if least is None else least
        )


CHECK_OPTIONS = {spec.name.replace("_", "-") for spec in fields(ImageChecks)}


def _require_same_images(classifier: Classifier, network: Denoiser) -> None:
    """Raise `InputError` for a classifier of other images or classes than the network's."""
    names = tuple(getattr(getattr(network, "config", None), "names", ()))
    made = (network.channels, network.size, names)
    read = (classifier.config.channels, classifier.config.size, classifier.names)
    # A network without named classes is compared by the shape of its images only.
    if (names and made != read) or made[:2] != read[:2]:
        raise InputError(
            f"The classifier must read the model's images, {_described(*made)}, got one for "
            f"{_described(*read)}. Name another with --classifier, or check with --min-sharpness."
        )


def _described(channels: int, size: int, names: Sequence[str]) -> str:
    return f"{size} x {size} pixels, {channels} channel(s), classes {', '.join(names) or 'none'}"
