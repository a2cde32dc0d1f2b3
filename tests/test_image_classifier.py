"""The classifier that ships, its files and its training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ostinato.errors import InputError, ModelError
from ostinato.image import (
    ClassifiedAs,
    Classifier,
    ClassifierConfig,
    denoise_loop,
    load_classifier,
    read_images,
    save_classifier,
)
from ostinato.image.classifier import SHIPPED
from ostinato.image.fixed_batches import is_batch_invariant
from ostinato.testing import check_process
from ostinato.train import Training, TrainingConfig
from recipes.digit_classifier import AugmentedClassificationTask, moved

SMALL = ClassifierConfig(names=("cat", "dog"), size=8, widths=(4, 8))


def test_the_shipped_classifier_is_small_and_documented() -> None:
    for folder in SHIPPED.iterdir():
        assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000
        card = (folder / "README.md").read_text("utf-8")
        assert "license: cc-by-sa-3.0" in card and "## Data and license" in card
    assert load_classifier("digits").names == tuple("0123456789")


def test_images_of_the_shipped_denoiser_are_mostly_recognized() -> None:
    check = ClassifiedAs(classifier=load_classifier())
    rows = [
        one for step in denoise_loop([n % 10 for n in range(20)], steps=8) for one in step.results
    ]
    passed = [check.judge(row.output, {"label": row.index % 10}) for row in rows]
    assert sum(verdict.passed for verdict in passed) >= 16


def test_noise_is_not_recognized() -> None:
    generator = torch.Generator().manual_seed(0)
    sure = load_classifier()(torch.randn(100, 1, 28, 28, generator=generator)).softmax(1).amax(1)
    assert float((sure > 0.9).float().mean()) < 0.2


def test_its_bits_do_not_depend_on_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    assert is_batch_invariant(load_classifier(), torch.randn(8, 1, 28, 28, generator=generator))


def test_a_saved_classifier_is_loaded_to_the_bit(tmp_path: Path) -> None:
    network = Classifier(SMALL, seed=3).eval()
    loaded = load_classifier(save_classifier(tmp_path / "net", network))
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x), loaded(x)) and loaded.config == SMALL
    assert loaded(x).shape == (2, 2)


def test_a_folder_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "net", Classifier(SMALL))
    with pytest.raises(ModelError, match=r"must be a folder with .* one of digits, got 'nothing'"):
        load_classifier("nothing")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="must hold the weights"):
        load_classifier(folder)
    config = json.loads((folder / "config.json").read_text())
    for change in ({"architecture": "other"}, {"names": ["cat"]}, {"size": 2}):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=r"must be the config\.json of ostinato.Classifier"):
            load_classifier(folder)
    with pytest.raises(InputError, match="names must be at least two, all different"):
        ClassifierConfig(names=("a", "a"))
    with pytest.raises(InputError, match="widths must be at least one"):
        ClassifierConfig(names=("a", "b"), widths=())
    with pytest.raises(InputError, match="channels must be at least 1"):
        ClassifierConfig(names=("a", "b"), channels=0)


def test_its_training_conforms() -> None:
    images = read_images(["digits-8x8"]).at(range(64))
    config = TrainingConfig(steps=6, batch_tokens=16, lr=3e-3, warmup_steps=2, ema_decay=0.9)
    shape = ClassifierConfig(names=images.names, size=8, widths=(4, 8))
    check_process(
        lambda: Training(Classifier(shape, seed=1), AugmentedClassificationTask(images), config),
        steps=5,
        cuts=(0, 2, 4),
    )


def test_images_are_moved_a_little_and_stay_images() -> None:
    x = read_images(["digits-8x8"], size=28).at(range(8)).clean()
    y = moved(x, torch.Generator().manual_seed(0))
    assert y.shape == x.shape and float(y.min()) >= -1 and float(y.max()) <= 1
    assert not torch.equal(x, y)
    assert float((x - y).square().mean()) < float((x - x.roll(1, 0)).square().mean())
