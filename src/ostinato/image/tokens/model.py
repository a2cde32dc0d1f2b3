"""Image token models: codec, vocabulary and network in one folder; and the loop that samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ostinato.arguments import require_at_least
from ostinato.decode import Decode, SamplingParams
from ostinato.errors import InputError, ModelError
from ostinato.image import Images, sample_images
from ostinato.image.tokens.attributes import PROMPT_TOKENS, Attributes
from ostinato.image.tokens.config import Method
from ostinato.image.tokens.discrete_diffusion import DiscreteDiffusion
from ostinato.image.tokens.masked_codes import CodeSettings, MaskedCodeSampler
from ostinato.image.tokens.network import CodeConfig, CodeNetwork
from ostinato.image.tokens.pixel_quantizer import Codec, load_codec
from ostinato.image.tokens.prompt import ImagePrompt, codes_of
from ostinato.image.tokens.row import decode_rows, row_model
from ostinato.image.tokens.tasks import CodesTask, DiffusionTask, RowTask, UnmaskTask
from ostinato.image.tokens.unmask import UnmaskCodes
from ostinato.loop import Condition, Loop, Never, accept
from ostinato.models import LanguageModel, Llama, load_model, read_config, write_config
from ostinato.train import save_model

ARCHITECTURE = "ostinato.ImageTokenModel"
# Of new models of the method coarse. A step samples its codes independently, so it must be small.
NOISE_LEVELS = 16

TUNED: Mapping[Method, CodeSettings] = {
    "row": CodeSettings(temperature=0.85),
    "pixels": CodeSettings(temperature=0.9),
    "unmask": CodeSettings(guidance=2.0),
    "coarse": CodeSettings(guidance=3.0),
}
"""The default settings of each method; measured in docs/image-tokens.md."""

UNMASK_STEPS = 12
"""The default number of steps of the method unmask; 24 gave no more right classes (docs/log.md)."""


@dataclass(frozen=True)
class ImageTokenModel:
    """A whole model: the codec of images, the words of prompts, and the network of codes."""

    method: Method
    codec: Codec
    attributes: Attributes
    model: LanguageModel | CodeNetwork

    @property
    def network(self) -> Llama | CodeNetwork:
        """The network that was trained on codes."""
        return self.model if isinstance(self.model, CodeNetwork) else self.model.llama()

    def image(self, output: object) -> Tensor:
        """Return the image, uint8 (C, S, S), of an output; an undecided code counts as 0."""
        return self.codec.decode(codes_of(output, self.codec.positions)[None])[0]

    def lanes(
        self, *, settings: CodeSettings | None = None, steps: int | None = None, slots: int = 16
    ) -> Decode | MaskedCodeSampler:
        """Return the lane process that samples. `steps` is for the method unmask only."""
        settings = settings or TUNED[self.method]
        if self.method != "unmask":
            self._refuse_unused(settings, steps)
        if isinstance(self.model, LanguageModel):
            if settings.guidance != 1:
                raise InputError(
                    "guidance must be 1 for the methods row and pixels, got "
                    f"{settings.guidance}. Use a model of the method unmask or coarse."
                )
            sampling = SamplingParams(temperature=settings.temperature)
            return decode_rows(self.model, self.attributes, sampling=sampling, slots=slots)
        if self.method == "coarse":
            return DiscreteDiffusion(self.model, self.attributes, settings=settings, slots=slots)
        steps = UNMASK_STEPS if steps is None else steps
        return UnmaskCodes(self.model, self.attributes, steps=steps, settings=settings, slots=slots)

    def _refuse_unused(self, settings: CodeSettings, steps: int | None) -> None:
        """Raise `InputError` for what has an effect on the method unmask only."""
        # The settings of a method have some noise even where it has no effect: only a value of the
        # user's own is refused.
        changed = settings.noise not in (CodeSettings.noise, TUNED[self.method].noise)
        for name, value in (("steps", steps), ("noise", settings.noise if changed else None)):
            if value is not None:
                raise InputError(
                    f"{name} must be left out for the method {self.method}, got {value}. Only the "
                    "method unmask uses it."
                )

    def save(self, folder: str | Path) -> Path:
        """Write `config.json`, `codes/` (the codec) and `model/` into a folder."""
        folder = Path(folder)
        words = self.attributes.to_json()
        write_config(
            folder, {"architecture": ARCHITECTURE, "method": self.method, "attributes": words}
        )
        self.codec.save(folder / "codes")
        if isinstance(self.model, LanguageModel):
            save_model(folder / "model", self.model.llama(), self.model.tokenizer)
        else:
            self.model.save(folder / "model")
        return folder


def load_image_token_model(folder: str | Path) -> ImageTokenModel:
    """Load what `ImageTokenModel.save` wrote. Raises `ModelError` for other folders."""
    folder = Path(folder)
    values: dict[str, Any] = read_config(folder, ARCHITECTURE, dict)
    method = method_of(folder)
    try:
        attributes = Attributes(**values["attributes"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder}/config.json must hold words, got: {error}.") from None
    codec = load_codec(folder / "codes")
    part: LanguageModel | CodeNetwork
    if method in ("row", "pixels"):  # in float32, in which it was trained
        part = load_model(folder / "model", dtype=torch.float32)
    else:
        part = CodeNetwork.load(folder / "model")
    model = ImageTokenModel(method, codec, attributes, part)
    _check_parts(model, folder)
    return model


def method_of(folder: str | Path) -> Method:
    """Return the method of the model in a folder. Raises `ModelError` for other folders."""
    folder = Path(folder)
    values: dict[str, Any] = read_config(folder, ARCHITECTURE, dict)
    recorded = values.get("method")
    method: Method | None = next((m for m in get_args(Method) if m == recorded), None)
    if method is None:
        raise ModelError(
            f"The method in {folder}/config.json must be one of {', '.join(get_args(Method))}, "
            f"got {recorded!r}. Train the model again."
        )
    return method


def _check_parts(model: ImageTokenModel, folder: Path) -> None:
    """Raise `ModelError` where codec, words and network of a folder do not fit each other."""
    codec, words, c = model.codec, len(model.attributes.vocabulary), model.network.config
    if isinstance(c, CodeConfig):
        found = c.codes, c.positions, c.words, c.steps > 0
    else:
        found = c.vocab_size - words, c.max_position_embeddings - PROMPT_TOKENS, words, False
    if found != (codec.vocabulary, codec.positions, words, model.method == "coarse"):
        raise ModelError(
            f"{folder}/model must make {codec.positions} of {codec.vocabulary} codes from {words} "
            f"words by the method {model.method}, got {found[1]} of {found[0]} from {found[2]}. "
            "The parts of a model belong together: train it or copy its folder again."
        )


def new_image_token_model(
    method: Method,
    codec: Codec,
    attributes: Attributes,
    *,
    layers: int = 4,
    width: int = 96,
    heads: int = 3,
    seed: int = 0,
) -> ImageTokenModel:
    """Return a model whose network is not trained yet, initialized by `seed`."""
    require_at_least(1, layers=layers, width=width, heads=heads)
    if width % heads or (width // heads) % 2:
        raise InputError(
            f"width must be heads times an even number, got {width} and {heads}. Use {32 * heads}, "
            "for example."
        )
    codes, positions = codec.vocabulary, codec.positions
    if method in ("row", "pixels"):
        model = row_model(
            codes, positions, attributes, layers=layers, width=width, heads=heads, seed=seed
        )
        return ImageTokenModel(method, codec, attributes, model)
    config = CodeConfig(
        codes=codes,
        positions=positions,
        words=len(attributes.vocabulary),
        prompt_tokens=PROMPT_TOKENS,
        steps=NOISE_LEVELS if method == "coarse" else 0,
        layers=layers,
        width=width,
        heads=heads,
    )
    return ImageTokenModel(method, codec, attributes, CodeNetwork(config, seed=seed))


def task_of(
    model: ImageTokenModel, train: Images, valid: Images, *, attribute_dropout: float = 0.2
) -> CodesTask:
    """Return the training task of a model's network on the codes and words of images."""
    parts = _encoded(model, train), _encoded(model, valid)
    if model.method in ("row", "pixels"):
        vocabulary = len(model.attributes.vocabulary)
        return RowTask(*parts, vocabulary=vocabulary, attribute_dropout=attribute_dropout)
    kind = UnmaskTask if model.method == "unmask" else DiffusionTask
    return kind(*parts, attribute_dropout=attribute_dropout)


def _encoded(model: ImageTokenModel, images: Images) -> tuple[Tensor, Tensor]:
    """Return the codes (N, T) and word ids (N, 4) of images."""
    if not len(images):
        empty = torch.zeros(0, model.codec.positions, dtype=torch.long)
        return empty, torch.zeros(0, PROMPT_TOKENS, dtype=torch.long)
    return model.codec.encode(images.pixels), model.attributes.describe(images)


def image_token_loop(
    prompts: Sequence[ImagePrompt | str],
    *,
    model: ImageTokenModel,
    each: Condition = Never(),
    settings: CodeSettings | None = None,
    steps: int | None = None,
    seed: int = 0,
    slots: int | None = None,
    **loop: Any,
) -> Loop:
    """Return the loop that samples one image for every prompt, in `slots` lanes.

    `each` ends an image before its last step. `loop` holds arguments of `Loop`, such as `run` and
    `until`. The codes are in `step.results` (`output`); `ImageTokenModel.image` decodes them.
    `steps` and the settings' `noise` are for the method unmask, and refused for others.
    """
    if not prompts:
        raise InputError("There must be at least one prompt, got none.")
    items = [ImagePrompt.of(prompt) for prompt in prompts]
    for item in items:
        # A wrong word is refused here: in the loop it would only end its own image with an error.
        model.attributes.encode(item.text)
    process = model.lanes(settings=settings, steps=steps, slots=slots or min(len(items), 16))
    return sample_images(process, items, ImagePrompt.to_json, each, (), accept, seed, **loop)
