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

__all__ = [
    "Environments",
    "PolicyConfig",
    "PolicyGradient",
    "QConfig",
    "QLearning",
    "River",
    "Teaching",
    "load_policy",
    "play",
    "policy_for",
]
