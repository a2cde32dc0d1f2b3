from .config import NO_POLICY, RULES, TeachRun
from .environment import HEARTS, LEFT, RIGHT, RIVER, RIVER_PIXELS, STRAIGHT, River, RiverState
from .features import LIKES, Features, moves_of
from .players import Player, greedy, planner, random_player, score_of
from .policy import load_logits, policy_digest, policy_place
from .river import AHEAD, BANK, LENGTH, LILY, PEARL, ROCK, WATER, WIDTH, Cells, river_of
from .teach_run import TeachWork, build_teach
from .teachers import TASTES, Measured, Taste, measured, simulated_press, taste_of
from .teaching import Logits, Teaching, Weights, credit, likes, no_policy, untaught
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
    "NO_POLICY",
    "PEARL",
    "RIGHT",
    "RIVER",
    "RIVER_PIXELS",
    "ROCK",
    "RULES",
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
    "TeachRun",
    "TeachWork",
    "Teaching",
    "TextStyle",
    "Weights",
    "build_teach",
    "credit",
    "greedy",
    "likes",
    "lines_of",
    "load_logits",
    "measured",
    "moves_of",
    "no_policy",
    "planner",
    "policy_digest",
    "policy_place",
    "random_player",
    "river_of",
    "score_of",
    "simulated_press",
    "taste_of",
    "untaught",
]
