"""Images as files and in the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from ostinato.errors import InputError
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


def test_tiles_stand_in_rows_and_short_rows_are_filled() -> None:
    white, black = torch.ones(1, 2, 2), -torch.ones(1, 2, 2)
    picture = image_io.tiled([[white, black], [white]])
    assert torch.equal(
        picture[0], torch.tensor([[1, 1, -1, -1]] * 2 + [[1, 1, -1, -1]] * 2).float()
    )
    assert [len(row) for row in image_io.in_grid([white] * 10)] == [3, 3, 3, 1]
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
