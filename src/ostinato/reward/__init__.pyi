from .games import (
    Environments,
    PolicyConfig,
    PolicyGradient,
    QConfig,
    QLearning,
    load_policy,
    play,
    policy_for,
)
from .minigame import River, Teaching
from .tuning.config import GroupConfig, PreferenceConfig, PreferenceRun, TuneRun
from .tuning.group_policy import GroupPolicy
from .tuning.held_out import HeldOut
from .tuning.preferences import Pair, PreferenceTask, prepare_preferences, read_pairs
from .tuning.rewards import CheckReward, Rated, Reward, RewardFunction
from .tuning.training_run import prepare_tuning

__all__ = [
    "CheckReward",
    "Environments",
    "GroupConfig",
    "GroupPolicy",
    "HeldOut",
    "Pair",
    "PolicyConfig",
    "PolicyGradient",
    "PreferenceConfig",
    "PreferenceRun",
    "PreferenceTask",
    "QConfig",
    "QLearning",
    "Rated",
    "Reward",
    "RewardFunction",
    "River",
    "Teaching",
    "TuneRun",
    "load_policy",
    "play",
    "policy_for",
    "prepare_preferences",
    "prepare_tuning",
    "read_pairs",
]
