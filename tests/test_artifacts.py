"""Pictures, sounds and larger tensors: stored once by their hash, and read back bit for bit."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ostinato.errors import InputError, RunError
from ostinato.journal import (
    Artifact,
    Journal,
    Run,
    Sound,
    Unchanging,
    shortened,
    tensor_of,
    with_tensors,
)

DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.uint8, torch.int8, torch.int16, torch.int64, torch.bool),
    *(torch.complex64, torch.complex128),
)
SHAPE = (3, 64, 64)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as opened:
        yield opened


def numbers(dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=generator) * 50).to(dtype)


def photo(side: int, channels: int = 3) -> torch.Tensor:
    """Return smooth uint8 pixels (C, side, side) with a little noise."""
    y, x = torch.meshgrid(torch.linspace(0, 3, side), torch.linspace(0, 2, side), indexing="ij")
    waves = torch.stack([(torch.sin(x * n + y) + 1) * 120 for n in range(1, channels + 1)])
    return (waves + numbers(shape=(channels, side, side)) / 25).clamp(0, 255).to(torch.uint8)


def recorded(journal: Journal, name: str = "a", **report: Any) -> Run:
    """Record one step, and a result of the same values."""
    run = journal.create(name, kind="test")
    with journal.drive(run) as session:
        session.step(1, 1, report)
        session.result("key", report)
        session.flush()
    return run


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    whole = a.dtype is b.dtype and a.shape == b.shape
    return whole and bytes(content(a)) == bytes(content(b))


def content(tensor: torch.Tensor) -> bytes:
    flat = tensor.contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def rows_of(run: Run, table: str = "artifacts") -> int:
    return int(run.database.query(f"SELECT COUNT(*) FROM {table}")[0][0])


def files_of(journal: Journal) -> list[Path]:
    return sorted((journal.path.parent / "artifacts").glob("*"))


# Bit for bit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_and_form_come_back_bit_for_bit(
    dtype: torch.dtype, journal: Journal
) -> None:
    tensor = numbers(dtype)
    forms: dict[str, Any] = {
        "whole": tensor,
        "turned": tensor.mT,
        "gaps": tensor[:, ::2, 1::3],
        "repeated": tensor[:1].expand(2, 64, 64),
        "row": tensor.reshape(-1)[:300],
        "large": numbers(dtype, (200_000,)),
        "empty": tensor[:0],
        "none": torch.empty(0, 3, 9, dtype=dtype),
    }
    run = recorded(journal, **forms)
    (step,) = run.steps()
    for found in (step.report, dict(run.results())["key"]):
        for name, given in forms.items():
            assert same(tensor_of(found[name]), given), name


def test_not_a_number_infinities_and_zeros_keep_their_bits(journal: Journal) -> None:
    tensor = torch.full(SHAPE, float("nan"))
    tensor[0, 0, :3] = torch.tensor([float("inf"), -0.0, 1e-45])
    tensor.view(torch.int32)[1] = 0x7FC0_1234  # another NaN
    (step,) = recorded(journal, x=tensor).steps()
    assert same(tensor_of(step.report["x"]), tensor)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i2", "|u1", "<f8", "|b1", "<c8"])
def test_arrays_come_back_bit_for_bit(dtype: str, journal: Journal) -> None:
    array = numbers().numpy().astype(dtype)[:, ::-1]
    (step,) = recorded(journal, x=array).steps()
    back = step.report["x"].array()
    assert np.array_equal(back, array) and back.dtype == np.dtype(dtype).newbyteorder("<")


@pytest.mark.parametrize(
    "shape",
    [(3, 64, 64), (1, 64, 64), (4, 20, 31), (64, 64), (33, 70, 3), (9, 40, 1), (3, 700, 300)],
)
@pytest.mark.parametrize("filling", ["photo", "noise", "flat"])
def test_pixels_are_kept_as_a_png_that_any_reader_opens(
    shape: tuple[int, ...], filling: str, journal: Journal
) -> None:
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator())
    pixels = {"noise": noise, "flat": noise * 0 + 7, "photo": noise // 40 + 90}[filling]
    (step,) = recorded(journal, x=pixels).steps()
    assert same(tensor_of(step.report["x"]), pixels)
    coding, file, stored = journal._database.query("SELECT coding, file, content FROM artifacts")[0]
    png = stored if file is None else (files_of(journal)[0]).read_bytes()
    shown = torch.from_numpy(np.array(Image.open(io.BytesIO(png))))
    channels_first = shown.permute(2, 0, 1) if shown.dim() == 3 and shape[-1] != 3 else shown
    assert coding == "png" and torch.equal(channels_first.reshape(shape), pixels)


@pytest.mark.parametrize("side", [64, 256])
def test_an_image_takes_no_more_than_its_png(side: int, journal: Journal) -> None:
    pixels = photo(side)
    run = recorded(journal, x=pixels)
    png = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(png, "PNG")
    (row,) = run.artifacts()
    assert row.bytes <= 1.05 * len(png.getvalue()) < pixels.numel()
    (text,) = run.database.query("SELECT row FROM results")[0]
    assert len(text) < 150  # and no list of numbers


def test_small_tensors_are_lists_and_a_text_alone_makes_no_artifact(journal: Journal) -> None:
    run = recorded(journal, text="a", ids=[1, 2], small=torch.ones(2, 2), number=torch.tensor(2.5))
    (step,) = run.steps()
    assert step.report["small"] == [[1.0, 1.0], [1.0, 1.0]] and step.report["number"] == 2.5
    assert torch.equal(tensor_of(step.report["small"]), torch.ones(2, 2))
    assert run.artifacts() == [] and files_of(journal) == []


# Once -----------------------------------------------------------------------------------------


def test_the_same_content_is_stored_once_for_all_runs(journal: Journal) -> None:
    first = recorded(journal, "a", x=numbers(), y=numbers())
    again = recorded(journal, "b", z=numbers())
    assert rows_of(first) == 1 and rows_of(first, "artifact_uses") == 2
    (step,), (other,) = first.steps(), again.steps()
    assert step.report["x"] == step.report["y"] == other.report["z"]
    # The type and the shape belong to the content: these bytes mean something else.
    assert (
        recorded(journal, "c", x=numbers().view(64, 3, 64)).artifacts()[0].artifact
        != (step.report["x"])
    )


def test_a_value_of_one_run_is_shared_by_another_that_records_it(journal: Journal) -> None:
    (step,) = recorded(journal, "a", x=numbers()).steps()
    row = {"again": step.report["x"]}
    other = recorded(journal, "b", **row)
    journal.delete("a")
    assert same(tensor_of(dict(other.results())["key"]["again"]), numbers())
    assert [each.source for each in other.artifacts()] == ["result"]


def test_a_tensor_that_is_changed_in_place_is_another_artifact(journal: Journal) -> None:
    run, tensor = journal.create("a", kind="test"), numbers()
    with journal.drive(run) as session:
        session.step(1, 1, {"x": tensor})
        session.flush()
        before = tensor.clone()
        tensor[0, 0, 0] = 7.0  # a program that does not keep to the rule
        session.step(2, 2, {"x": tensor})
    first, second = (tensor_of(step.report["x"]) for step in run.steps())
    assert same(first, before) and same(second, tensor)


def test_artifacts_tell_where_they_came_from_and_the_size_of_a_run_counts_them(
    journal: Journal,
) -> None:
    run = recorded(journal, x=photo(64))
    small = recorded(journal, "b", text="a")
    (row,) = run.artifacts()
    assert (row.source, row.key, row.tick) == ("result", "key", 1)
    assert (row.artifact.kind, row.artifact.shape, row.artifact.dtype) == ("image", SHAPE, "uint8")
    sizes = {each.row.name: each.bytes for each in journal.summaries()}
    assert sizes["a"] > row.bytes > sizes["b"] and small.artifacts() == []
    assert run.artifact(row.artifact.hash[:8]) == row.artifact
    with pytest.raises(RunError, match=r"must be one of .*, got '12', which is that of none"):
        run.artifact("12")


def test_the_answer_of_a_call_can_hold_a_picture(journal: Journal) -> None:
    run, made = journal.create("a", kind="test"), 0

    def draw() -> dict[str, torch.Tensor]:
        nonlocal made
        made += 1
        return {"image": photo(64)}

    for _ in range(2):
        with journal.drive(run) as session:
            answer: Any = session.call("draw", draw)
            assert same(tensor_of(answer["image"]), photo(64))
            session.checkpoint(1, 1, {})
    assert made == 1
    assert [(row.source, row.key) for row in run.artifacts()] == [("call", "draw")]
    branch = journal.branch(run, "b")
    journal.delete("a")
    (call,) = branch.calls()
    answer = call.answer
    assert same(tensor_of(answer["image"]), photo(64))


# Deletion -------------------------------------------------------------------------------------


def branched(journal: Journal) -> tuple[Run, Run, torch.Tensor, torch.Tensor]:
    """Return a run and its branch, which holds a result and a state of it, and these two."""
    run, result, state = journal.create("a", kind="test"), photo(512), numbers()
    with journal.drive(run) as session:
        session.step(1, 1, {"x": numbers(torch.float64)})
        session.result("one", {"output": result})
        session.checkpoint(1, 1, {"lane": Unchanging(past=[{"x": state}])})
        session.step(2, 2, {"x": numbers(torch.int16)})
        session.result("two", {"output": photo(64)})
    return run, journal.branch(run, "b"), result, state


def test_a_branch_keeps_what_it_shares_with_a_run_that_is_deleted(journal: Journal) -> None:
    run, branch, result, state = branched(journal)
    assert rows_of(run) == 5 and len(files_of(journal)) == 1
    journal.delete("a")
    assert rows_of(branch) == 2  # not those of the parent's steps and later results
    assert same(tensor_of(dict(branch.results())["one"]["output"]), result)
    found = branch.load()
    assert found is not None and same(found[1]["lane"]["past"][0]["x"], state)
    journal.delete("b")
    assert rows_of(branch) == rows_of(branch, "artifact_uses") == 0 and files_of(journal) == []


def test_deleting_a_branch_takes_nothing_from_its_parent(journal: Journal) -> None:
    run, branch, _, state = branched(journal)
    journal.delete(branch.name)
    found = run.load()
    assert rows_of(run) == 5 and len(files_of(journal)) == 1
    assert found is not None and same(found[1]["lane"]["past"][0]["x"], state)


def test_an_artifact_is_read_also_after_its_journal_was_closed(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        row = dict(recorded(journal, output=numbers()).results())["key"]
    assert same(tensor_of(row["output"]), numbers())
    with Journal(tmp_path / "journal.db") as journal:
        journal.delete("a")
    with pytest.raises(RunError, match="the runs that held it were deleted"):
        tensor_of(row["output"])


# Damage, full disks and kills -----------------------------------------------------------------


@pytest.mark.parametrize("pixels", [photo(64), photo(512), numbers(), numbers(shape=(90_000,))])
@pytest.mark.parametrize("how", ["changed", "cut", "gone"])
def test_a_damaged_artifact_is_told(pixels: torch.Tensor, how: str, journal: Journal) -> None:
    run = recorded(journal, x=pixels)
    (step,) = run.steps()
    (stored,) = journal._database.query("SELECT content FROM artifacts")[0]
    stored = stored or files_of(journal)[0].read_bytes()
    middle = len(stored) // 2
    spoiled = {
        "changed": stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :],
        "cut": stored[:middle],
        "gone": b"",
    }[how]
    if files_of(journal):
        files_of(journal)[0].write_bytes(spoiled)
        if how == "gone":
            files_of(journal)[0].unlink()
    else:
        with journal._database.write() as connection:
            connection.execute("UPDATE artifacts SET content = ?", (spoiled,))
    with pytest.raises(RunError, match=r"(is damaged: |could not be read: ).*Restore the journal"):
        tensor_of(step.report["x"])


def test_a_row_cannot_lead_out_of_the_folder(journal: Journal, tmp_path: Path) -> None:
    (step,) = recorded(journal, x=photo(512)).steps()
    with journal._database.write() as connection:
        connection.execute("UPDATE artifacts SET file = '../journal.db'")
    with pytest.raises(RunError, match="must be a file of the journal's folder"):
        tensor_of(step.report["x"])


def test_on_a_full_disk_nothing_acknowledged_is_lost(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = journal.create("a", kind="test")

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    session = journal.drive(run)
    session.step(1, 1, {"x": photo(512)})
    session.result("one", {"x": photo(256)})
    session.flush()
    monkeypatch.setattr(os, "fsync", full)
    session.step(2, 2, {"x": photo(600)})
    with pytest.raises(RunError, match=r"could not be written: No space left.*make room"):
        session.flush()
    with pytest.raises(RunError, match="No space left"):
        session.close()
    monkeypatch.undo()
    assert len(files_of(journal)) == 1 and rows_of(run) == 2  # nothing half, nothing lost
    assert same(tensor_of(dict(run.results())["one"]["x"]), photo(256))
    with journal.drive(run) as session:
        session.step(2, 2, {"x": photo(600)})
    for step, side in zip(run.steps(), (512, 600), strict=True):
        assert same(tensor_of(step.report["x"]), photo(side))


KILLED = """
import os, signal, sys
import torch
from ostinato.journal import Journal
from ostinato.journal.artifacts import tables as artifact_tables

write = artifact_tables.ArtifactWriter._write
def killed(self, *arguments):
    write(self, *arguments)
    os.kill(os.getpid(), signal.SIGKILL)

with Journal(sys.argv[1]) as journal, journal.drive(journal.get("a")) as session:
    session.step(1, 1, {"x": torch.arange(300_000)})
    session.flush()
    artifact_tables.ArtifactWriter._write = killed
    session.step(2, 2, {"x": torch.randn(300_000)})
    session.flush()
"""


def test_a_kill_between_a_file_and_its_row_leaves_no_reference_and_no_file(
    journal: Journal,
) -> None:
    run = journal.create("a", kind="test")
    done = subprocess.run([sys.executable, "-c", KILLED, str(journal.path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [step.tick for step in run.steps()] == [1] and len(files_of(journal)) == 2
    with journal.drive(run):
        assert len(files_of(journal)) == 1
    (step,) = run.steps()
    assert torch.equal(tensor_of(step.report["x"]), torch.arange(300_000))


HAMMER = """
import sys
import torch
from ostinato.journal import Journal

def picture(n, side):
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator)

with Journal(sys.argv[1]) as journal, journal.drive(journal.get("a")) as session:
    n = journal.get("a").tick
    print("driven", flush=True)
    while True:
        n += 1
        session.step(n, n, {"small": picture(n, 20), "large": picture(n, 300)})
        session.result(f"{n}", {"output": picture(-n, 250)})
        session.flush()
        print(n, flush=True)
"""


@pytest.mark.slow
def test_random_kills_lose_no_acknowledged_picture_and_leave_no_file(journal: Journal) -> None:
    def picture(n: int, side: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(n)
        return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator)

    run, rng = journal.create("a", kind="test"), random.Random(0)
    acknowledged: set[int] = set()
    for _ in range(6):
        command = [sys.executable, "-c", HAMMER, str(journal.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None and child.stdout.readline() == "driven\n"
            time.sleep(rng.uniform(0.02, 0.3))
            child.kill()
            told = [int(line) for line in child.stdout.read().splitlines()]
        acknowledged.update(told)
        results = dict(run.results())
        # A step may be committed, and its result not: the next child begins after that step.
        assert acknowledged <= set(map(int, results))
        assert acknowledged <= {step.tick for step in run.steps()}
        for key, row in results.items():
            assert torch.equal(tensor_of(row["output"]), picture(-int(key), 250))
        for step in run.steps():
            assert torch.equal(tensor_of(step.report["small"]), picture(step.tick, 20))
            assert torch.equal(tensor_of(step.report["large"]), picture(step.tick, 300))
    assert acknowledged
    with journal.drive(run):
        rows = journal._database.query("SELECT file FROM artifacts WHERE file IS NOT NULL")
        assert sorted(path.name for path in files_of(journal)) == sorted(row[0] for row in rows)
    journal.delete("a")
    assert files_of(journal) == []


# Older journals -------------------------------------------------------------------------------


def test_steps_and_results_of_older_forms_are_read_and_repeat_without_a_difference(
    journal: Journal,
) -> None:
    """Lists, bytes in base64, and the shape alone are what schema 4 held."""
    from ostinato.journal.encoding import encode_exactly
    from ostinato.journal.sqlite.columns import encode_block

    run = journal.create("a", kind="test")
    report = {
        "list": numbers(shape=(4, 9, 99)),
        "bytes": numbers(),
        "crc": numbers(shape=(1 << 19,)),
    }
    result = {"output": numbers()}
    with journal._database.write() as connection:
        block = encode_block([(1, 1, report)])
        connection.execute(
            "INSERT INTO steps (run, first, last, seq, data) VALUES (?, 1, 1, 1, ?)",
            (run.id, block),
        )
        connection.execute(
            "INSERT INTO results VALUES (?, 'key', 1, 1, ?, 0)",
            (run.id, encode_exactly(result, "")),
        )
        connection.execute("UPDATE runs SET tick = 1, position = 1, seq = 2")
    (step,) = run.steps()
    assert torch.equal(tensor_of(step.report["list"]), report["list"])
    assert same(tensor_of(step.report["bytes"]), report["bytes"])
    with pytest.raises(RunError, match="got only its shape"):
        tensor_of(step.report["crc"])
    with journal.drive(run) as session:
        session.step(1, 1, report)
        session.result("key", result)
        session.flush()
        assert session.differences == 0
        session.result("key", {"output": numbers() + 1})
        session.flush()
        assert session.differences == 1


def test_a_repetition_that_differs_in_one_element_is_told(journal: Journal) -> None:
    run = recorded(journal, x=numbers())
    changed = numbers()
    changed[-1, -1, -1] = 1e-7
    with journal.drive(run) as session:
        session.step(1, 1, {"x": numbers()})
        session.result("key", {"x": numbers()})
        session.flush()
        assert session.differences == 0
        session.step(1, 1, {"x": changed})
        session.result("key", {"x": changed})
        session.flush()
        assert session.differences == 2
    assert rows_of(run) == 1  # a repetition is compared, not stored


# Checkpoints ----------------------------------------------------------------------------------


def test_a_state_of_lanes_is_exact_down_to_the_order_in_memory(journal: Journal) -> None:
    x = numbers()
    past: list[dict[str, Any]] = [
        {
            "whole": x,
            "turned": x.mT,
            "last": x.permute(1, 2, 0),
            "one": x[:1].as_strided((1, 64, 64), (7, 64, 1)),
            "gaps": x[:, ::2],
        },
        {"array": x.numpy(), "order": np.asfortranarray(x.numpy()), "small": torch.ones(3)},
        {"sound": Sound(x.reshape(-1, 2).clamp(-1, 1), 8000), "half": x.bfloat16(), "n": 1.5},
    ]
    run = journal.create("a", kind="test")
    with journal.drive(run) as session:
        session.checkpoint(1, 1, {"lane": Unchanging(past=past), "weights": numbers()})
    found = run.load()
    assert found is not None
    row, state = found
    back = state["lane"]["past"]
    for given, now in zip(past[:2], back[:2], strict=True):
        for name, value in given.items():
            assert type(now[name]) is type(value) and now[name].shape == value.shape, name
            strides = [
                each.stride() if name not in ("array", "order") else each.strides
                for each in (now[name], value)
            ]
            assert strides[0] == strides[1], name
            assert torch.equal(torch.as_tensor(now[name]), torch.as_tensor(value)), name
    assert back[2]["sound"].rate == 8000 and same(back[2]["half"], x.bfloat16())
    assert same(state["weights"], x)  # what may change is in the file itself
    assert row.bytes < 150_000  # the weights, and two whose order in memory has gaps or is turned
    assert {each.source for each in run.artifacts()} == {"checkpoint"}


def test_a_missing_artifact_of_a_checkpoint_gives_way_to_an_older_one(journal: Journal) -> None:
    run = journal.create("a", kind="test")
    with journal.drive(run) as session:
        session.checkpoint(1, 1, {"lane": Unchanging(x=photo(512))})
        session.checkpoint(2, 2, {"lane": Unchanging(x=photo(600))})
    names = {row.artifact.shape[1]: row.artifact.hash for row in run.artifacts()}
    next(path for path in files_of(journal) if names[600] in path.name).unlink()
    with pytest.warns(UserWarning, match="could not be read.*An older checkpoint is used"):
        found = run.load()
    assert found is not None and found[0].tick == 1


# Pictures and files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tensor",
    [photo(64), photo(500, 1), photo(300)[:, :40], photo(40).float() / 127.5 - 1, numbers()],
)
def test_a_preview_is_a_small_png(tensor: torch.Tensor, journal: Journal) -> None:
    (row,) = recorded(journal, x=tensor).artifacts()
    preview = row.artifact.preview(96)
    assert preview is not None
    image = Image.open(io.BytesIO(preview))
    assert row.artifact.kind == "image" and max(image.size) <= 96 and min(image.size) >= 10
    assert image.mode == ("L" if tensor.size(0) == 1 else "RGB")
    assert len(np.unique(np.array(image))) > 20  # it shows something, also where it is noise


def test_a_sound_comes_back_and_is_shown_and_heard(journal: Journal, tmp_path: Path) -> None:
    samples = torch.sin(torch.arange(8000) / 5)[:, None].repeat(1, 2)
    run = recorded(journal, sound=Sound(samples, 8000))
    (row,) = run.artifacts()
    found = with_tensors(dict(run.results())["key"])["sound"]
    assert isinstance(found, Sound) and found.rate == 8000 and same(found.samples, samples)
    preview = Image.open(io.BytesIO(row.artifact.preview() or b""))
    assert preview.size == (96, 32) and np.array(preview).min() < 50
    with wave.open(str(row.artifact.save(tmp_path / "a.wav"))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 8000)
    with pytest.raises(InputError, match=r"of this sound must end in \.wav or \.safetensors"):
        row.artifact.save(tmp_path / "a.png")
    with pytest.raises(InputError, match="rate of a sound must be"):
        Sound(samples, 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_is_written_as_safetensors(
    dtype: torch.dtype, journal: Journal, tmp_path: Path
) -> None:
    tensor = numbers(dtype, (40, 50))
    (row,) = recorded(journal, x=tensor).artifacts()
    assert row.artifact.preview() is None or dtype is torch.uint8
    back = load_file(row.artifact.save(tmp_path / "new" / "x.safetensors"))["artifact"]
    assert same(torch.view_as_complex(back) if dtype.is_complex else back, tensor)


def test_a_report_for_the_eyes_names_its_artifacts(journal: Journal) -> None:
    (step,) = recorded(journal, lanes=[{"x": numbers()}]).steps()
    reference: Any = step.report["lanes"][0]["x"]
    assert isinstance(reference, Artifact)
    assert shortened(step.report) == {
        "lanes": [
            {
                "x": {
                    "artifact": reference.hash,
                    "kind": "image",
                    "dtype": "float32",
                    "shape": [3, 64, 64],
                }
            }
        ]
    }
    with pytest.raises(RunError, match=r"must come from a journal.*Run\.artifact\(hash\)"):
        tensor_of(dict(reference))


def test_keys_do_not_lead_files_out_of_the_folder(journal: Journal, tmp_path: Path) -> None:
    from ostinato.cli.runs.artifacts import write_all

    run = journal.create("a", kind="test")
    with journal.drive(run) as session:
        for key in ("../../up", "/root", "a/b", "", "..", "con"):
            session.result(key, {"x": photo(64), "key": torch.full((300,), float(len(key)))})
    paths = write_all(run.artifacts(), tmp_path / "out")
    assert all(path.parent == tmp_path / "out" and path.is_file() for path in paths)
    assert len(set(paths)) == len(paths) == 1 + 5
    assert sorted(os.listdir(tmp_path / "out")) == sorted(path.name for path in paths)
