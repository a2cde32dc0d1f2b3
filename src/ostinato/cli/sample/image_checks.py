"""`ostinato sample image`: the options of checks of an image."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.options import add_options
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.image import ImageChecks

MIN_CLASS_PROBABILITY = 0.9
MIN_CLIP_SCORE = 0.25
DRAFTS = 3
check_options = add_options(
    click.option(
        "--until-passes",
        is_flag=True,
        help="Renoise images that fail a check; alone, the check is --min-class-probability.",
    ),
    click.option(
        "--min-class-probability",
        type=click.FloatRange(0, 1),
        help="Minimum probability of the class, by the classifier.  "
        f"[default: {MIN_CLASS_PROBABILITY}]",
    ),
    click.option(
        "--classifier", help="Classifier to check with: a folder or a name.  [default: digits]"
    ),
    click.option(
        "--min-sharpness", type=click.FloatRange(0, 1), help="Minimum steepness of the edges."
    ),
    click.option(
        "--clip-model",
        type=click.Path(path_type=Path),
        help="Folder of a CLIP model that compares image and text.",
    ),
    click.option(
        "--min-clip-score",
        type=click.FloatRange(-1, 1),
        help=f"Minimum CLIP score (cosine).  [default: {MIN_CLIP_SCORE}]",
    ),
    click.option("--clip-text", help="Text for --clip-model.  [default: the prompt of a pipeline]"),
    click.option(
        "--rounds",
        type=click.IntRange(min=1),
        help=f"Drafts per image with checks.  [default: {DRAFTS}]",
    ),
)


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """The options of checks as typed; None: not typed, so that one without effect is refused."""

    until_passes: bool
    min_class_probability: float | None
    classifier: str | None
    min_sharpness: float | None
    clip_model: Path | None
    min_clip_score: float | None
    clip_text: str | None
    rounds: int | None

    def config(self, *, pipeline: bool) -> ImageChecks:
        """Return the checks of images from a denoiser or from a pipeline.

        Raises `InputError` for options that do not fit the model or one another.
        """
        from ostinato.image import ImageChecks, classifier_digest
        from ostinato.models import folder_digest

        self._require_clip_options(pipeline)
        checks: dict[str, Any] = {"rounds": DRAFTS if self.rounds is None else self.rounds}
        if self.min_sharpness is not None:
            checks["min_sharpness"] = self.min_sharpness
        if self.clip_model is not None:
            checks |= {
                "clip_model": str(self.clip_model.absolute()),
                "clip_weights": folder_digest(self.clip_model),
                "clip_text": self.clip_text,
                "min_clip_score": _or(self.min_clip_score, MIN_CLIP_SCORE),
            }
        checked = len(checks) > 1
        if pipeline:
            self._refuse_classifier(checked)
        elif self.min_class_probability is not None or (self.until_passes and not checked):
            name = self.classifier or "digits"
            checks |= {
                "min_class_probability": _or(self.min_class_probability, MIN_CLASS_PROBABILITY),
                "classifier": place_of(name),
                "classifier_weights": classifier_digest(name),
            }
        elif self.classifier is not None:
            raise InputError(
                "--classifier must come with --min-class-probability or --until-passes. Add one."
            )
        if self.rounds is not None and len(checks) == 1:
            raise InputError("--rounds must come with a check, got none. Add --until-passes.")
        return ImageChecks(**checks)

    def _require_clip_options(self, pipeline: bool) -> None:
        if self.clip_model is None:
            for name, value in (
                ("--min-clip-score", self.min_clip_score),
                ("--clip-text", self.clip_text),
            ):
                if value is not None:
                    raise InputError(f"{name} must come with --clip-model, the model. Give both.")
        elif not pipeline and self.clip_text is None:
            # Our networks take labels; only a pipeline has a prompt to compare with.
            raise InputError(
                "--clip-model must come with --clip-text, what the image is to show. Give both."
            )

    def _refuse_classifier(self, checked: bool) -> None:
        for name, value in (
            ("--min-class-probability", self.min_class_probability),
            ("--classifier", self.classifier),
        ):
            if value is not None:
                raise InputError(
                    f"{name} must be left out with a pipeline. Take --clip-model or "
                    "--min-sharpness."
                )
        if self.until_passes and not checked:
            raise InputError(
                "--until-passes must come with --clip-model or --min-sharpness for a pipeline. "
                "Add one."
            )


CHECK_OPTIONS = {spec.name.replace("_", "-") for spec in fields(CheckOptions)}


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def checks_of(params: dict[str, Any]) -> CheckOptions:
    """Take the options of checks out of a command's parameters."""
    return CheckOptions(**{spec.name: params.pop(spec.name) for spec in fields(CheckOptions)})


def place_of(model: str | Path) -> str:
    """Return a model's name for a record: the absolute path of a folder, or a shipped name."""
    return str(Path(model).absolute()) if Path(model).is_dir() else str(model)
