"""The duel: its promises as a process, its turns, what it reports, what it keeps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from ostinato import Loop, Steps
from ostinato.adversarial import (
    Discriminator,
    Duel,
    DuelConfig,
    GanConfig,
    Generator,
    Hinge,
    ModeCollapse,
    NonSaturating,
    Overpowered,
    Relativistic,
    Wasserstein,
    gan_for,
    loss_of,
)
from ostinato.errors import EditError, InputError, RunError
from ostinato.image import Images
from ostinato.journal import StopKind
from ostinato.testing import check_process
from ostinato.train import Trainer, copied

QUICK = DuelConfig(
    steps=12, batch_images=8, watch_every=2, watched=10, valid_every=4, samples=12, sample_every=4
)


def bars(count: int, seed: int = 0, classes: bool = True, size: int = 8) -> Images:
    """Return images of one bright bar: class 0 across, class 1 down."""
    draws = torch.Generator().manual_seed(seed)
    pixels = torch.zeros(count, 1, size, size, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    for image, label in zip(pixels, labels, strict=True):
        place = int(torch.randint(1, size - 1, (), generator=draws))
        (image[0] if label else image[0].T)[:, place] = 255
    return Images(pixels, labels, ("across", "down")) if classes else Images(pixels)


def duel(config: DuelConfig = QUICK, classes: bool = True, **options: Any) -> Duel:
    images = bars(40, classes=classes)
    shape = replace(gan_for(images, width=8, latent=4), features=16)
    networks = Generator(shape, seed=1), Discriminator(shape, seed=2)
    return Duel(*networks, images, bars(20, 1, classes), config, **options)


@pytest.mark.parametrize(
    "config",
    [
        QUICK,
        replace(QUICK, loss="wasserstein", discriminator_updates=2, augment=("color", "cutout")),
        replace(QUICK, loss="non-saturating", precision="bfloat16", ema_decay=0.0),
        replace(QUICK, loss="hinge", schedule="wsd", max_grad_norm=0.5),
        replace(QUICK, augment=("translation",), augment_target=1e-6, lr=0.01),
    ],
    ids=["relativistic", "wasserstein", "non-saturating", "hinge", "adaptive"],
)
def test_a_duel_conforms(config: DuelConfig) -> None:
    check_process(lambda: duel(config), steps=8, cuts=(1, 5))  # 5 batches an epoch


def test_a_duel_of_images_without_classes_conforms() -> None:
    check_process(lambda: duel(classes=False), steps=8, cuts=(5,))


def test_each_side_moves_in_its_turn() -> None:
    """A generator's update must leave the discriminator alone, and the other way round."""
    process = duel(replace(QUICK, discriminator_updates=3))
    before = copied(process.parameters)
    process.change({"generator/lr": 0})
    process.step()
    moved = {n for n, p in process.parameters.items() if not torch.equal(p, before[n])}
    assert moved and all(name.startswith("discriminator.") for name in moved)
    assert process.updaters["discriminator"].steps == 3
    assert process.updaters["generator"].steps == 1
    process = duel()
    process.change({"discriminator/lr": 0})
    process.step()
    moved = {n for n, p in process.parameters.items() if not torch.equal(p, before[n])}
    assert moved and all(name.startswith("generator.") for name in moved)
    assert all(p.grad is None and p.requires_grad for p in process.parameters.values())


def test_a_step_reports_how_the_duel_stands() -> None:
    process = duel()
    reports = [process.step() for _ in range(9)]
    always = {
        *(f"{side}/{n}" for side in process.updaters for n in ("loss", "lr", "grad/norm")),
        *("score/real", "score/generated", "accuracy", "epoch", "batch"),
    }
    penalties = {"r1", "r2"}
    looks = {"score/held_out", "diversity", "duplicates"}
    assert set(reports[0]) == set(reports[8]) == always | penalties
    assert set(reports[1]) - {"overfitting"} == always | looks
    validated = {"fd", "precision", "recall", "sample"}
    assert set(reports[3]) - {"overfitting"} == always | looks | validated
    assert reports[0]["epoch"] == pytest.approx(1 / 5) and reports[0]["batch"] == 1
    sample = reports[3]["sample"]
    assert isinstance(sample, Tensor) and sample.dtype == torch.uint8


def test_overfitting_is_that_of_held_out_scores_between_the_others() -> None:
    process = duel()
    for _ in range(60):
        process.step()

    def scores(images: Tensor, label: Tensor | None) -> Tensor:
        found: Tensor = process.discriminator(images, label).detach()
        return found

    made = scores(*process.samples(10, "watched"))
    train, held = (
        scores(images.clean()[:10], (torch.arange(40) % 2)[:10])
        for images in (bars(40), bars(20, 1))
    )
    looked = process.watch()
    assert looked["score/held_out"] == pytest.approx(float(held.mean()))
    assert train.mean() > made.mean()
    expected = (train.mean() - held.mean()) / (train.mean() - made.mean())
    assert looked["overfitting"] == pytest.approx(float(expected))


def test_diversity_tells_one_image_a_class_from_the_data() -> None:
    process = duel()
    assert process._quality.diversity(bars(20, 2).clean(), torch.arange(20) % 2) > 0.8
    one_each = bars(2).clean().repeat(10, 1, 1, 1)
    assert process._quality.diversity(one_each, torch.arange(20) % 2) < 1e-3


def test_the_best_generator_is_the_one_of_the_lowest_distance() -> None:
    process, distances, weights = duel(replace(QUICK, lr=0.01, ema_decay=0.0)), {}, {}
    for step in range(1, 13):
        report = process.step()
        if "fd" in report:
            distances[step] = report["fd"]
            weights[step] = copied(process.updaters["generator"].parameters)
    best = min(distances, key=lambda step: float(str(distances[step])))
    assert process.best.step == best and process.best.value == distances[best]
    last = process.generator.stem.weight.detach().clone()
    with process.best_weights():
        assert torch.equal(process.generator.stem.weight, weights[best]["stem.weight"])
        assert process.validate()["fd"] == distances[best]
    assert torch.equal(process.generator.stem.weight, last)


def test_the_last_weights_are_validated_once() -> None:
    process: Trainer = duel()
    for _ in range(5):
        process.step()
    assert set(process.validate_last()) == {"fd", "precision", "recall"}  # without a classifier
    assert not process.validate_last()


def test_a_duel_learns() -> None:
    """Bars of two kinds: the distance falls far below that of the first weights."""
    images = bars(200)
    config = DuelConfig(
        steps=150, batch_images=32, lr=3e-3, valid_every=50, samples=200, sample_every=0
    )
    shape = gan_for(images, width=16, latent=8)
    process = Duel(Generator(shape), Discriminator(shape), images, bars(100, 1), config)
    before = process.validate()["fd"]
    Loop(process, until=Steps(150)).run()
    assert process.best.value < before / 4
    assert float(str(process.watch()["diversity"])) > 0.5


TOO_FAST: dict[str, Any] = {
    "loss": "hinge",
    "lr": 5e-2,
    "discriminator_lr": 2e-3,
    "beta1": 0.9,
}
"""A generator that is far too fast for its discriminator makes one image a class."""


def small_duel(classes: bool = True, color: bool = False, **change: Any) -> Duel:
    images, held = (bars(count, seed, classes) for count, seed in ((200, 0), (100, 1)))
    if color:
        images, held = (
            replace(each, pixels=each.pixels.repeat(1, 3, 1, 1)) for each in (images, held)
        )
    shape = gan_for(images, width=8, latent=8)
    config = DuelConfig(batch_images=32, lr=3e-3, valid_every=1000, sample_every=0)
    networks = Generator(shape), Discriminator(shape, seed=50)
    return Duel(*networks, images, held, replace(config, **change))


def test_a_collapse_is_detected() -> None:
    stopped = Loop(small_duel(**TOO_FAST), until=Steps(220) | ModeCollapse()).run()
    assert stopped.kind is StopKind.DIVERGED and "alike" in stopped.sentence


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"classes": False},
        {"color": True},
        {"loss": "non-saturating"},
        {"loss": "wasserstein", "lr": 1e-3},
        {"loss": "hinge", "lr": 1e-3},
    ],
    ids=str,
)
def test_a_healthy_duel_is_not_stopped(change: dict[str, Any]) -> None:
    stopped = Loop(small_duel(**change), until=Steps(220) | ModeCollapse() | Overpowered()).run()
    assert stopped.kind is StopKind.BUDGET, stopped.sentence


def test_the_probability_of_augmentations_is_reported_and_goes_up_with_overfitting() -> None:
    """A target that is always passed: the probability is 0 before the first look."""
    process = duel(replace(QUICK, augment=("translation",), augment_target=1e-6, lr=0.01))
    process.watch = lambda: {"overfitting": 0.5}  # type: ignore[method-assign]
    reports = [process.step() for _ in range(4)]
    assert [report.get("augment/p") for report in reports] == [None, 16 / 32_000, None, 32 / 32_000]
    assert "augment/p" not in duel().step()


def test_edits_reach_both_sides_or_the_one_that_is_named() -> None:
    process = duel(replace(QUICK, discriminator_lr=4e-3, warmup_steps=0, schedule="constant"))
    process.change({"lr_scale": 0.5, "discriminator/lr_scale": 0.5})
    report = process.step()
    assert (report["generator/lr"], report["discriminator/lr"]) == (1e-3, 1e-3)
    with pytest.raises(EditError, match=r"Unknown edit 'generator/skip' of Duel"):
        process.change({"generator/skip": 1})


def test_the_state_of_another_process_is_refused() -> None:
    process = duel()
    state = process.state_dict()
    del state["discriminator"]
    with pytest.raises(RunError, match=r"A state of Duel .* differs in discriminator"):
        duel().load_state_dict(state)


def test_images_that_do_not_fit_the_networks_are_refused() -> None:
    process = duel()
    networks = process.generator, process.discriminator
    with pytest.raises(InputError, match="held_out must be at least 4 images, got 2"):
        Duel(*networks, bars(40), bars(2))
    with pytest.raises(InputError, match="images must be of the networks' size, 1 x 8 x 8, got"):
        Duel(*networks, bars(40, size=9), bars(20))
    with pytest.raises(InputError, match=r"held_out must have labels .* 2 classes, got none"):
        Duel(*networks, bars(40), bars(20, classes=False))


@pytest.mark.parametrize(
    ("name", "penalty", "expected"),
    [
        ("relativistic", None, Relativistic(gamma=8 * 0.3)),
        ("relativistic", 1.0, Relativistic(gamma=8.0)),
        ("non-saturating", 2.0, NonSaturating(gamma=16.0)),
        ("wasserstein", None, Wasserstein(weight=10.0)),
        ("hinge", None, Hinge()),
    ],
)
def test_a_configuration_names_its_loss(
    name: Literal["relativistic", "hinge"], penalty: float | None, expected: object
) -> None:
    assert loss_of(DuelConfig(loss=name, penalty=penalty)) == expected


def test_a_penalty_weighs_the_same_however_seldom_it_is_computed() -> None:
    each, seldom = (
        DuelConfig(penalty=0.5, penalty_every=1),
        DuelConfig(penalty=0.5, penalty_every=4),
    )

    def gammas(config: DuelConfig) -> list[float]:
        losses = (loss_of(config, step) for step in range(8))
        return [loss.gamma for loss in losses if isinstance(loss, Relativistic)]

    weights = [gammas(config) for config in (each, seldom)]
    assert weights == [[0.5] * 8, [2.0, 0.0, 0.0, 0.0] * 2]


def test_the_discriminator_is_half_as_wide_unless_its_width_is_given() -> None:
    images = bars(40, size=28)
    assert gan_for(images).widths == (32, 64)
    assert gan_for(images).discriminator_widths == (16, 32)
    assert gan_for(images, discriminator_width=8).discriminator_widths == (8, 16)
    assert GanConfig(widths=(4, 8)).discriminator_widths == (4, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge", "penalty": 1.0}, "penalty must be left out with the hinge loss"),
        ({"augment": ("colour",)}, "augment must be any of color, translation, cutout, got"),
        ({"augment_target": 0.6}, "augment must be given with augment_target"),
        ({"augment": ("cutout",), "augment_target": 1.0}, "augment_target must be between 0 and 1"),
        ({"beta2": 1.0}, "beta2 must be in"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"penalty": math.nan}, "penalty must be"),
        ({"watched": 1}, "watched must be at least 2"),
    ],
)
def test_a_wrong_configuration_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DuelConfig(**change)
