"""How a tuned model stands on prompts and checks that have no part in its reward.

The same random numbers each time, so that two looks differ by the weights alone. Knows no
gradients and no optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch

from ostinato.loop import Check, Verdict
from ostinato.models import Llama, merged_once
from ostinato.reward.tuning.guard import bits_per_character, copied_share
from ostinato.reward.tuning.rewards import Reward, rate, total_rewards
from ostinato.reward.tuning.rollouts import Group, PromptedItem, Sampler
from ostinato.reward.tuning.scores import score
from ostinato.train import Weights, using


class HeldOut:
    """Looks at one text of each held-out prompt.

    `look` returns, by name: `reward/valid`, `length/valid`; `passed/valid`, the share that passes
    all checks, and `passed/valid/NAME` of each held-out check; `copied`, the share of the words
    copied from the prompt; `bits`, the bits per character under the `reference` weights. `beside`
    returns how they have changed since a start: `copied/rise`, `bits/ratio`, and `passed/lost`, by
    how much less often the held-out checks pass.
    """

    def __init__(
        self,
        sampler: Sampler,
        items: Sequence[PromptedItem],
        rewards: Sequence[Reward],
        checks: Sequence[Check],
        reference: Weights,
        seed: int,
    ) -> None:
        self.items = items
        self._sampler, self._rewards, self._seed = sampler, rewards, seed
        self._checks = [check.name for check in checks]
        self._reference = reference

    def look(self, network: Llama, parameters: Weights) -> dict[str, float]:
        """Return the values for the weights that the sampler's decode has."""
        groups = self._sampler.sample(self.items, 1, self._seed)
        texts = [text for group in groups for text in group.texts]
        found = {
            "reward/valid": fmean(total_rewards(self._rewards, rate(self._rewards, texts))),
            "length/valid": fmean(len(text.tokens) for text in texts),
            "copied": fmean(
                copied_share(rollout.text, group.item.prompt_text)
                for group in groups
                for rollout in group.rollouts
            ),
            "bits": self._bits(network, parameters, groups),
        }
        verdicts = [text.verdicts for text in texts]
        if any(verdicts):
            found["passed/valid"] = fmean(all(v.passed for v in each) for each in verdicts)
        return found | {
            f"passed/valid/{name}": fmean(_passed(each, name) for each in verdicts)
            for name in self._checks
        }

    @torch.no_grad()
    def _bits(self, network: Llama, parameters: Weights, groups: Sequence[Group]) -> float:
        network.eval()
        with using(parameters, self._reference), merged_once(network):
            scores = [float(score(network, group.tokens).logprobs.sum()) for group in groups]
        return bits_per_character(scores, [r.text for group in groups for r in group.rollouts])

    def beside(self, now: Mapping[str, float], start: Mapping[str, float]) -> dict[str, float]:
        """Return how the values have changed since those of the start."""
        found = {
            "copied/rise": now["copied"] - start["copied"],
            "bits/ratio": now["bits"] / max(start["bits"], 1e-9),
        }
        if self._checks:
            names = [f"passed/valid/{name}" for name in self._checks]
            found["passed/lost"] = fmean(start[name] - now[name] for name in names)
        return found


def _passed(verdicts: Sequence[Verdict], name: str) -> bool:
    return all(verdict.passed for verdict in verdicts if verdict.check == name)
