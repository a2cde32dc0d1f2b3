from .audio_io import save_wav
from .idx import idx_images, read_idx
from .image_io import (
    IMAGE_SUFFIXES,
    UInt8Array,
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

__all__ = [
    "IMAGE_SUFFIXES",
    "UInt8Array",
    "idx_images",
    "in_grid",
    "middle_square",
    "read_idx",
    "read_pixels",
    "save",
    "save_wav",
    "scaled",
    "square",
    "tiled",
    "to_bytes",
    "to_gray",
]
