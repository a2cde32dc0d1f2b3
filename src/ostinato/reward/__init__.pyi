from .tuning.config import GroupConfig, PreferenceConfig, PreferenceRun, TuneRun
from .tuning.group_policy import GroupPolicy
from .tuning.held_out import HeldOut
from .tuning.preferences import Pair, PreferenceTask, prepare_preferences, read_pairs
from .tuning.rewards import CheckReward, Rated, Reward, RewardFunction
from .tuning.training_run import prepare_tuning

__all__ = [
    "CheckReward",
    "GroupConfig",
    "GroupPolicy",
    "HeldOut",
    "Pair",
    "PreferenceConfig",
    "PreferenceRun",
    "PreferenceTask",
    "Rated",
    "Reward",
    "RewardFunction",
    "TuneRun",
    "prepare_preferences",
    "prepare_tuning",
    "read_pairs",
]
