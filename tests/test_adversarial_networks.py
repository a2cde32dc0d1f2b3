"""Generators and discriminators: shapes, classes, independence of images, files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ostinato.adversarial import (
    Discriminator,
    GanConfig,
    Generator,
    Relativistic,
    gan_for,
    latents,
    load_generator,
    save_generator,
)
from ostinato.errors import InputError, ModelError
from ostinato.image import Images

SMALL = GanConfig(size=8, classes=3, names=("a", "b", "c"), latent=4, widths=(4, 8), features=6)


def images(size: int, channels: int = 1, names: tuple[str, ...] = ()) -> Images:
    pixels = torch.zeros(6, channels, size, size, dtype=torch.uint8)
    labels = torch.arange(6) % len(names) if names else None
    return Images(pixels, labels, names)


@pytest.mark.parametrize("size", [8, 9, 13, 16, 28, 33, 64])
@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_networks_fit_images_of_every_size(size: int, names: tuple[str, ...]) -> None:
    channels = 3 if size % 2 else 1
    config = gan_for(images(size, channels, names), width=4, latent=5)
    assert 4 <= config.side <= 8
    label = torch.tensor([0, 1]) if names else None
    made = Generator(config)(latents([0, 1], 5), label)
    assert made.shape == (2, channels, size, size) and float(made.detach().abs().max()) <= 1
    assert Discriminator(config)(made, label).shape == (2,)


def test_every_pixel_reaches_the_score() -> None:
    for size in (8, 13, 28):
        config = GanConfig(size=size, widths=(4, 8))
        x = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(0))
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(Discriminator(config)(x).sum(), x)
        assert bool((gradient != 0).all())


def score(config: GanConfig = SMALL) -> tuple[Discriminator, Tensor, Tensor]:
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Discriminator(config, seed=2), x, torch.arange(6) % 3


def test_a_score_depends_on_its_own_image_alone() -> None:
    network, x, label = score()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x, label)[2], x)
    assert [bool((g != 0).any()) for g in gradient] == [n == 2 for n in range(6)]


def test_the_discriminators_classes_enter_by_projection() -> None:
    network, x, label = score()
    h = network.features(x)
    assert network.classes_embed is not None
    expected = network.out(h)[:, 0] + (network.classes_embed.weight[label] * h).sum(1)
    assert torch.allclose(network(x, label), expected)
    assert not torch.allclose(network(x, label), network(x, (label + 1) % 3))


def test_the_generators_image_depends_on_noise_and_class() -> None:
    network, z = Generator(SMALL), latents([5, 5, 6], 4)
    a, b, c = network(z, torch.tensor([0, 1, 0]))
    assert not torch.allclose(a, b) and not torch.allclose(a, c)
    with pytest.raises(InputError, match="label must be given: the network has 3 classes"):
        network(z)


def test_penalties_reach_every_weight_but_the_last_bias() -> None:
    network, x, label = score()
    loss = Relativistic(gamma=5.0)
    term = loss.discriminator(lambda images: network(images, label), x, x.flip(0), 0)
    term.loss.backward()  # type: ignore[no-untyped-call]
    without = {n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == {"out.bias"}  # it moves real and generated scores alike


def test_noise_depends_on_its_own_seed_alone() -> None:
    assert torch.equal(latents([3, 4], 8)[1], latents([4], 8)[0])
    rows = latents(range(2000), 8)
    assert abs(float(rows.mean())) < 0.05 and abs(float(rows.std()) - 1) < 0.05


def test_seeds_decide_the_first_weights_and_leave_the_random_state() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    one, same, other = Generator(SMALL), Generator(SMALL), Generator(SMALL, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one.stem.weight, same.stem.weight)
    assert not torch.equal(one.stem.weight, other.stem.weight)


def test_a_saved_generator_is_loaded_to_the_bit(tmp_path: Path) -> None:
    network = Generator(SMALL, seed=3)
    loaded = load_generator(save_generator(tmp_path / "net", network))
    z, label = latents([0, 1], 4), torch.tensor([0, 2])
    assert torch.equal(network(z, label), loaded(z, label)) and loaded.config == SMALL
    assert not loaded.training
    half = save_generator(tmp_path / "half", network, dtype=torch.bfloat16)
    assert load_generator(half).stem.weight.dtype == torch.float32


def test_a_folder_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    folder = save_generator(tmp_path / "net", Generator(SMALL))
    with pytest.raises(ModelError, match=r"must be a folder with .*, got 'nothing'"):
        load_generator("nothing")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="must hold the weights"):
        load_generator(folder)
    config = json.loads((folder / "config.json").read_text())
    changes: list[dict[str, Any]] = [{"architecture": "other"}, {"size": 4}, {"widths": []}]
    for change in changes:
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=r"must be the config\.json of ostinato.Generator"):
            load_generator(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 65}, "size must be 8 to 64 pixels, got 65"),
        ({"channels": 2}, "channels must be 1 .gray. or 3 .color., got 2"),
        ({"widths": (4, 4, 4, 4)}, "widths must be 1 to 3 for 8 pixels"),
        ({"names": ("a",)}, "names must be one for each of 3 classes"),
        ({"latent": 0}, "latent must be at least 1"),
    ],
)
def test_a_wrong_architecture_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change)
