"""Direct preference optimization: learn from pairs of a better and a worse text.

Rafailov et al., "Direct Preference Optimization" (2023), equation 7. A task of `Training`. Knows
neither optimizer nor loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.arguments import counted, require_above
from ostinato.errors import InputError, ItemError
from ostinato.models import Llama, Tokenizer, hash_parts, merged_once, weights_digest
from ostinato.refine import UNFINISHED
from ostinato.reward.tuning.config import PreferenceRun
from ostinato.reward.tuning.scores import GroupTokens, score
from ostinato.reward.tuning.start import load_start, saver
from ostinato.text_files import read_jsonl
from ostinato.train import Loss, Share, TrainingParts, read_corpus, task_parts


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with a better and a worse text that follow it, as tokens."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def group(self) -> GroupTokens:
        """The tokens as a group of two texts."""
        return GroupTokens(self.prompt, (self.chosen, self.rejected))


class PreferenceTask:
    """The loss of pairs, summed: `-log sigmoid(beta (gain of chosen - gain of rejected))`.

    A text's gain is the rise of its log-probability over that of the network as it is when the task
    is made. `anchor` weighs the mean loss of the better text's tokens, which is added (RPO: Pang et
    al., "Iterative Reasoning Preference Optimization", 2024). Reports `accuracy`, the share of
    pairs whose better text gained more, and `margin`, by how much, in nats.
    """

    def __init__(
        self,
        network: Llama,
        train: Sequence[Pair],
        valid: Sequence[Pair] = (),
        *,
        beta: float = 0.1,
        anchor: float = 0.0,
    ) -> None:
        require_above(0, beta=beta)
        self._train, self._valid, self._beta, self._anchor = train, valid, beta, anchor
        network.eval()
        with torch.no_grad(), merged_once(network):
            self._start = {pair: _totals(network, pair) for pair in (*train, *valid)}

    @property
    def lengths(self) -> Sequence[int]:
        """The tokens of each pair, whose prompt is computed once."""
        return [len(pair) for pair in self._train]

    def loss_tokens(self, chosen: Sequence[int]) -> int:
        """Return the number of pairs."""
        return len(chosen)

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the summed loss; nothing here is random, so `seed` is not used."""
        assert isinstance(network, Llama)
        pairs = [self._train[n] for n in chosen]
        with merged_once(network):
            losses, margins = zip(*(self._of(network, pair) for pair in pairs), strict=True)
        gained = [float(margin.detach()) for margin in margins]
        return Loss(
            torch.stack(losses).sum(),
            {"tokens": sum(map(len, pairs)), "pairs": len(pairs)},
            {
                "accuracy": Share(sum(each > 0 for each in gained), len(gained)),
                "margin": Share(sum(gained), len(gained)),
            },
        )

    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return the mean loss of a held-out pair, and the accuracy."""
        if not self._valid:
            return {}
        assert isinstance(network, Llama)
        with merged_once(network):
            found = [self._of(network, pair) for pair in self._valid]
        return {
            "loss/valid": fmean(float(loss) for loss, _ in found),
            "accuracy/valid": fmean(float(margin) > 0 for _, margin in found),
        }

    def sample(self, network: nn.Module) -> object:
        """Return None: a job shows its texts."""
        return None

    def _of(self, network: Llama, pair: Pair) -> tuple[Tensor, Tensor]:
        """Return the loss of a pair, and how much more its better text gained."""
        totals = _totals(network, pair)
        gains = totals - self._start[pair].to(totals.device)
        margin = gains[0] - gains[1]
        loss = -F.logsigmoid(self._beta * margin)
        return loss - self._anchor * totals[0] / len(pair.chosen), margin


def _totals(network: Llama, pair: Pair) -> Tensor:
    """Return the log-probabilities (2,) of both texts of a pair."""
    logprobs = score(network, pair.group).logprobs
    chosen, rejected = torch.split(logprobs, [len(pair.chosen), len(pair.rejected)])
    return torch.stack((chosen.sum(), rejected.sum()))


# As a run ---------------------------------------------------------------------------------------


def prepare_preferences(config: PreferenceRun) -> TrainingParts:
    """Read the pairs, and load the model. Raises `InputError` for bad input."""
    texts = [read_corpus(path) for path in config.files]  # before a model is loaded
    model = load_start(
        config.start,
        config.adapter,
        rank=config.lora_rank,
        device=config.device,
        seed=config.training.seed,
    )
    pairs = [pair for path in config.files for pair in read_pairs(path, model.tokenizer)]
    fitting = [pair for pair in dict.fromkeys(pairs) if len(pair) <= config.context]
    train, valid = _split(fitting, config.context)
    task = PreferenceTask(model.llama(), train, valid, beta=config.beta, anchor=config.anchor)
    save = saver(model, config.start)
    return task_parts(
        model.llama(),
        task,
        save=lambda folder: save(None, folder),
        hashes={
            "data": hash_parts([f"{len(texts)} files", *texts]),
            "weights": weights_digest(config.start, config.adapter),
        },
        examples=(len(train), len(valid)),
        notes=_left_out(len(pairs) - len(fitting), config.context),
    )


def read_pairs(path: Path, tokenizer: Tokenizer) -> list[Pair]:
    """Return the pairs of a JSONL file. Raises `InputError` with file and line."""
    return [_pair(row, f"{path}, line {line}", tokenizer) for line, row in read_jsonl(path)]


def _pair(row: Mapping[str, Any], where: str, tokenizer: Tokenizer) -> Pair:
    prompt = row.get("prompt")
    try:
        encode: Any = tokenizer.prompt if isinstance(prompt, str) else tokenizer.chat
        tokens = encode(prompt)
    except (InputError, ItemError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{where}: 'prompt' must be a text or chat messages, got {prompt!r:.60}: {error}."
        ) from None
    ends = min(tokenizer.eos_ids, default=None)
    end = () if ends is None else (ends,)
    chosen = (*_text(row, "chosen", where, tokenizer), *end)
    rejected = (*_text(row, "rejected", where, tokenizer), *(() if row.get(UNFINISHED) else end))
    if not tokens or not chosen or not rejected or chosen == rejected:
        raise InputError(
            f"{where}: 'chosen' and 'rejected' must be two texts, got {row.get('chosen')!r:.40} "
            f"and {row.get('rejected')!r:.40}. Leave the row out."
        )
    return Pair(tuple(tokens), chosen, rejected)


def _text(row: Mapping[str, Any], name: str, where: str, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens of a text, or of a single message of the assistant."""
    value = row.get(name)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        value = value[0].get("content")
    if not isinstance(value, str):
        raise InputError(
            f"{where}: {name!r} must be a text, or a list with one message, got {value!r:.60}. "
            "Write what the assistant says."
        )
    return tokenizer.continuation(value)


def _split(pairs: Sequence[Pair], context: int) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs to train on, and the last tenth to validate with: at least one."""
    count = max(1, len(pairs) // 10)
    if len(pairs) < 2:
        raise InputError(
            f"The files must hold at least two pairs within {counted(context, 'tokens')}, got "
            f"{len(pairs)}. "
            "Give more, or raise --context."
        )
    return list(pairs[:-count]), list(pairs[-count:])


def _left_out(count: int, context: int) -> tuple[str, ...]:
    if not count:
        return ()
    what = "pair is" if count == 1 else "pairs are"
    return (f"{count} {what} left out: a repetition, or longer than {counted(context, 'tokens')}.",)
