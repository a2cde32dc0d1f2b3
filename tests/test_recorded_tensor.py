"""Large tensors of a report come back from the journal bit for bit, up to a limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ostinato.errors import RunError
from ostinato.journal import Journal, shortened, tensor_of
from ostinato.journal.encoding import decode, differences, encode
from ostinato.loop.replay import recorded

SHAPE = (3, 64, 64)


def numbers(dtype: torch.dtype, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=generator) * 50).to(dtype)


def written(value: object) -> Any:
    return decode(encode({"x": value}))["x"]


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
        *(torch.uint8, torch.int64, torch.bool, torch.complex64),
    ],
)
def test_a_large_tensor_comes_back_bit_for_bit(dtype: torch.dtype) -> None:
    tensor = numbers(dtype)
    for given in (tensor, tensor.mT, tensor[:, ::2]):  # views are written as they are seen
        back = tensor_of(written(given))
        assert back.dtype is dtype and torch.equal(back, given)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i2", "|u1", "<f8"])
def test_a_large_array_comes_back_bit_for_bit(dtype: str) -> None:
    array = numbers(torch.float32).numpy().astype(dtype)
    assert np.array_equal(tensor_of(written(array[:, ::-1])).numpy(), array[:, ::-1])


def test_not_a_number_and_infinities_come_back() -> None:
    tensor = torch.full(SHAPE, float("nan"))
    tensor[0, 0, :2] = torch.tensor([float("inf"), -0.0])
    assert torch.equal(tensor_of(written(tensor)).view(torch.int32), tensor.view(torch.int32))


def test_small_tensors_are_lists_and_those_too_large_are_told_by_their_shape() -> None:
    assert written(torch.ones(2, 2)) == [[1.0, 1.0], [1.0, 1.0]]
    assert torch.equal(tensor_of([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]))
    huge = written(torch.zeros(1 << 18))  # 1 MiB
    assert huge["shape"] == [1 << 18] and "base64" not in huge
    with pytest.raises(RunError, match="got only its shape"):
        tensor_of(huge)
    pixels = numbers(torch.uint8, (3, 1024, 1024))
    assert torch.equal(tensor_of(written(pixels)), pixels)
    assert shortened({"lanes": [written(pixels), huge]}) == {
        "lanes": [
            {"shape": [3, 1024, 1024], "dtype": "uint8"},
            {"shape": [1 << 18], "dtype": "float32"},
        ]
    }


def test_what_holds_no_numbers_is_written_as_its_shape() -> None:
    texts = np.array(["a"] * 5000)
    assert written(texts) == {"shape": [5000], "dtype": "str32"}
    assert written(torch.empty(5000, device="meta"))["shape"] == [5000]


@pytest.mark.parametrize("count", [3 * 64 * 64, 1 << 18])
def test_a_repetition_that_differs_in_one_element_is_told(count: int) -> None:
    tensor = torch.zeros(count)
    old = decode(encode({"x": tensor}))
    assert differences(old, {"x": tensor}) == []
    changed = tensor.clone()
    changed[-1] = 1e-7
    assert differences(old, {"x": changed}) == ["x"]
    # A journal of an older version holds the shape and the type alone.
    assert differences({"x": {"shape": [count], "dtype": "float32"}}, {"x": tensor}) == []
    assert differences({"x": {"shape": [9], "dtype": "float32"}}, {"x": tensor}) == ["x"]


def test_blocks_of_steps_with_large_tensors_stay_small(tmp_path: Path) -> None:
    tensors = [torch.full((1 << 17,), float(n)) for n in range(60)]  # 512 KiB each
    with Journal(tmp_path / "runs.sqlite") as journal:
        run = journal.create("a", kind="test")
        with journal.drive(run) as session:
            for tick, tensor in enumerate(tensors, 1):
                session.step(tick, tick, {"x": tensor})
        sizes = run.database.query("SELECT LENGTH(data) FROM steps")
        assert max(size for (size,) in sizes) <= 1 << 24
        back = [tensor_of(step.report["x"]) for step in run.steps()]
        assert all(torch.equal(a, b) for a, b in zip(tensors, back, strict=True))


def test_a_step_that_is_replayed_has_its_large_tensors(tmp_path: Path) -> None:
    tensor = numbers(torch.float32)
    lane = {"position": 1, "report": {"x": tensor, "text": "a", "small": torch.ones(2)}}
    with Journal(tmp_path / "runs.sqlite") as journal:
        run = journal.create("a", kind="test")
        with journal.drive(run) as session:
            session.step(1, 1, {"lanes": {"k": lane}})
        ((position, report),) = next(recorded(run, 0)).values()
    assert position == 1 and torch.equal(report["x"], tensor)  # type: ignore[arg-type]
    assert report["text"] == "a" and report["small"] == [1.0, 1.0]
