"""The denoiser: its shapes, its preconditioning, its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ostinato.errors import InputError, ModelError
from ostinato.image import Denoise, UNet, UNetConfig, load_denoiser, save_denoiser

SMALL = {"size": 8, "classes": 3, "patch": 1, "widths": (16, 32), "blocks": 1, "embedding": 16}


def shaken(**changes: Any) -> UNet:
    """A small network with random weights also where layers start at zero."""
    network = UNet(UNetConfig(**{**SMALL, **changes})).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.05)
    return network


@pytest.mark.parametrize(
    "shape", [{}, {"channels": 3}, {"size": 11, "patch": 2}, {"widths": (16, 32, 32)}]
)
def test_an_image_keeps_its_shape(shape: dict[str, Any]) -> None:
    network = shaken(**shape)
    x = torch.randn(2, network.channels, network.size, network.size)
    clean = network(x, torch.tensor([0.1, 5.0]), torch.tensor([0, 3]))
    assert clean.shape == x.shape and bool(clean.isfinite().all())


def test_without_noise_the_image_itself_is_predicted() -> None:
    network = shaken()
    x = torch.rand(1, 1, 8, 8) * 2 - 1
    clean = network(x, torch.tensor([1e-4]), None)
    torch.testing.assert_close(clean, x, atol=1e-3, rtol=0)


def test_no_label_is_the_label_for_none_and_a_class_is_not() -> None:
    network = shaken()
    x, sigma = torch.randn(1, 1, 8, 8), torch.tensor([1.0])
    none = network(x, sigma, None)
    assert torch.equal(none, network(x, sigma, torch.tensor([3])))
    assert not torch.equal(none, network(x, sigma, torch.tensor([1])))


def test_a_saved_denoiser_is_loaded_to_the_bit(tmp_path: Path) -> None:
    network = shaken(names=("a", "b", "c"))
    loaded = load_denoiser(save_denoiser(tmp_path / "net", network))
    x, sigma, label = torch.randn(2, 1, 8, 8), torch.tensor([0.5, 2.0]), torch.tensor([0, 2])
    assert torch.equal(network(x, sigma, label), loaded(x, sigma, label))
    assert loaded.config == network.config


def test_its_bits_do_not_depend_on_the_batch() -> None:
    assert Denoise(shaken()).deterministic


def test_a_folder_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    folder = save_denoiser(tmp_path / "net", shaken())
    with pytest.raises(ModelError, match="must be a folder with"):
        load_denoiser("no-such-model")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="must hold the weights"):
        load_denoiser(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architecture": "other"}))
    with pytest.raises(ModelError, match=r"config\.json must be the config\.json of ostinato.UNet"):
        load_denoiser(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (10,)}, "widths must be multiples of 16"),
        ({"names": ("a",)}, "names must be one for each of 3 classes"),
        ({"sigma_min": 0.0}, "sigma_min must be above 0"),
        ({"blocks": 0}, "blocks must be at least 1"),
        ({"head": 24}, "multiple of head"),
    ],
)
def test_an_impossible_config_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        UNetConfig(**{**SMALL, **change})
