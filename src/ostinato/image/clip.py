"""CLIP: scores of how well an image fits a text, and the check on them.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021),
section 2.3: image and text are embedded in one space, and the score is their cosine. The model is a
local folder in the layout of `transformers`, the extra `hf`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ostinato.checks import BaseCheck
from ostinato.errors import InputError, MissingExtra, ModelError
from ostinato.image.checks import as_image
from ostinato.loop import Item, Verdict
from ostinato.media import to_bytes
from ostinato.text_files import read_object, unmarked

CACHED_TEXTS = 256  # their vectors are kept: the prompts of a run repeat


class ClipModel:
    """A CLIP model: `clip(image, text)` is the cosine, in [-1, 1].

    Each image and each text runs alone, so a score does not depend on other images.
    """

    def __init__(self, model: Any, tokenizer: Any, processor: Any) -> None:
        self.model, self.tokenizer, self.processor = model.eval(), tokenizer, processor
        self._texts: dict[str, Tensor] = {}

    def __call__(self, image: Tensor, text: str) -> float:
        """Return the cosine of an image (C, H, W) in [-1, 1], C 1 or 3, and a text."""
        return float(self.image_vector(image) @ self.text_vector(text))

    def logits(self, images: Sequence[Tensor], texts: Sequence[str]) -> Tensor:
        """Return the model's own logits (images, texts): cosines times its learned scale."""
        rows = torch.stack([self.image_vector(image) for image in images])
        columns = torch.stack([self.text_vector(text) for text in texts])
        with torch.no_grad():
            scaled: Tensor = rows @ columns.T * self.model.logit_scale.exp()
        return scaled

    @torch.no_grad()
    def image_vector(self, image: Tensor) -> Tensor:
        """Return the embedding (D,) of an image (C, H, W), of length 1."""
        from PIL import Image

        # The processor expects what a file would give: 8-bit RGB. A gray image is repeated.
        pixels = to_bytes(image.expand(3, -1, -1)).permute(1, 2, 0).contiguous().numpy()
        inputs = self.processor(images=Image.fromarray(pixels), return_tensors="pt")
        output = self.model.vision_model(pixel_values=inputs["pixel_values"])
        return _unit(self.model.visual_projection(output[1])[0])  # [1]: the pooled output

    @torch.no_grad()
    def text_vector(self, text: str) -> Tensor:
        """Return the embedding (D,) of a text, of length 1; long texts are truncated."""
        if text not in self._texts:
            longest = self.model.config.text_config.max_position_embeddings
            inputs = self.tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
            output = self.model.text_model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            )
            self._texts[text] = _unit(self.model.text_projection(output[1])[0])
            if len(self._texts) > CACHED_TEXTS:
                del self._texts[next(iter(self._texts))]
        return self._texts[text]


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / vector.norm()
    return unit


def load_clip(folder: str | Path) -> ClipModel:
    """Load a CLIP model from a local folder, in safetensors; no code from the folder runs.

    Raises `ModelError` for a folder that holds none, `MissingExtra` without `transformers`.
    """
    folder = Path(folder)
    _check_config(folder)
    try:
        import transformers
    except ImportError:
        raise MissingExtra("A CLIP model", "hf") from None
    # Newer versions have two processors. The Pillow one needs no torchvision, so pixels are the
    # same on every machine.
    processors = (
        getattr(transformers, name, None)
        for name in ("CLIPImageProcessorPil", "CLIPImageProcessor")
    )
    processor = next(each for each in processors if each is not None)
    try:
        with _no_progress_bars(), unmarked(folder) as readable:
            return ClipModel(
                transformers.CLIPModel.from_pretrained(
                    readable, use_safetensors=True, local_files_only=True, dtype=torch.float32
                ),
                transformers.AutoTokenizer.from_pretrained(readable, local_files_only=True),
                processor.from_pretrained(readable, local_files_only=True),
            )
    # transformers raises all of these for damaged folders.
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{folder} must hold a CLIP model in safetensors with its tokenizer and its image "
            f"processor, got: {reason}. Save all three there with `save_pretrained`."
        ) from None


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Load without the progress bars of transformers."""
    from transformers.utils import logging

    library: Any = logging
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.enable_progress_bar()


def _check_config(folder: Path) -> None:
    """Raise `ModelError` early: transformers would load another model with random weights."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"A CLIP model must be a folder with its config.json, got {folder}.")
    kind = read_object(path, raises=ModelError, fix="Copy the folder again.").get("model_type")
    if kind != "clip":
        raise ModelError(
            f"{folder} must hold a model of the type 'clip', got {kind!r}. Name another folder."
        )


@dataclass(frozen=True, kw_only=True)
class ClipScore(BaseCheck):
    """Passes where an image fits a text: their cosine by `clip` is at least `least`.

    The text is `words`, or else the item's `column`. `clip` is a `ClipModel`, or any function of
    an image (C, H, W) in [-1, 1] and a text. What is a good score depends on the model: with the
    published ones, 0.2 to 0.35 for an image and what it shows.
    """

    kind: ClassVar[str] = "depicts"

    clip: Callable[[Tensor, str], float]
    words: str = ""
    column: str = "prompt"
    least: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.least <= 1:
            raise self.refuse("least", "a cosine, in [-1, 1]", self.least, "Take 0.25.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of the text, unless `words` are given."""
        return () if self.words else (self.column,)

    def judge(self, output: object, item: Item) -> Verdict:
        """Judge an image (C, H, W); the score is the cosine, at least 0."""
        text = self.words or self._column(item)
        cosine = self.clip(as_image(output, self.name), text)
        message = (
            f'Make it look more like "{text}": the cosine of image and text is {cosine:.3f}, at '
            f"least {self.least:.3f} is required."
        )
        return self.verdict(cosine >= self.least, message, min(1.0, max(0.0, cosine)))

    def _column(self, item: Mapping[str, object]) -> str:
        text = item.get(self.column)
        if isinstance(text, str) and text:
            return text
        raise InputError(
            f"The column '{self.column}' of the check '{self.name}' must hold the text that the "
            f"image is to fit, got {text!r}. Fill the column, or set `words`."
        )
