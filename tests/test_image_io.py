"""Images as files and in the terminal."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from ostinato.errors import InputError
from ostinato.image import read_images
from ostinato.media import image_io


def ramp(channels: int = 1, size: int = 8) -> torch.Tensor:
    return torch.linspace(-1, 1, channels * size * size).view(channels, size, size)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_saved_image_is_read_back(tmp_path: Path, channels: int) -> None:
    image = ramp(channels)
    image_io.save(image, tmp_path / "new" / "a.png", side=image_io.SHOWN)
    found = image_io.read(tmp_path / "new" / "a.png", channels=channels, size=8)
    torch.testing.assert_close(found, image, atol=1 / 127, rtol=0)


def test_small_images_are_enlarged_by_whole_factors(tmp_path: Path) -> None:
    with Image.open(image_io.save(ramp(), tmp_path / "a.png", side=8)) as image:
        assert image.size == (112, 112)


def test_a_read_image_is_its_middle_square(tmp_path: Path) -> None:
    wide = torch.full((1, 8, 16), -1.0)
    wide[:, :, 4:12] = 1.0
    image_io.save(wide, tmp_path / "wide.png", side=image_io.SHOWN)
    assert torch.equal(
        image_io.read(tmp_path / "wide.png", channels=1, size=4), torch.ones(1, 4, 4)
    )


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    for name in ("a.png", "none.png"):
        with pytest.raises(InputError, match=f"{name} must be an image, got"):
            image_io.read(tmp_path / name, channels=1, size=8)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
GRADIENT = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
SHADES = (GRADIENT >> 8).astype(np.uint8)


def png(depth: int, color: int, rows: np.ndarray[Any, Any], extra: bytes = b"") -> bytes:
    """A PNG of samples that Pillow cannot write, such as gray with alpha of 16 bits."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc32(kind + body))

    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", rows.shape[1], len(rows), depth, color, 0, 0, 0)
    middle = chunk(b"tRNS", extra) if extra else b""
    end = chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + end


def saved(image: Image.Image, kind: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def alpha(mode: str) -> Image.Image:
    """Black, whose right half is transparent."""
    image = Image.new(mode, (8, 8), (0,) * (len(mode) - 1) + (255,))
    image.paste((0,) * len(mode), (4, 0, 8, 8))
    return image


HALF_WHITE = np.where(np.arange(8) < 4, 0, 255).astype(np.uint8)[None].repeat(8, 0)
WITH_ALPHA = np.stack([np.zeros((8, 8)), np.where(HALF_WHITE, 0, 65535)], -1).astype(">u2")


@pytest.mark.parametrize(
    ("name", "content", "pixels"),
    [
        ("16.png", saved(Image.fromarray(GRADIENT), "PNG"), SHADES),
        ("16.tif", saved(Image.fromarray(GRADIENT), "TIFF"), SHADES),
        ("16-be.tif", saved(Image.fromarray(GRADIENT.astype(">u2")), "TIFF"), SHADES),
        ("16.pgm", b"P5 8 8 65535\n" + GRADIENT.astype(">u2").tobytes(), SHADES),
        ("dark.pgm", b"P5 1 1 65535\n\x00\xff", [[0]]),  # dark, not white: 255 of 65,535
        ("4.pgm", b"P5 2 1 15\n\x00\x0f", [[0, 255]]),
        ("1.png", saved(Image.fromarray(HALF_WHITE > 0), "PNG"), HALF_WHITE),
        ("la.png", saved(alpha("LA"), "PNG"), HALF_WHITE),
        ("la16.png", png(16, 4, WITH_ALPHA), HALF_WHITE),
        ("key16.png", png(16, 0, GRADIENT.astype(">u2"), b"\0\0"), np.where(SHADES, SHADES, 255)),
        ("gray-palette.gif", saved(Image.fromarray(HALF_WHITE).convert("P"), "GIF"), HALF_WHITE),
        ("cmyk.jpg", saved(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG"), 0 * SHADES),
    ],
)
def test_a_gray_image_keeps_its_shades_whatever_its_depth_and_alpha(
    name: str, content: bytes, pixels: Any, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    found = image_io.read_pixels(tmp_path / name)
    assert found.dtype == np.uint8 and found.tolist() == np.asarray(pixels).tolist()


@pytest.mark.parametrize("mode", ["RGBA", "PA", "P"])
def test_a_color_image_lies_on_its_background(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    if mode != "RGBA":
        image = image.quantize(4) if mode == "P" else image.convert("P").convert("PA")
    path = tmp_path / "a.png"
    image.convert("RGBA" if mode == "PA" else mode).save(path)
    assert image_io.read_pixels(path).tolist() == [[[200, 0, 0], [255, 255, 255]]]
    assert image_io.read_pixels(path, background=0).tolist() == [[[200, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_stands_upright_as_pillow_turns_it(
    orientation: int, kind: str, tmp_path: Path
) -> None:
    image = Image.new("RGB", (32, 16), "black")
    image.paste((255, 0, 0), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(tmp_path / "a", kind, exif=exif)
    with Image.open(tmp_path / "a") as opened:
        expected = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    found = image_io.read_pixels(tmp_path / "a")
    assert found.shape == ((32, 16, 3) if orientation > 4 else (16, 32, 3))
    assert np.array_equal(found, expected)


def test_a_damaged_note_on_orientation_does_not_matter(tmp_path: Path) -> None:
    Image.new("L", (4, 2)).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert image_io.read_pixels(tmp_path / "a.png").shape == (2, 4)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (saved(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"), "no whole numbers of 8 or"),
        (saved(Image.fromarray(np.zeros((8, 8), np.int32)), "TIFF"), "no whole numbers of 8 or 16"),
        (saved(Image.fromarray(NOISE), "PNG")[:1000], "image file is truncated"),
        (b"", "another kind of file"),
    ],
)
def test_what_cannot_be_shown_right_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.png must be an image, got: .*{told}"):
        image_io.read_pixels(tmp_path / "a.png")


def test_too_many_pixels_are_refused_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (30, 10)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # Pillow warns of more, and refuses twice
    assert image_io.read_pixels(tmp_path / "a.png").shape == (10, 30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"a\.png must have at most 200 pixels, got more"):
        image_io.read_pixels(tmp_path / "a.png")


def test_an_image_is_read_as_a_training_reads_it(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for n in range(2):
        pixels = generator.integers(0, 256, (20, 30, 4), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
    for channels in (1, 3):
        trained = read_images([tmp_path], size=12, gray=channels == 1).clean()
        single = image_io.read(tmp_path / "1.png", channels=channels, size=12)
        assert torch.equal(single, trained[1])


def test_tiles_stand_in_rows_and_short_rows_are_filled() -> None:
    white, black = torch.ones(1, 2, 2), -torch.ones(1, 2, 2)
    picture = image_io.tiled([[white, black], [white]])
    assert torch.equal(
        picture[0], torch.tensor([[1, 1, -1, -1]] * 2 + [[1, 1, -1, -1]] * 2).float()
    )
    assert [len(row) for row in image_io.in_grid([white] * 10)] == [3, 3, 3, 1]
    apart = image_io.tiled([[black, black], [black]], gutter=1)
    dark, light = [-1, -1, 1, -1, -1], [1, 1, 1, 1, 1]
    assert apart[0].tolist() == [dark, dark, light, *[[-1, -1, 1, 1, 1]] * 2]
    with pytest.raises(InputError, match="at least one image"):
        image_io.tiled([])


def test_a_gif_has_all_frames_and_rests_on_the_last(tmp_path: Path) -> None:
    frames = [ramp() * share for share in (0.2, 0.6, 1.0)]
    with Image.open(image_io.save_gif(frames, tmp_path / "a.gif", side=8)) as image:
        assert getattr(image, "n_frames", 1) == 3
        image.seek(0)
        first = image.info["duration"]
        image.seek(2)
        assert image.info["duration"] > first


def test_the_terminal_gets_two_pixels_a_character() -> None:
    lines = image_io.for_terminal(torch.tensor([[[-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]])).split(
        "\n"
    )
    assert len(lines) == 2
    assert lines[0].count("▀") == 2
    assert lines[0].startswith("\x1b[38;2;0;0;0;48;2;255;255;255m▀")
    assert all(line.endswith("\x1b[0m") for line in lines)
