from .actions import Actions, ContinuousActions, DiscreteActions, actions_of
from .advantages import advantages_of, discounted
from .config import PlayRun, PolicyConfig, PolicyTrainingRun
from .environments import Environments, Episode, Make, Restorable, Stepped, episode_seed
from .evaluation import play
from .moments import RunningMoments
from .play_run import PlayWork, build_play, policy_digest
from .playing import Playing
from .policy import Policy, PolicyShape, load_policy, policy_folder, policy_for, save_policy
from .policy_gradient import PolicyGradient
from .q_learning import QConfig, QLearning
from .recipes import RECIPES, Recipe, recipe_for
from .rollout import Rollout, collect
from .spaces import GameSpaces, SpaceAdapter, make_environment
from .training_run import prepare_policy_training

__all__ = [
    "RECIPES",
    "Actions",
    "ContinuousActions",
    "DiscreteActions",
    "Environments",
    "Episode",
    "GameSpaces",
    "Make",
    "PlayRun",
    "PlayWork",
    "Playing",
    "Policy",
    "PolicyConfig",
    "PolicyGradient",
    "PolicyShape",
    "PolicyTrainingRun",
    "QConfig",
    "QLearning",
    "Recipe",
    "Restorable",
    "Rollout",
    "RunningMoments",
    "SpaceAdapter",
    "Stepped",
    "actions_of",
    "advantages_of",
    "build_play",
    "collect",
    "discounted",
    "episode_seed",
    "load_policy",
    "make_environment",
    "play",
    "policy_digest",
    "policy_folder",
    "policy_for",
    "prepare_policy_training",
    "recipe_for",
    "save_policy",
]
