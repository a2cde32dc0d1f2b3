"""Training a language model, as a run: its task, its samples, and how it is saved."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path

import torch

from ostinato.arguments import require
from ostinato.decode import Decode, SamplingParams, TokenPrompt
from ostinato.loop import Lanes, Loop, Policy, Steps, content_keys
from ostinato.models import (
    GRU,
    LanguageModel,
    Llama,
    MaskedBert,
    MaskedModel,
    load_adapter,
    load_model,
    merge,
    save_adapter,
    weights_digest,
)
from ostinato.text.config import TextTrainingConfig, TextTrainingRun
from ostinato.text.training import TextTraining, data_hash, sample_prompt, set_up
from ostinato.train import (
    MaskedTextTask,
    TextTask,
    TrainingParts,
    save_model,
    task_parts,
)

SAMPLE_TOKENS = 60


def prepare_text_training(config: TextTrainingRun) -> TrainingParts:
    """Read the files, and load or make the model. Raises `InputError` for bad input."""
    settings, start = config.text, config.text.start
    require(
        start is None or not config.out.exists() or Path(start).resolve() != config.out.resolve(),
        "--out",
        "another folder than --from",
        str(config.out),
        "Name another.",
    )
    settings = dataclasses.replace(settings, seed=config.training.seed)
    parts = set_up(settings)

    def save(folder: Path) -> None:
        _save(parts, folder, settings, merged=config.merge)

    return task_parts(
        _network(parts.model),
        _task(parts),
        save=save,
        hashes={
            "data": data_hash(settings),
            "weights": "" if start is None else weights_digest(start),
        },
        examples=(len(parts.train), len(parts.valid)),
        notes=_left_out(parts, settings),
    )


def _task(parts: TextTraining) -> TextTask | MaskedTextTask:
    if isinstance(parts.model, MaskedModel):
        return MaskedTextTask(parts.train, parts.valid, mask_id=parts.model.mask_id)
    return TextTask(parts.train, parts.valid, write=_Sampler(parts))


def _network(model: LanguageModel | MaskedModel) -> Llama | GRU | MaskedBert:
    """Return the network to train. Raises `ModelError` for a network that is not ours."""
    if isinstance(model, MaskedModel):
        return model.network
    return model.network if isinstance(model.network, GRU) else model.llama()


def _left_out(parts: TextTraining, settings: TextTrainingConfig) -> tuple[str, ...]:
    if not parts.left_out:
        return ()
    count = len(parts.left_out)
    return (
        f"{count} {'row is' if count == 1 else 'rows are'} left out: within {settings.context} "
        f"tokens no token counts in the loss (first: {parts.left_out[0]}). Raise --context to "
        "include them.",
    )


# Samples ----------------------------------------------------------------------------------------


class _Sampler:
    """Writes a sample with a network as it is; one backend takes its weights each time."""

    def __init__(self, parts: TextTraining) -> None:
        assert isinstance(parts.model, LanguageModel)
        self._model, self._begin = parts.model, sample_prompt(parts, SAMPLE_TOKENS)
        self._prompt = TokenPrompt(self._begin.tokens)
        self._decode: Decode | None = None

    def __call__(self, network: Llama | GRU) -> str:
        """Return the prompt as it is shown, and what the network writes after it."""
        items = list(zip(content_keys([self._prompt]), [self._prompt], strict=True))
        lanes = Lanes(self._with(network), items, Policy(each=Steps(SAMPLE_TOKENS)))
        results = (result for step in Loop(lanes) for result in step.results)
        return self._begin.shown + next((str(result.output) for result in results), "")

    def _with(self, network: Llama | GRU) -> Decode:
        if self._decode is not None:
            self._decode.update(network)
            return self._decode
        model = dataclasses.replace(self._model, network=network)
        sampling = SamplingParams(temperature=0.8, top_k=50)
        prompt = self._prompt
        self._decode = Decode(
            model, lambda *_: prompt, sampling=sampling, limit=SAMPLE_TOKENS, slots=1
        )
        return self._decode


# Saving -----------------------------------------------------------------------------------------


def _save(parts: TextTraining, out: Path, settings: TextTrainingConfig, *, merged: bool) -> None:
    """Save the network, or only its adapter where one was trained and is not to be merged."""
    network = _network(parts.model)
    if settings.lora_rank:
        assert isinstance(network, Llama)
        if not merged:
            out.mkdir(parents=True, exist_ok=True)
            save_adapter(network, out, base=_near(str(settings.start)))
            return
        network = _merged(network, str(settings.start))
    save_model(out, network, parts.model.tokenizer)
    if settings.start is not None and isinstance(parts.model, LanguageModel):
        source = parts.model.folder / "generation_config.json"
        if source.is_file():
            shutil.copy(source, out / source.name)


def _near(start: str) -> str:
    """Return a model's name, or its path as seen from the working folder where it lies in it."""
    return os.path.relpath(start) if Path(start).is_relative_to(Path.cwd()) else start


def _merged(network: Llama, start: str) -> Llama:
    """Return the base model with the network's adapter merged, in float32.

    The base is read again: while it trained its weights may have been rounded to bfloat16.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(network, folder, base=start)
        base = load_model(start, dtype=torch.float32, compile=False).llama()
        return merge(load_adapter(base, folder))
