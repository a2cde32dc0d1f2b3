"""Measures of samples beside held-out images: they order sets whose quality is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ostinato.adversarial import GanConfig, SampleQuality, untrained_features
from ostinato.adversarial.quality import overfitting
from ostinato.image import Classifier, Images, frechet_distance, load_classifier
from ostinato.image.quality import diversity


def strokes(count: int, seed: int) -> Images:
    """Return images of 28 x 28 pixels: class 0 a ring, class 1 a line, each its own."""
    draws = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    made, labels = [], torch.arange(count) % 2
    for label in labels.tolist():
        cy, cx, r = (torch.rand(3, generator=draws) * torch.tensor([6, 6, 4]) + 10).tolist()
        ring = ((y - cy) ** 2 + (x - cx) ** 2).sqrt() - (r - 6)
        line = (y - cy) * (r - 12) / 2 + (x - cx)
        made.append((-(line if label else ring).square() / 2).exp() * 255)
    return Images(torch.stack(made)[:, None].to(torch.uint8), labels, ("ring", "line"))


@pytest.fixture(params=["untrained", "classifier"])
def quality(request: pytest.FixtureRequest) -> SampleQuality:
    untrained = request.param == "untrained"
    embed = untrained_features(GanConfig()) if untrained else load_classifier().features
    return SampleQuality(embed, strokes(200, 0))


def test_worse_images_are_further_from_the_data(quality: SampleQuality) -> None:
    real = strokes(200, 1).clean()
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    blurred = F.avg_pool2d(real, 5, stride=1, padding=2)
    distance = {
        name: quality.measure(images)["fd"]
        for name, images in {
            "real": real,
            "noise of 0.1": real + 0.1 * noise,
            "noise of 0.3": real + 0.3 * noise,
            "blur": blurred,
            "one class": real[::2].repeat(2, 1, 1, 1),
        }.items()
    }
    assert distance["real"] < distance["noise of 0.1"] < distance["noise of 0.3"]
    for worse in ("noise of 0.3", "blur", "one class"):
        assert distance["real"] < distance[worse] / 2


def test_missing_classes_cost_recall_and_not_precision(quality: SampleQuality) -> None:
    real = strokes(200, 1).clean()
    all_, half = quality.measure(real), quality.measure(real[::2])
    assert all_["precision"] > 0.7 and all_["recall"] > 0.7
    assert half["precision"] > 0.7 and half["recall"] < 0.6


def test_diversity_is_a_share_of_the_datas(quality: SampleQuality) -> None:
    images = strokes(200, 1)
    assert quality.diversity(images.clean(), images.labels) == pytest.approx(1, abs=0.15)
    one_each = images.clean()[:2].repeat(50, 1, 1, 1)
    label = torch.arange(100) % 2
    assert quality.diversity(one_each, label) < 1e-3
    few = images.clean()[:8].repeat(12, 1, 1, 1)
    assert 0.3 < quality.diversity(few, torch.arange(96) % 2) < 0.9


def test_features_are_scaled_by_the_held_out_images_and_flat_ones_left_out() -> None:
    held, samples = strokes(50, 0), strokes(40, 1).clean()

    def embed(x: Tensor) -> Tensor:
        sums = torch.stack((x.sum((1, 2, 3)), x[:, 0, :14].sum((1, 2))), 1)
        return torch.cat((sums, torch.ones(len(x), 1)), 1)

    real = embed(held.clean())[:, :2]
    expected = frechet_distance(embed(samples)[:, :2] / real.std(0), real / real.std(0))
    quality = SampleQuality(embed, held)
    assert quality.measure(samples)["fd"] == pytest.approx(expected, rel=1e-4)
    share = diversity(embed(samples)[:, :2] / real.std(0)) / diversity(
        real / real.std(0), held.labels
    )
    assert quality.diversity(samples, None) == pytest.approx(share, rel=1e-4)


def test_untrained_features_are_always_the_same() -> None:
    x = strokes(3, 0).clean()
    torch.manual_seed(5)
    one = untrained_features(GanConfig())(x)
    torch.manual_seed(6)
    assert torch.equal(one, untrained_features(GanConfig())(x))


def test_a_classifiers_features_are_those_of_its_logits() -> None:
    network: Classifier = load_classifier()
    x = strokes(3, 0).clean()
    assert torch.equal(network.out(network.features(x)), network(x))


def test_duplicates_are_images_that_are_nearly_the_same() -> None:
    quality = SampleQuality(untrained_features(GanConfig()), strokes(200, 0))
    images = strokes(80, 1)
    pixels, labels = images.clean(), images.labels
    assert quality.duplicates(pixels, labels) < 0.2
    draws = torch.Generator().manual_seed(0)
    twice = pixels.clone()
    twice[40:] = twice[:40] + 0.01 * torch.randn(twice[:40].shape, generator=draws)
    assert quality.duplicates(twice, labels) > 0.9
    assert quality.duplicates(twice, None) > 0.9


def test_one_class_of_duplicates_counts_where_each_has_enough_images() -> None:
    quality = SampleQuality(untrained_features(GanConfig()), strokes(200, 0))
    images = strokes(40, 1)
    pixels, labels = images.clean(), images.labels
    pixels[1::2] = pixels[1]
    assert quality.duplicates(pixels, labels) == 1.0
    assert quality.duplicates(pixels[:10], torch.arange(10) % 2) <= 0.5  # five of each: too few


def test_a_class_of_one_image_has_no_duplicates() -> None:
    lonely = strokes(21, 0)
    assert lonely.labels is not None
    labels = torch.zeros(21, dtype=torch.long)
    labels[0] = 1
    held_out = Images(lonely.pixels, labels, ("many", "one", "none"))
    quality = SampleQuality(untrained_features(GanConfig()), held_out)
    same = lonely.clean()[:1].expand(20, -1, -1, -1)
    assert quality.duplicates(same, torch.ones(20, dtype=torch.long)) == 0.0
    assert quality.duplicates(same, torch.full((20,), 2)) == 0.0


def test_a_classifier_tells_which_classes_are_made() -> None:
    def by_brightness(images: Tensor) -> Tensor:
        return F.one_hot((images.mean((1, 2, 3)) > 0).long(), 3).float()

    held_out = Images(
        (torch.arange(40)[:, None, None, None] % 2 * 255).expand(-1, 1, 28, 28).byte()
    )
    quality = SampleQuality(untrained_features(GanConfig()), held_out, classify=by_brightness)
    images = -torch.ones(40, 1, 28, 28)
    assert quality.measure(images)["classes"] == 1
    images[0] = 1  # a fortieth, where a twentieth is due
    assert quality.measure(images)["classes"] == 1
    images[:2] = 1
    assert quality.measure(images)["classes"] == 2
    labels = torch.zeros(40, dtype=torch.long)
    measured = quality.measure(images, labels)
    assert measured["class_accuracy"] == pytest.approx(38 / 40) and "classes" not in measured


def test_overfitting_is_where_held_out_scores_lie_between_the_others() -> None:
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 100, generator=draws)
    noise -= noise.mean(1, keepdim=True)
    train, held_out, generated = 2 + noise[0], 0.5 + noise[1], -2 + noise[2]
    assert overfitting(train, train, generated) == pytest.approx(0, abs=1e-6)
    assert overfitting(train, held_out, generated) == pytest.approx(1.5 / 4)
    assert overfitting(train, generated, generated) == pytest.approx(1)


def test_overfitting_is_unknown_where_generated_images_score_as_real_ones() -> None:
    """The noise of the means is 0.14: a distance of 0.2 may be chance."""
    noise = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    noise -= noise.mean(1, keepdim=True)
    assert overfitting(0.2 + noise[0], noise[1] - 3, noise[1]) is None
    assert overfitting(noise[0], noise[1], 1 + noise[1]) is None
