"""The network of a policy: what to do in a state, and what the state is worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ostinato.arguments import require_at_least, require_types
from ostinato.errors import InputError, ModelError
from ostinato.models import read_config, read_weights, write_config, write_weights
from ostinato.reward.games.actions import actions_of
from ostinato.reward.games.environments import Environments
from ostinato.reward.games.moments import RunningMoments
from ostinato.reward.games.spaces import GameSpaces

SHIPPED = Path(__file__).parent / "shipped"
ARCHITECTURE = "ostinato.Policy"
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

NATURE_SIDE = 36  # pixels, from which on the strides of Mnih et al. leave something


@dataclass(frozen=True, kw_only=True)
class PolicyShape:
    """The architecture of a policy of an environment `game`, which has these spaces.

    Of numbers it has two networks of `layers` layers of `width` units; of pixels one, whose last
    layer has `width` units. `normalize` brings observations of numbers to one scale.
    """

    game: str
    spaces: GameSpaces
    width: int = 64
    layers: int = 2
    normalize: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.spaces, dict):
            object.__setattr__(self, "spaces", GameSpaces(**self.spaces))
        require_types(self)
        require_at_least(1, width=self.width, layers=self.layers)


class Policy(nn.Module):
    """Acts and judges: `forward` returns both, `act` what to do, `value` what a state is worth.

    Observations are (N, *seen): numbers, or pixels as bytes.
    """

    def __init__(self, shape: PolicyShape, *, seed: int = 0) -> None:
        super().__init__()
        self.shape, self.spaces = shape, shape.spaces
        self.actions = actions_of(shape.spaces)
        numbers = () if shape.spaces.pixels or not shape.normalize else shape.spaces.seen
        self.seen_moments = RunningMoments(numbers)
        self.return_moments = RunningMoments()
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
            torch.manual_seed(seed)
            self._build(shape)

    def _build(self, shape: PolicyShape) -> None:
        outputs = self.actions.outputs // (2 if shape.spaces.continuous else 1)
        self.trunk: nn.Module
        self.actor: nn.Module
        self.critic: nn.Module
        if shape.spaces.pixels:
            self.trunk = convolutions(shape.spaces.seen, shape.width)
            self.actor, self.critic = (_orthogonal(shape.width, size) for size in (outputs, 1))
        else:
            self.trunk = nn.Identity()
            sizes = (*shape.spaces.seen, *(shape.width,) * shape.layers)
            self.actor, self.critic = (_perceptron((*sizes, size)) for size in (outputs, 1))
        with torch.no_grad():  # at first nothing is preferred
            _last(self.actor).weight.mul_(0.01)
        self.log_std = nn.Parameter(torch.zeros(outputs)) if shape.spaces.continuous else None

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return what distributes the actions (N, outputs), and the values (N,)."""
        x = self.trunk(self.prepared(seen))
        values: Tensor = self.critic(x)
        return self._outputs(x), values.squeeze(1)

    def act(self, seen: Tensor) -> Tensor:
        """Return what distributes the actions (N, outputs)."""
        return self._outputs(self.trunk(self.prepared(seen)))

    def value(self, seen: Tensor) -> Tensor:
        """Return the values (N,)."""
        values: Tensor = self.critic(self.trunk(self.prepared(seen)))
        return values.squeeze(1)

    def prepared(self, seen: Tensor) -> Tensor:
        """Return observations as the networks take them."""
        if self.spaces.pixels:
            return seen.float() / 255
        return self.seen_moments.centered(seen) if self.shape.normalize else seen

    def _outputs(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.actor(x)
        if self.log_std is None:
            return outputs
        return torch.cat((outputs, self.log_std.expand_as(outputs)), 1)


def convolutions(seen: tuple[int, ...], width: int) -> nn.Sequential:
    """Return the network of Mnih et al., "Human-level control through deep reinforcement learning"
    (Nature, 2015), for pixels (C, H, W); of small images one of 3 x 3 kernels.
    """
    channels, height, across = seen
    if min(height, across) >= NATURE_SIDE:
        shapes = [(channels, 32, 8, 4, 0), (32, 64, 4, 2, 0), (64, 64, 3, 1, 0)]
    else:
        shapes = [(channels, 16, 3, 1, 1), (16, 32, 3, 2, 1), (32, 32, 3, 2, 1)]
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride, padding in shapes:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        layers += [_initialized(convolution), nn.ReLU()]
    with torch.no_grad():
        size = nn.Sequential(*layers)(torch.zeros(1, *seen)).numel()
    return nn.Sequential(*layers, nn.Flatten(), _orthogonal(size, width, 2**0.5), nn.ReLU())


def _perceptron(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers += [_orthogonal(inputs, outputs, 2**0.5), nn.Tanh()]
    return nn.Sequential(*layers, _orthogonal(*sizes[-2:]))


def _orthogonal(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    return _initialized(nn.Linear(inputs, outputs), gain)


def _initialized(layer: Layer, gain: float = 2**0.5) -> Layer:
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _last(network: nn.Module) -> nn.Linear:
    last = network[-1] if isinstance(network, nn.Sequential) else network
    assert isinstance(last, nn.Linear)
    return last


# Files ------------------------------------------------------------------------------------------


def save_policy(folder: str | Path, policy: Policy) -> Path:
    """Write `config.json` and `model.safetensors`; return the folder."""
    folder = Path(folder)
    write_config(folder, {"architecture": ARCHITECTURE, **asdict(policy.shape)})
    write_weights(folder, policy)
    return folder


def load_policy(name: str | Path) -> Policy:
    """Load the policy of a folder, or a shipped one such as `cartpole`.

    Raises `ModelError` for a folder that holds none, a damaged one, or another layout.
    """
    folder = policy_folder(name)
    policy = Policy(read_config(folder, ARCHITECTURE, PolicyShape))
    read_weights(folder, policy)
    return policy


def policy_folder(name: str | Path) -> Path:
    """Return the folder of a policy by its path or shipped name. Raises `ModelError`."""
    folder = Path(name) if Path(name).is_dir() else SHIPPED / str(name)
    if not (folder / "config.json").is_file():
        shipped = ", ".join(sorted(path.parent.name for path in SHIPPED.glob("*/config.json")))
        raise ModelError(
            f"A policy must be a folder of `ostinato train policy`, or {shipped or 'a shipped one'}"
            f", got {str(name)!r}. Check the path."
        )
    return folder


def policy_for(
    environments: Environments,
    *,
    width: int = 64,
    layers: int = 2,
    normalize: bool = False,
    seed: int = 0,
) -> Policy:
    """Return a new policy of the spaces of environments."""
    shape = PolicyShape(
        game=environments.name,
        spaces=environments.spaces,
        width=width,
        layers=layers,
        normalize=normalize,
    )
    return Policy(shape, seed=seed)


def require_fitting(policy: Policy, spaces: GameSpaces, game: str) -> None:
    """Raise `InputError` where a policy is not one of an environment's spaces."""
    if policy.spaces != spaces:
        raise InputError(
            f"The policy must be of the spaces of {game}, {spaces}, got one of {policy.spaces}. "
            "Make it with policy_for(environments)."
        )
