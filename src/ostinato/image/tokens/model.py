"""A drawing: codec, words and the network that draws, in one folder; and the loop that draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ostinato.decode import Decode, SamplingParams
from ostinato.errors import InputError, ModelError
from ostinato.image import ALL_STEPS, Images, sample_images
from ostinato.image.tokens.attributes import PROMPT_TOKENS, Attributes
from ostinato.image.tokens.discrete_diffusion import DiscreteDiffusion
from ostinato.image.tokens.masked_codes import CodeSettings, MaskedCodeSampler
from ostinato.image.tokens.network import CodeConfig, CodeNetwork
from ostinato.image.tokens.pixel_quantizer import Codec, load_codec
from ostinato.image.tokens.prompt import ImagePrompt, codes_of
from ostinato.image.tokens.row import decode_rows, row_model
from ostinato.image.tokens.tasks import CodesTask, DiffusionTask, RowTask, UnmaskTask
from ostinato.image.tokens.unmask import UnmaskCodes
from ostinato.loop import Condition, Loop, accept
from ostinato.models import LanguageModel, Llama, load_model, read_config, write_config
from ostinato.train import save_model

ARCHITECTURE = "ostinato.Drawing"
NOISE_LEVELS = 16
"""Where a drawing ends that nothing else ends: with its last code or step."""

Method = Literal["row", "pixels", "unmask", "coarse"]
"""Code after code; pixel after pixel; the surest codes first; out of noise."""

TUNED: Mapping[Method, CodeSettings] = {
    "row": CodeSettings(temperature=0.85),
    "pixels": CodeSettings(temperature=0.9),
    "unmask": CodeSettings(guidance=2.0),
    "coarse": CodeSettings(guidance=3.0),
}
"""How each method draws where nothing else is said; measured in docs/image-tokens.md."""

UNMASK_STEPS = 12
"""The steps of `Unmask` where nothing else is said."""


@dataclass(frozen=True)
class ImageTokenModel:
    """All that is needed to draw: how images are codes, the words, and what draws the codes."""

    method: Method
    codec: Codec
    attributes: Attributes
    model: LanguageModel | CodeNetwork

    @property
    def network(self) -> Llama | CodeNetwork:
        """The network that was trained on codes."""
        return self.model if isinstance(self.model, CodeNetwork) else self.model.llama()

    def picture(self, output: object) -> Tensor:
        """Return the image, uint8 (C, S, S), of a row of codes; what is undecided is code 0."""
        return self.codec.decode(codes_of(output, self.codec.positions)[None])[0]

    def lanes(
        self, *, settings: CodeSettings | None = None, steps: int | None = None, slots: int = 16
    ) -> Decode | MaskedCodeSampler:
        """Return the lane process that draws. `steps` are those of `Unmask`, of no other method."""
        settings = settings or TUNED[self.method]
        if self.method != "unmask":
            self._refuse_unused(settings, steps)
        if isinstance(self.model, LanguageModel):
            if settings.guidance != 1:
                raise InputError(
                    "guidance needs all codes at once. Take --method unmask or coarse."
                )
            sampling = SamplingParams(temperature=settings.temperature)
            return decode_rows(self.model, self.attributes, sampling=sampling, slots=slots)
        if self.method == "coarse":
            return DiscreteDiffusion(self.model, self.attributes, settings=settings, slots=slots)
        steps = UNMASK_STEPS if steps is None else steps
        return UnmaskCodes(self.model, self.attributes, steps=steps, settings=settings, slots=slots)

    def _refuse_unused(self, settings: CodeSettings, steps: int | None) -> None:
        """Raise `InputError` for what only drawings of the method unmask have."""
        noisy = settings.noise not in (CodeSettings.noise, TUNED[self.method].noise)
        for name, given in (("steps", steps), ("noise", settings.noise if noisy else None)):
            if given is not None:
                raise InputError(
                    f"{name} must be given for drawings of the method unmask, got {given} for one of "
                    f"{self.method}. Leave it out."
                )

    def save(self, folder: str | Path) -> Path:
        """Write `config.json`, `codes/` (the codec) and `model/` into a folder."""
        folder = Path(folder)
        words = self.attributes.to_json()
        write_config(folder, {"architecture": ARCHITECTURE, "method": self.method, "words": words})
        self.codec.save(folder / "codes")
        if isinstance(self.model, LanguageModel):
            save_model(folder / "model", self.model.llama(), self.model.tokenizer)
        else:
            self.model.save(folder / "model")
        return folder


def load_image_token_model(folder: str | Path) -> ImageTokenModel:
    """Read what `Drawing.save` wrote. Raises `ModelError` where it is missing or damaged."""
    folder = Path(folder)
    values: dict[str, Any] = read_config(folder, ARCHITECTURE, dict)
    method = next((method for method in get_args(Method) if method == values.get("method")), None)
    if method is None:
        raise ModelError(f"The method in {folder}/config.json must be one of {get_args(Method)}.")
    try:
        words = Attributes(**values["words"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder}/config.json must hold words, got: {error}.") from None
    codec = load_codec(folder / "codes")
    model: LanguageModel | CodeNetwork
    if method in ("row", "pixels"):
        model = load_model(folder / "model", dtype=torch.float32)
    else:
        model = CodeNetwork.load(folder / "model")
    drawing = ImageTokenModel(method, codec, words, model)
    _require_whole(drawing, folder)
    return drawing


def _require_whole(drawing: ImageTokenModel, folder: Path) -> None:
    """Raise `ModelError` where the parts of a drawing do not belong together."""
    codec, said, c = drawing.codec, len(drawing.attributes.vocabulary), drawing.network.config
    if isinstance(c, CodeConfig):
        held = c.codes, c.positions, c.words, c.steps > 0
    else:
        held = c.vocab_size - said, c.max_position_embeddings - PROMPT_TOKENS, said, False
    if held != (codec.vocabulary, codec.positions, said, drawing.method == "coarse"):
        raise ModelError(
            f"{folder}/model must draw {codec.positions} of {codec.vocabulary} codes from {said} "
            f"words by the method {drawing.method}, got {held[1]} of {held[0]} from {held[2]}. "
            "The parts of a drawing belong together: train or copy the whole folder again."
        )


def new_image_token_model(
    method: Method,
    codec: Codec,
    words: Attributes,
    *,
    layers: int = 4,
    width: int = 96,
    heads: int = 3,
    seed: int = 0,
) -> ImageTokenModel:
    """Return a drawing whose network is yet to be trained."""
    for name, value in {"layers": layers, "width": width, "heads": heads}.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}. Give more.")
    if width % heads or (width // heads) % 2:
        raise InputError(
            f"width must be heads times an even number, got {width} and {heads}. Give a width "
            f"such as {32 * heads}."
        )
    codes, positions = codec.vocabulary, codec.positions
    if method in ("row", "pixels"):
        model = row_model(
            codes, positions, words, layers=layers, width=width, heads=heads, seed=seed
        )
        return ImageTokenModel(method, codec, words, model)
    config = CodeConfig(
        codes=codes,
        positions=positions,
        words=len(words.vocabulary),
        prompt_tokens=PROMPT_TOKENS,
        steps=NOISE_LEVELS if method == "coarse" else 0,
        layers=layers,
        width=width,
        heads=heads,
    )
    return ImageTokenModel(method, codec, words, CodeNetwork(config, seed=seed))


def task_of(
    model: ImageTokenModel, train: Images, valid: Images, *, attribute_dropout: float = 0.2
) -> CodesTask:
    """Return what the drawing's network is trained on: the codes and words of some images."""
    parts = [_coded(model, images) for images in (train, valid)]
    if model.method in ("row", "pixels"):
        vocabulary = len(model.attributes.vocabulary)
        return RowTask(parts[0], parts[1], vocabulary=vocabulary, drop=attribute_dropout)
    kind = UnmaskTask if model.method == "unmask" else DiffusionTask
    return kind(parts[0], parts[1], attribute_dropout=attribute_dropout)


def _coded(model: ImageTokenModel, images: Images) -> tuple[Tensor, Tensor]:
    if not len(images):
        empty = torch.zeros(0, model.codec.positions, dtype=torch.long)
        return empty, torch.zeros(0, PROMPT_TOKENS, dtype=torch.long)
    return model.codec.encode(images.pixels), model.attributes.describe(images)


def image_token_loop(
    prompts: Sequence[ImagePrompt | str],
    *,
    model: ImageTokenModel,
    each: Condition = ALL_STEPS,
    settings: CodeSettings | None = None,
    steps: int | None = None,
    seed: int = 0,
    slots: int | None = None,
    **loop: Any,
) -> Loop:
    """Return the loop that draws one image for every wish, side by side.

    `each` ends a drawing before its last step; `loop` goes to `Loop`, as `run` and `until`. The
    rows of codes are in `step.results` (`output`); `Drawing.picture` makes images of them. `steps`
    and the settings' `noise` are for drawings of the method unmask, and refused for others.
    """
    if not prompts:
        raise InputError("There must be at least one wish, got none.")
    items = [ImagePrompt.of(wish) for wish in prompts]
    for wish in items:
        model.attributes.encode(wish.words)  # before anything is drawn
    process = model.lanes(settings=settings, steps=steps, slots=slots or min(len(items), 16))
    return sample_images(process, items, ImagePrompt.to_json, each, (), accept, seed, **loop)
