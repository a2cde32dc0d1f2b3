"""The thread that writes what is served: all that the model computes is computed there."""

from __future__ import annotations

import threading

import pytest
from tiny import tiny_model

from ostinato.errors import InputError
from ostinato.models import LanguageModel
from ostinato.serve import Desk


def test_a_model_is_loaded_in_the_thread_that_writes() -> None:
    """Of two threads that have computed, each has workers, and they get in each other's way."""
    names: list[str] = []

    def load() -> LanguageModel:
        names.append(threading.current_thread().name)
        return tiny_model()

    desk = Desk(load)
    desk.close()
    assert names == ["ostinato-serve"]
    assert desk.longest == tiny_model().config.max_position_embeddings


def test_a_model_that_cannot_be_loaded_is_told_where_the_desk_is_made() -> None:
    def load() -> LanguageModel:
        raise InputError("The model must be there, got nothing. Name another.")

    with pytest.raises(InputError, match="The model must be there"):
        Desk(load)
