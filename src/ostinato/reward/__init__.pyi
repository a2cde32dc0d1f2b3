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

__all__ = [
    "Environments",
    "PolicyConfig",
    "PolicyGradient",
    "QConfig",
    "QLearning",
    "load_policy",
    "play",
    "policy_for",
]
