from .image_io import in_grid, save, tiled, to_bytes

__all__ = [
    "in_grid",
    "save",
    "tiled",
    "to_bytes",
]
