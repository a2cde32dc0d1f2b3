"""The shipped adapter: small enough, of its base, and with a card that says what it is."""

from __future__ import annotations

import json

from safetensors import safe_open

from ostinato.models import PROJECTIONS
from ostinato.models.catalog import CATALOG, adapter_folder, shipped_adapters

FOLDER = adapter_folder("support")


def test_it_ships_and_is_at_most_12_megabytes() -> None:
    assert "support" in shipped_adapters()
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 12_000_000


def test_it_adapts_every_projection_of_its_base() -> None:
    config = json.loads((FOLDER / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] in CATALOG
    assert sorted(config["target_modules"]) == sorted(PROJECTIONS)
    with safe_open(FOLDER / "adapter_model.safetensors", framework="pt") as file:
        assert len(list(file.keys())) == 2 * len(PROJECTIONS) * 30


def test_its_card_names_data_licenses_recipe_and_limits() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for needed in ("CC BY-SA 4.0", "Apache-2.0", "Rastogi", "recipes.support", "not for"):
        assert needed in card
