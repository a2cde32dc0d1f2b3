"""The committed figures match what the committed code and models make."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recipes.docs_figures import FIGURES

FOLDER = Path(__file__).parents[1] / "docs" / "images"


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_what_the_code_makes(name: str) -> None:
    """Compared with a tolerance: kernels and font rendering differ between machines."""
    actual = FIGURES[name]()
    with Image.open(FOLDER / f"{name}.png") as file:
        assert actual.size == file.size, (
            "Run `python -m recipes.docs_figures docs/images`, and look."
        )
        difference = np.abs(np.asarray(actual, np.float32) - np.asarray(file, np.float32))
    assert difference.mean() < 2, "Run `python -m recipes.docs_figures docs/images`, and look."
    assert (difference > 48).mean() < 0.02


def test_all_figures_are_small_and_shown() -> None:
    page = (FOLDER.parent / "images.md").read_text("utf-8")
    shown = set(re.findall(r"\(images/(\w+)\.png\)", page))
    assert shown == set(FIGURES)
    assert all((FOLDER / f"{name}.png").stat().st_size < 100_000 for name in shown)
