"""Augmentations: what each does to an image, and that gradients pass through."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ostinato.adversarial import AUGMENTATIONS, AdaptiveProbability, augmented


def images(count: int = 40, channels: int = 3, side: int = 16) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0)) + 0.1


def test_none_changes_nothing_and_a_seed_decides_all() -> None:
    x = images()
    assert torch.equal(augmented(x, (), 1), x)
    for name in AUGMENTATIONS:
        assert torch.equal(augmented(x, (name,), 1), augmented(x, (name,), 1))
        assert not torch.equal(augmented(x, (name,), 1), augmented(x, (name,), 2))


def test_translation_moves_by_up_to_an_eighth_and_leaves_gray() -> None:
    """Each image must be one shift of its own, found by trying all 25."""
    x, found = images(), set()
    for before, after in zip(x, augmented(x, ("translation",), 3), strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
        fits = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if torch.equal(padded[:, down : down + 16, right : right + 16], after)
        ]
        assert len(fits) == 1
        found.add(fits[0])
    assert len(found) > 12 and {down for down, _ in found} == set(range(5))


def test_cutout_leaves_a_hole_of_half_the_side_that_may_be_cut_off() -> None:
    x = images(200)
    holes = augmented(x, ("cutout",), 4) == 0
    assert torch.equal(augmented(x, ("cutout",), 4)[~holes], x[~holes])
    sizes = holes[:, 0].sum((1, 2))
    assert int(sizes.max()) == 64 and 16 <= int(sizes.min()) < 64
    for hole in holes[:, 0]:  # a rectangle: as many as rows times columns
        assert int(hole.sum()) == int(hole.any(1).sum()) * int(hole.any(0).sum())


def test_color_keeps_where_things_are() -> None:
    x = images()
    for before, after in zip(x, augmented(x, ("color",), 5), strict=True):
        gray, changed = before.mean(0).flatten(), after.mean(0).flatten()
        together = torch.stack((gray, changed))
        assert float(torch.corrcoef(together)[0, 1]) == pytest.approx(1, abs=1e-3)
        slope = changed.std() / gray.std()
        assert 0.5 <= float(slope) <= 1.5
    gray_image = augmented(images(channels=1), ("color",), 5)
    assert gray_image.shape == (40, 1, 16, 16)


def test_gradients_pass_through_all_together() -> None:
    x = images(4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augmented(x, AUGMENTATIONS, 6), x[:1, :, :6, :6])


def test_each_image_has_its_own_changes() -> None:
    one = images(1).expand(8, -1, -1, -1)
    for name in AUGMENTATIONS:
        assert len(torch.unique(augmented(one, (name,), 7), dim=0)) > 4


def test_each_image_is_changed_with_the_probability_and_then_as_ever() -> None:
    x = images(1000)
    always = augmented(x, ("translation",), 8)
    for p in (0.0, 0.2, 0.7, 1.0):
        changed = augmented(x, ("translation",), 8, p)
        kept = (changed == x).flatten(1).all(1)
        assert torch.equal(changed[~kept], always[~kept])
        still = float((always == x).flatten(1).all(1).float().mean())  # a shift of nothing
        assert float((~kept).float().mean()) == pytest.approx(p * (1 - still), abs=0.04)


def test_augmentations_are_chosen_apart() -> None:
    """At a half, a quarter of the images is changed by neither of two."""
    x = images(1000, channels=1)
    kept = (augmented(x, ("color", "cutout"), 9, 0.5) == x).flatten(1).all(1)
    assert float(kept.float().mean()) == pytest.approx(0.25, abs=0.05)


def test_the_probability_rises_while_the_overfitting_is_above_its_target() -> None:
    adaptive = AdaptiveProbability(0.6)
    adaptive.adapt(0.5, 640)
    assert adaptive.p == 0.0
    for _ in range(10):
        adaptive.adapt(0.7, 640)
    assert adaptive.p == pytest.approx(0.2)
    adaptive.adapt(0.1, 640)
    assert adaptive.p == pytest.approx(0.18)
    other = AdaptiveProbability(0.6)
    other.load_state_dict(adaptive.state_dict())
    assert other.p == adaptive.p
    for _ in range(99):
        adaptive.adapt(0.9, 640)
    assert adaptive.p == 1.0
