"""A drawing: codec, words and the network that draws, in one folder; and the loop that draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ostinato.decode import Decode, Sampling
from ostinato.errors import InputError, ModelError
from ostinato.image.data import Images
from ostinato.image.drawing import ALL_STEPS, drawn
from ostinato.image.tokens.coarse import Coarse
from ostinato.image.tokens.lanes import CodeLanes, Settings
from ostinato.image.tokens.levels import Codec, load_codec
from ostinato.image.tokens.network import CodeConfig, CodeNetwork
from ostinato.image.tokens.row import decode_rows, row_model
from ostinato.image.tokens.tasks import CoarseTask, CodesTask, RowTask, UnmaskTask
from ostinato.image.tokens.unmask import Unmask
from ostinato.image.tokens.wish import Wish, codes_of
from ostinato.image.tokens.words import SLOTS, Words
from ostinato.loop import Condition, Loop, accept
from ostinato.models import LanguageModel, Llama, load_model
from ostinato.models.folders import read_config, write_config
from ostinato.train import save_model

ARCHITECTURE = "ostinato.Drawing"
NOISE_LEVELS = 16
"""Where a drawing ends that nothing else ends: with its last code or step."""

Way = Literal["row", "pixels", "unmask", "coarse"]
"""Code after code; pixel after pixel; the surest codes first; out of noise."""

TUNED: Mapping[Way, Settings] = {
    "row": Settings(temperature=0.85),
    "pixels": Settings(temperature=0.9),
    "unmask": Settings(guidance=2.0),
    "coarse": Settings(guidance=3.0),
}
"""How each way draws where nothing else is said; measured in docs/image-tokens.md."""

UNMASK_STEPS = 12
"""The steps of `Unmask` where nothing else is said."""


@dataclass(frozen=True)
class Drawing:
    """All that is needed to draw: how images are codes, the words, and what draws the codes."""

    way: Way
    codec: Codec
    words: Words
    model: LanguageModel | CodeNetwork

    @property
    def network(self) -> Llama | CodeNetwork:
        """The network that was trained on codes."""
        return self.model if isinstance(self.model, CodeNetwork) else self.model.llama()

    def picture(self, output: object) -> Tensor:
        """Return the image, uint8 (C, S, S), of a row of codes; what is undecided is code 0."""
        return self.codec.decode(codes_of(output, self.codec.places)[None])[0]

    def lanes(
        self, *, settings: Settings | None = None, steps: int | None = None, places: int = 16
    ) -> Decode | CodeLanes:
        """Return the lane process that draws. `steps` are those of `Unmask`, of no other way."""
        settings = settings or TUNED[self.way]
        if self.way != "unmask":
            self._refuse_unused(settings, steps)
        if isinstance(self.model, LanguageModel):
            if settings.guidance != 1:
                raise InputError("guidance needs all codes at once. Take --way unmask or coarse.")
            sampling = Sampling(temperature=settings.temperature)
            return decode_rows(self.model, self.words, sampling=sampling, places=places)
        if self.way == "coarse":
            return Coarse(self.model, self.words, settings=settings, places=places)
        steps = UNMASK_STEPS if steps is None else steps
        return Unmask(self.model, self.words, steps=steps, settings=settings, places=places)

    def _refuse_unused(self, settings: Settings, steps: int | None) -> None:
        """Raise `InputError` for what only drawings of the way unmask have."""
        noisy = settings.noise not in (Settings.noise, TUNED[self.way].noise)
        for name, given in (("steps", steps), ("noise", settings.noise if noisy else None)):
            if given is not None:
                raise InputError(
                    f"{name} must be given for drawings of the way unmask, got {given} for one of "
                    f"{self.way}. Leave it out."
                )

    def save(self, folder: str | Path) -> Path:
        """Write `config.json`, `codes/` (the codec) and `model/` into a folder."""
        folder = Path(folder)
        words = self.words.to_json()
        write_config(folder, {"architecture": ARCHITECTURE, "way": self.way, "words": words})
        self.codec.save(folder / "codes")
        if isinstance(self.model, LanguageModel):
            save_model(folder / "model", self.model.llama(), self.model.tokenizer)
        else:
            self.model.save(folder / "model")
        return folder


def load_drawing(folder: str | Path) -> Drawing:
    """Read what `Drawing.save` wrote. Raises `ModelError` where it is missing or damaged."""
    folder = Path(folder)
    values: dict[str, Any] = read_config(folder, ARCHITECTURE, dict)
    way = next((way for way in get_args(Way) if way == values.get("way")), None)
    if way is None:
        raise ModelError(f"The way in {folder}/config.json must be one of {get_args(Way)}.")
    try:
        words = Words(**values["words"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder}/config.json must hold words, got: {error}.") from None
    codec = load_codec(folder / "codes")
    model: LanguageModel | CodeNetwork
    if way in ("row", "pixels"):
        model = load_model(folder / "model", dtype=torch.float32)
    else:
        model = CodeNetwork.load(folder / "model")
    drawing = Drawing(way, codec, words, model)
    _require_whole(drawing, folder)
    return drawing


def _require_whole(drawing: Drawing, folder: Path) -> None:
    """Raise `ModelError` where the parts of a drawing do not belong together."""
    codec, said, c = drawing.codec, len(drawing.words.vocabulary), drawing.network.config
    if isinstance(c, CodeConfig):
        held = c.codes, c.places, c.words, c.steps > 0
    else:
        held = c.vocab_size - said, c.max_position_embeddings - SLOTS, said, False
    if held != (codec.vocabulary, codec.places, said, drawing.way == "coarse"):
        raise ModelError(
            f"{folder}/model must draw {codec.places} of {codec.vocabulary} codes from {said} "
            f"words by the way {drawing.way}, got {held[1]} of {held[0]} from {held[2]}. "
            "The parts of a drawing belong together: train or copy the whole folder again."
        )


def new_drawing(
    way: Way,
    codec: Codec,
    words: Words,
    *,
    layers: int = 4,
    width: int = 96,
    heads: int = 3,
    seed: int = 0,
) -> Drawing:
    """Return a drawing whose network is yet to be trained."""
    for name, value in {"layers": layers, "width": width, "heads": heads}.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}. Give more.")
    if width % heads or (width // heads) % 2:
        raise InputError(
            f"width must be heads times an even number, got {width} and {heads}. Give a width "
            f"such as {32 * heads}."
        )
    codes, places = codec.vocabulary, codec.places
    if way in ("row", "pixels"):
        model = row_model(codes, places, words, layers=layers, width=width, heads=heads, seed=seed)
        return Drawing(way, codec, words, model)
    config = CodeConfig(
        codes=codes,
        places=places,
        words=len(words.vocabulary),
        slots=SLOTS,
        steps=NOISE_LEVELS if way == "coarse" else 0,
        layers=layers,
        width=width,
        heads=heads,
    )
    return Drawing(way, codec, words, CodeNetwork(config, seed=seed))


def task_of(drawing: Drawing, train: Images, valid: Images, *, drop: float = 0.2) -> CodesTask:
    """Return what the drawing's network is trained on: the codes and words of some images."""
    parts = [_coded(drawing, images) for images in (train, valid)]
    if drawing.way in ("row", "pixels"):
        vocabulary = len(drawing.words.vocabulary)
        return RowTask(parts[0], parts[1], vocabulary=vocabulary, drop=drop)
    kind = UnmaskTask if drawing.way == "unmask" else CoarseTask
    return kind(parts[0], parts[1], drop=drop)


def _coded(drawing: Drawing, images: Images) -> tuple[Tensor, Tensor]:
    if not len(images):
        empty = torch.zeros(0, drawing.codec.places, dtype=torch.long)
        return empty, torch.zeros(0, SLOTS, dtype=torch.long)
    return drawing.codec.encode(images.pixels), drawing.words.describe(images)


def draw_wishes(
    wishes: Sequence[Wish | str],
    *,
    drawing: Drawing,
    each: Condition = ALL_STEPS,
    settings: Settings | None = None,
    steps: int | None = None,
    seed: int = 0,
    places: int | None = None,
    **loop: Any,
) -> Loop:
    """Return the loop that draws one image for every wish, side by side.

    `each` ends a drawing before its last step; `loop` goes to `Loop`, as `run` and `until`. The
    rows of codes are in `step.results` (`output`); `Drawing.picture` makes images of them. `steps`
    and the settings' `noise` are for drawings of the way unmask, and refused for others.
    """
    if not wishes:
        raise InputError("There must be at least one wish, got none.")
    items = [Wish.of(wish) for wish in wishes]
    for wish in items:
        drawing.words.encode(wish.words)  # before anything is drawn
    process = drawing.lanes(settings=settings, steps=steps, places=places or min(len(items), 16))
    return drawn(process, items, Wish.to_json, each, (), accept, seed, **loop)
