"""Images as rows of discrete tokens, and three ways to draw them."""

from ostinato.image.tokens.coarse import Coarse
from ostinato.image.tokens.drawing import (
    Drawing,
    draw_wishes,
    load_drawing,
    new_drawing,
    task_of,
)
from ostinato.image.tokens.lanes import Settings
from ostinato.image.tokens.levels import Codec, Levels
from ostinato.image.tokens.network import CodeConfig, CodeNetwork
from ostinato.image.tokens.tasks import CoarseTask, PictureTask, RowTask, UnmaskTask
from ostinato.image.tokens.unmask import Unmask
from ostinato.image.tokens.vq import VQ, VQConfig
from ostinato.image.tokens.wish import Wish
from ostinato.image.tokens.words import Words

__all__ = [
    "VQ",
    "Coarse",
    "CoarseTask",
    "CodeConfig",
    "CodeNetwork",
    "Codec",
    "Drawing",
    "Levels",
    "PictureTask",
    "RowTask",
    "Settings",
    "Unmask",
    "UnmaskTask",
    "VQConfig",
    "Wish",
    "Words",
    "draw_wishes",
    "load_drawing",
    "new_drawing",
    "task_of",
]
