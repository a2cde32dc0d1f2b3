"""Builds runs of image tokens from their configurations, and writes their images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ostinato.errors import InputError, RunError
from ostinato.image.tokens.config import SampleImageTokensRun
from ostinato.image.tokens.masked_codes import CodeSettings
from ostinato.image.tokens.model import (
    TUNED,
    UNMASK_STEPS,
    ImageTokenModel,
    image_token_loop,
    load_image_token_model,
    method_of,
)
from ostinato.journal import RunSource, require_unchanged
from ostinato.loop import ItemsWork
from ostinato.media import gutter_of, save, tiled
from ostinato.models import folder_digest


@dataclass(kw_only=True)
class ImageTokensWork(ItemsWork):
    """The loop over the images of all prompts, which `finish` writes to `out`, a row a prompt."""

    model: ImageTokenModel
    prompts: list[str]
    columns: int
    out: Path

    def write(self) -> None:
        """Write the images. Raises `RunError` where some are not done."""
        results = self.results
        if len(results) < len(self.prompts):
            raise RunError(
                f"All {len(self.prompts)} images must be finished to be written, got "
                f"{len(results)}. Run the loop to its end: work.loop.run(work.watch)."
            )
        images = [self._pixels(result.output) for result in results]
        grid = [images[at : at + self.columns] for at in range(0, len(images), self.columns)]
        side = images[0].size(-1)
        save(tiled(grid, gutter=gutter_of(side)), self.out, side=side)

    def _pixels(self, output: object) -> Tensor:
        """Return the image (C, S, S) in [-1, 1] of a row of codes."""
        return self.model.image(output).float() / 127.5 - 1


def build_sample_image_tokens(
    config: SampleImageTokensRun, *, run: RunSource | None = None
) -> ImageTokensWork:
    """Build the run that samples images as codes."""
    require_unchanged("The model's files", config.weights, image_token_digest(config.model))
    config = with_defaults(config)
    model = load_image_token_model(config.model)
    prompts = [prompt for prompt in config.prompts for _ in range(config.count)]
    loop = image_token_loop(
        prompts,
        model=model,
        settings=_settings(config),
        steps=config.steps,
        seed=config.seed,
        run=run,
    )
    return ImageTokensWork(
        loop=loop, model=model, prompts=prompts, columns=config.count, out=config.out
    )


def with_defaults(config: SampleImageTokensRun) -> SampleImageTokensRun:
    """Return a configuration with the defaults of its model's method in place of None.

    A run records these, so that it goes on with them when a later version has others. Raises
    `InputError` for steps of a method whose steps are fixed.
    """
    method = method_of(config.model)
    if method != "unmask" and config.steps is not None:
        raise InputError(
            f"steps must be left out for the method {method}, whose steps are fixed, got "
            f"{config.steps}. Only the method unmask uses it."
        )
    tuned = TUNED[method]
    changed = {
        name: getattr(tuned, name)
        for name in ("temperature", "guidance", "noise")
        if getattr(config, name) is None
    }
    if method == "unmask" and config.steps is None:
        return replace(config, steps=UNMASK_STEPS, **changed)
    return replace(config, **changed)


def _settings(config: SampleImageTokensRun) -> CodeSettings:
    values = {name: getattr(config, name) for name in ("temperature", "guidance", "noise")}
    return CodeSettings(**values)


def image_token_digest(folder: str | Path) -> str:
    """Return a hash of the files of an image token model: its words, codec and network."""
    return folder_digest(folder, ("", "codes", "model"))
