from .environment import HEARTS, LEFT, RIGHT, RIVER, RIVER_PIXELS, STRAIGHT, River, RiverState
from .features import LIKES, Features, moves_of
from .players import Player, greedy, planner, random_player, score_of
from .river import AHEAD, BANK, LENGTH, LILY, PEARL, ROCK, WATER, WIDTH, Cells, river_of
from .teachers import TASTES, Measured, Taste, measured, simulated_press, taste_of
from .teaching import Logits, Teaching, Weights, credit, likes, no_policy
from .text_view import COLUMNS, LINES, TextStyle, lines_of

__all__ = [
    "AHEAD",
    "BANK",
    "COLUMNS",
    "HEARTS",
    "LEFT",
    "LENGTH",
    "LIKES",
    "LILY",
    "LINES",
    "PEARL",
    "RIGHT",
    "RIVER",
    "RIVER_PIXELS",
    "ROCK",
    "STRAIGHT",
    "TASTES",
    "WATER",
    "WIDTH",
    "Cells",
    "Features",
    "Logits",
    "Measured",
    "Player",
    "River",
    "RiverState",
    "Taste",
    "Teaching",
    "TextStyle",
    "Weights",
    "credit",
    "greedy",
    "likes",
    "lines_of",
    "measured",
    "moves_of",
    "no_policy",
    "planner",
    "random_player",
    "river_of",
    "score_of",
    "simulated_press",
    "taste_of",
]
