"""Scores of image and words are those of the CLIP model itself; a check and a loop ask for them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from PIL import Image
from tiny_clip import tiny_clip
from tiny_denoiser import TinyDenoiser

from ostinato.errors import InputError, MissingExtra, ModelError
from ostinato.image import ClipModel, ClipScore, ImageRequest, Renoise, denoise_loop, load_clip
from ostinato.media.image_io import to_bytes

WORDS = ["a seven", "cats, asleep", "a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder: Path) -> ClipModel:
    return load_clip(folder)


def images(channels: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(channels, 28, 20, generator=generator) * 2 - 1 for _ in range(2)]


@pytest.mark.parametrize("channels", [1, 3])
def test_scores_equal_those_of_the_model_s_own_call(clip: ClipModel, channels: int) -> None:
    seen = [
        Image.fromarray(to_bytes(image.expand(3, -1, -1)).permute(1, 2, 0).contiguous().numpy())
        for image in images(channels)
    ]
    words = clip.tokenizer(WORDS, padding=True, return_tensors="pt")
    pixels = clip.processor(images=seen, return_tensors="pt")
    with torch.no_grad():
        own: Any = clip.model(**words, **pixels)
    ours = clip.logits(images(channels), WORDS)
    torch.testing.assert_close(ours, own.logits_per_image, rtol=1e-5, atol=1e-5)
    cosine = torch.nn.functional.cosine_similarity(own.image_embeds[1], own.text_embeds[0], dim=0)
    assert clip(images(channels)[1], WORDS[0]) == pytest.approx(float(cosine), abs=1e-6)


def test_a_score_is_the_same_in_any_batch(folder: Path) -> None:
    image = images()[0]
    alone = load_clip(folder)(image, WORDS[0])
    among = load_clip(folder)
    among.logits(images(), WORDS[::-1])
    assert among(image, WORDS[0]) == alone


def test_words_that_are_too_long_are_cut(clip: ClipModel) -> None:
    assert -1 <= clip(images()[0], "a cat " * 100) <= 1


def test_an_image_that_does_not_fit_fails_with_both_numbers(clip: ClipModel) -> None:
    image = images()[0]
    cosine = clip(image, WORDS[0])
    assert ClipScore(clip=clip, least=cosine - 0.01).judge(image, {"prompt": WORDS[0]}).passed
    verdict = ClipScore(clip=clip, words=WORDS[0], least=cosine + 0.01).judge(image, {})
    assert not verdict.passed and 0 <= verdict.score <= 1
    assert verdict.message.startswith(f'Make it look more like "{WORDS[0]}": the cosine of')
    with pytest.raises(InputError, match="column 'prompt' of the check 'depicts' must hold"):
        ClipScore(clip=clip).judge(image, {})
    with pytest.raises(InputError, match="'least' of the check 'depicts' must be a cosine"):
        ClipScore(clip=clip, least=2.0)
    assert ClipScore(clip=clip).columns == ("prompt",)


def test_images_are_noised_again_until_they_fit(clip: ClipModel) -> None:
    """With the bar among the scores, some pass at once and some in a later try."""
    pictures = [ImageRequest(label=n % 3, seed=n) for n in range(8)]
    plain = list(denoise_loop(pictures, model=TinyDenoiser(), steps=4))
    scores = [clip(torch.as_tensor(one.output), "a cat") for s in plain for one in s.results]
    check = ClipScore(clip=clip, words="a cat", least=sorted(scores)[2])
    again = Renoise(share=0.75, rounds=6)
    loop = denoise_loop(pictures, model=TinyDenoiser(), steps=4, checks=[check], on_stop=again)
    rows = [one.to_json() for step in loop for one in step.results]
    assert any(row["accepted"] and not row["backtracks"] for row in rows)
    assert any(row["accepted"] and row["backtracks"] for row in rows)
    for row in rows:
        if row["accepted"]:
            assert clip(torch.as_tensor(row["output"]), "a cat") >= check.least


def test_a_folder_without_a_clip_model_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"must be a folder with its config\.json"):
        load_clip(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="of the type 'clip', got 'bert'"):
        load_clip(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="must hold a CLIP model in safetensors"):
        load_clip(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"ostinato\[hf\]"):
        load_clip(folder)
