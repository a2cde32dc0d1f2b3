from .tuning.config import GroupConfig
from .tuning.group_policy import GroupPolicy
from .tuning.held_out import HeldOut
from .tuning.rewards import CheckReward, Rated, Reward, RewardFunction

__all__ = [
    "CheckReward",
    "GroupConfig",
    "GroupPolicy",
    "HeldOut",
    "Rated",
    "Reward",
    "RewardFunction",
]
