from .audio_io import save_wav
from .curves import Series, moving_mean, save_curves
from .idx import idx_images, read_idx
from .image_io import (
    IMAGE_SUFFIXES,
    UInt8Array,
    gutter_of,
    in_grid,
    middle_square,
    read_pixels,
    save,
    scaled,
    square,
    tiled,
    to_bytes,
    to_gray,
)
from .sheet import FONT, Cell, save_captioned, save_sheet, sheet

__all__ = [
    "FONT",
    "IMAGE_SUFFIXES",
    "Cell",
    "Series",
    "UInt8Array",
    "gutter_of",
    "idx_images",
    "in_grid",
    "middle_square",
    "moving_mean",
    "read_idx",
    "read_pixels",
    "save",
    "save_captioned",
    "save_curves",
    "save_sheet",
    "save_wav",
    "scaled",
    "sheet",
    "square",
    "tiled",
    "to_bytes",
    "to_gray",
]
