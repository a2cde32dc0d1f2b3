"""Images from folders, IDX files and digits; messages name the file at fault."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ostinato.errors import InputError
from ostinato.image import hold_out, read_images
from ostinato.media import image_io


def idx(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def pets(folder: Path, side: int = 8) -> Path:
    """Two classes of three gray images each."""
    for shade, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for n in range(3):
            pixels = np.full((side, side), 100 * shade + n, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{n}.png")
    return folder


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    images = read_images([pets(tmp_path / "pets")])
    assert images.names == ("cat", "dog")
    assert images.labels is not None and images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (len(images), images.channels, images.size) == (6, 1, 8)
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert images.clean().min() == -1


def test_images_of_a_class_may_lie_deeper_and_hidden_ones_are_skipped(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    (folder / "dog").rename(folder / "batch1")
    (folder / "dog").mkdir()
    (folder / "batch1").rename(folder / "dog" / "batch1")
    for hidden in (".ipynb_checkpoints", "__MACOSX", "dog/.thumbnails"):
        (folder / hidden).mkdir()
        Image.new("L", (8, 8), 200).save(folder / hidden / "0.png")
    (folder / "cat" / "._0.png").write_bytes(b"what macOS keeps beside a file")
    images = read_images([folder])
    assert images.names == ("cat", "dog") and len(images) == 6
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    (folder / "owl").mkdir()
    (folder / "owl" / "1.heic").write_bytes(b"unreadable here")
    with pytest.warns(
        UserWarning, match=r"^owl/ in .*pets must hold images .* got none\. Left out"
    ):
        assert read_images([folder]).names == ("cat", "dog")


@pytest.mark.parametrize("level", ["train", "pets"])
def test_a_level_above_the_classes_is_not_taken_for_classes(level: str, tmp_path: Path) -> None:
    pets(tmp_path / level)
    if level == "train":
        pets(tmp_path / "test")
    with pytest.raises(
        InputError, match=rf"one level deeper\. Name one of them, such as .*{level}|t"
    ):
        read_images([tmp_path])


def test_one_color_image_makes_all_of_them_color(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 9).save(tmp_path / "0.png")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "1.png")
    assert read_images([tmp_path]).pixels[:, :, 0, 0].tolist() == [[9, 9, 9], [1, 2, 3]]


def test_images_are_scaled_and_colored(tmp_path: Path) -> None:
    images = read_images([pets(tmp_path / "pets", 20)], size=10, gray=False)
    assert (images.channels, images.size) == (3, 10)
    assert images.pixels[4, :, 0, 0].tolist() == [101, 101, 101]


def test_idx_files_are_read_in_either_order_and_packed(tmp_path: Path) -> None:
    pixels = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx(pixels)))
    (tmp_path / "labels").write_bytes(idx(np.array([7, 3, 7], np.uint8)))
    images = read_images([tmp_path / "labels", tmp_path / "images.gz"])
    assert np.array_equal(images.pixels[:, 0].numpy(), pixels)
    assert images.names == ("3", "7")
    assert images.labels is not None and images.labels.tolist() == [1, 0, 1]


def test_digits_are_those_of_scikit_learn() -> None:
    images = read_images(["digits-8x8"])
    assert (len(images), images.size, len(images.names)) == (1797, 8, 10)


def test_what_is_held_out_depends_on_the_seed_alone(tmp_path: Path) -> None:
    images = read_images(["digits-8x8"])
    train, valid = hold_out(images, 0.2, seed=1)
    assert (len(train), len(valid)) == (1438, 359)
    assert torch.equal(valid.pixels, hold_out(images, 0.2, seed=1)[1].pixels)
    assert valid.fingerprint() != hold_out(images, 0.2, seed=2)[1].fingerprint()


def test_messages_name_the_file_at_fault(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no image")
    (tmp_path / "short").write_bytes(idx(np.zeros((2, 8, 8), np.uint8))[:-1])
    (tmp_path / "images").write_bytes(idx(np.zeros((3, 8, 8), np.uint8)))
    (tmp_path / "labels").write_bytes(idx(np.zeros(2, np.uint8)))
    (tmp_path / "flat").write_bytes(idx(np.zeros((3, 8, 0), np.uint8)))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(idx(np.zeros((3, 8, 8), np.uint8)))[:-9])
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(idx(np.zeros((2, 8, 8), np.uint8)) + b"\0"))
    (tmp_path / "huge").write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)
    damaged = bytearray(gzip.compress(idx(np.arange(192, dtype=np.uint8).reshape(3, 8, 8))))
    damaged[30] ^= 0xFF
    (tmp_path / "damaged.gz").write_bytes(damaged)
    wrong = [
        ([tmp_path / "empty"], "empty must hold images"),
        ([tmp_path / "none"], "none must exist, got no such file or folder"),
        ([tmp_path / "text"], "text must be an IDX file of bytes"),
        ([tmp_path / "flat"], r"flat must hold 1 to .* values, got the sizes \(3, 8, 0\)"),
        ([tmp_path / "huge"], "huge must hold 1 to 4,294,967,296 values"),
        ([tmp_path / "cut.gz"], "cut.gz must be readable, got: .*Download the file again"),
        ([tmp_path / "damaged.gz"], "damaged.gz must be readable, got: .*Download"),
        ([tmp_path / "bomb.gz"], "bomb.gz must hold 128 values.*got more"),
        ([tmp_path / "short"], "short must hold 128 values.*got 127"),
        ([tmp_path / "images", tmp_path / "labels"], "labels must have a label for each of the 3"),
        ([folder, folder], "A folder of images must be given alone"),
        ([], "got nothing"),
    ]
    for sources, message in wrong:
        with pytest.raises(InputError, match=message):
            read_images(sources)
    with pytest.raises(InputError, match="size must be 8 to 64 pixels, got 65"):
        read_images([folder], size=65)
    (folder / "cat" / "3.png").write_text("broken")
    with pytest.raises(InputError, match=r"3\.png must be an image, got"):
        read_images([folder])
    Image.new("L", (9, 9)).save(folder / "cat" / "3.png")
    with pytest.raises(InputError, match=r"3\.png must be of the first image's size, 8 x 8, got 9"):
        read_images([folder])
    Image.new("L", (8, 8)).save(folder / "loose.png")
    with pytest.raises(InputError, match=r"either images or sub-folders.*loose\.png"):
        read_images([folder])


@pytest.mark.parametrize("read_gray", [None, True])
def test_images_of_16_bits_keep_their_shades(tmp_path: Path, read_gray: bool | None) -> None:
    """Pillow's conversion to 8 bits makes everything above 255 of 65,535 white."""
    for n in range(2):
        shades = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
        Image.fromarray(shades).save(tmp_path / f"{n}.png")
    images = read_images([tmp_path], gray=read_gray)
    assert images.channels == 1
    assert images.pixels[0].flatten().tolist() == [int(v) // 256 for v in shades.flatten()]
    single = image_io.read(tmp_path / "0.png", channels=1, size=8)
    assert torch.equal(single, images.clean()[0])


def test_the_name_of_the_shipped_model_is_no_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"28 x 28 pixels. The scans of 8 x 8 are 'digits-8x8'"):
        read_images(["digits"])
