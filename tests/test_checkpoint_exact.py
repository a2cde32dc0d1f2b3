"""A state that is saved and loaded is equal in value, type, shape, stride and shared memory."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostinato.errors import InputError, RunError
from ostinato.journal.state.checkpoint import load_state, save_state


def round_trip(state: dict[Any, Any], folder: Path) -> dict[Any, Any]:
    saved = save_state(folder / "state.safetensors", state)
    assert saved.bytes == (folder / "state.safetensors").stat().st_size
    return load_state(folder / "state.safetensors", crc=saved.crc)


def same(one: object, other: object) -> bool:
    """Equal bit for bit, with NaN equal to NaN and no two types equal."""
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.stride() == other.stride()
            and _bits(one) == _bits(other)
        )
    if isinstance(one, np.ndarray):
        return (
            isinstance(other, np.ndarray)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.strides == other.strides
            and one.tobytes() == other.tobytes()
        )
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one):
            return math.isnan(other)
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return one == other


def _bits(tensor: torch.Tensor) -> bytes:
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
    return flat.view(tensor.shape).copy_(tensor).view(-1).view(torch.uint8).numpy().tobytes()


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(width=64)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers() | st.just("$"), inner, max_size=4)
        | st.dictionaries(st.tuples(st.integers(), st.text(max_size=2)), inner, max_size=2)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=6), plain, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_plain_state_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]
) -> None:
    assert same(round_trip(state, tmp_path_factory.mktemp("state")), state)


DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
    torch.complex128,
    torch.uint16,
]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = math.prod(shape)
    size = torch.empty(0, dtype=dtype).element_size()
    limit = 1 if dtype is torch.bool else 255
    raw = draw(
        st.lists(st.integers(0, limit), min_size=count * size, max_size=count * size).map(bytearray)
    )
    tensor = torch.empty(shape, dtype=dtype)
    if count:
        tensor = torch.frombuffer(raw, dtype=dtype).clone().view(shape)
    for step in draw(st.lists(st.sampled_from(["permute", "slice", "skip", "expand"]), max_size=2)):
        tensor = _viewed(tensor, step)
    return tensor


def _viewed(tensor: torch.Tensor, step: str) -> torch.Tensor:
    if tensor.dim() == 0 or len(tensor) == 0:
        return tensor
    if step == "permute":
        return tensor.permute(*reversed(range(tensor.dim())))
    if step == "slice":
        return tensor[1:]
    return tensor[::2] if step == "skip" else tensor[:1].expand(3, *tensor.shape[1:])


@given(st.lists(tensors(), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_tensor_comes_back_with_its_type_shape_and_stride(
    tmp_path_factory: pytest.TempPathFactory, many: list[torch.Tensor]
) -> None:
    state = {"many": many, "again": {1: many[0]}}
    loaded = round_trip(state, tmp_path_factory.mktemp("state"))
    assert same(loaded, state)


def test_tensors_that_share_memory_share_it_again(tmp_path: Path) -> None:
    weight = torch.randn(6, 4)
    flat = torch.arange(24.0)
    state = {
        "embed": weight,
        "head": weight,
        "turned": weight.t(),
        "left": flat[:12].view(3, 4),
        "right": flat[10:],
    }
    loaded = round_trip(state, tmp_path)
    assert same(loaded, state)
    loaded["embed"][0, 0] = 7.0
    assert loaded["head"][0, 0] == 7.0 and loaded["turned"][0, 0] == 7.0
    loaded["left"][2, 3] = -1.0
    assert loaded["right"][1] == -1.0


def test_a_view_saves_only_the_memory_that_it_covers(tmp_path: Path) -> None:
    save_state(tmp_path / "s", {"part": torch.zeros(1_000_000)[500_000:500_010]})
    assert (tmp_path / "s").stat().st_size < 2000


def test_channels_last_stays_channels_last(tmp_path: Path) -> None:
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    loaded = round_trip({"image": image}, tmp_path)["image"]
    assert loaded.is_contiguous(memory_format=torch.channels_last) and same(loaded, image)


def test_loaded_tensors_own_aligned_memory(tmp_path: Path) -> None:
    state = {f"t{n}": torch.randn(n) for n in range(1, 40)}
    loaded = round_trip(state, tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"gone")
    assert same(loaded, state)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.values())


def test_a_view_keeps_its_place_relative_to_the_alignment(tmp_path: Path) -> None:
    part = torch.randn(100)[37:]
    loaded = round_trip({"part": part}, tmp_path)["part"]
    assert loaded.data_ptr() % 64 == part.data_ptr() % 64


def test_arrays_and_their_scalars_come_back(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    state = {
        "c": array,
        "fortran": np.asfortranarray(array),
        "backwards": array[::-1, :, ::2],
        "wide": np.broadcast_to(np.float64(2.5), (3, 2)),
        "big endian": array.astype(">f8"),
        "empty": np.zeros((0, 3)),
        "nothing": np.array(2.5, dtype=np.float16),
        "flags": np.array([True, False]),
        "scalar": np.float32(0.1),
    }
    loaded = round_trip(state, tmp_path)
    assert same(loaded, state)
    assert type(loaded["scalar"]) is np.float32


def test_a_torch_training_state_comes_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)).bfloat16()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(8, 4, dtype=torch.bfloat16)).float().sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    loaded = round_trip(state, tmp_path)
    state["model"] = dict(OrderedDict(state["model"]))
    assert same(loaded, state)
    assert list(loaded["optimizer"]["state"]) == [0, 1, 2, 3]


def test_the_file_is_read_by_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = {"model": {"w": torch.randn(3, 2, dtype=torch.bfloat16), "b": torch.arange(3)}}
    save_state(tmp_path / "s.safetensors", {**state, "turned": torch.randn(2, 3).t()})
    read = load_file(tmp_path / "s.safetensors")
    assert same(read["model.w"], state["model"]["w"])
    assert same(read["model.b"], state["model"]["b"])


def test_a_state_without_tensors_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from ostinato.journal.state.checkpoint import save_state, load_state\n"
        f"save_state({str(tmp_path / 's')!r}, {{'a': [1, (2.5, None)]}})\n"
        f"assert load_state({str(tmp_path / 's')!r}) == {{'a': [1, (2.5, None)]}}\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object(), "a builtins.object"),
        ({1, 2}, "a builtins.set"),
        (np.array([object()]), "an array of object"),
        (torch.empty(2, device="meta"), "a tensor that is torch.strided on meta"),
        (lambda: 0, "a builtins.function"),
    ],
)
def test_what_cannot_be_saved_is_named_with_its_place(
    tmp_path: Path, value: object, what: str
) -> None:
    with pytest.raises(InputError, match=r"^state\['optimizer'\]\[3\]\[0\] must be .*got " + what):
        save_state(tmp_path / "s", {"optimizer": {3: [value]}})
    assert not list(tmp_path.iterdir())


def test_a_state_that_holds_itself_is_refused(tmp_path: Path) -> None:
    state: dict[str, object] = {}
    state["self"] = state
    with pytest.raises(InputError, match="must not hold itself"):
        save_state(tmp_path / "s", state)


def test_a_damaged_file_is_told_wherever_it_is_cut_or_changed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    saved = save_state(path, {"w": torch.arange(40), "n": 3})
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError, match="is damaged"):
            load_state(path)
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(RunError, match="is damaged"):
            load_state(path, crc=saved.crc)


def test_a_failed_write_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    save_state(path, {"n": 1})

    def no_room(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_room)
    with pytest.raises(RunError, match="No space left on device"):
        save_state(path, {"n": 2})
    monkeypatch.undo()
    assert load_state(path) == {"n": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["s"]
