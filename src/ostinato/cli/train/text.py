"""`ostinato train`: train a model until it is good enough."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.image_tokens import train_image_tokens
from ostinato.cli.music import train_music
from ostinato.cli.train.image import image
from ostinato.cli.train.shared import (
    OPTIONS,
    begun_steps,
    condition_of,
    config_options,
    drive,
    journal_at,
    name_of,
    options_of,
    require_folder,
    run_of,
    run_options,
    steps_of,
)
from ostinato.errors import InputError
from ostinato.text import TextTrainingConfig
from ostinato.train import TrainingConfig

if TYPE_CHECKING:
    from ostinato.loop import Step
    from ostinato.models import GRU, LanguageModel, Llama, MaskedBert, MaskedModel
    from ostinato.text import TextTraining
    from ostinato.train import MaskedTextTask, TextTask, Training

TEXT_OPTIONS = options_of(TextTrainingConfig, defaults=True)


@click.group()
def train() -> None:
    """Train a model until it is good enough; the same command goes on where it was."""


train.add_command(image)
train.add_command(train_image_tokens)
train.add_command(train_music)


@train.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Write the model there."
)
@click.option("--from", "start", metavar="MODEL", help="Tune this model; else one from scratch.")
@click.option("--merge", is_flag=True, help="Save the model with the adapter in it.")
@click.option("--valid", multiple=True, type=click.Path(path_type=Path), help="Validate on this.")
@run_options
@config_options(TEXT_OPTIONS | OPTIONS)
def text(
    files: tuple[Path, ...],
    out: Path,
    start: str | None,
    merge: bool,
    valid: tuple[Path, ...],
    until: str | None,
    epochs: float | None,
    patience: int | None,
    checkpoint_every: int,
    fresh: bool,
    journal: Path | None,
    run_name: str | None,
    **given: Any,
) -> None:
    """Train a language model on FILES: plain text, or JSONL with text, prompts or messages.

    Without --from a network is made from scratch. Of messages only the assistant's turns count.
    """
    from ostinato.text import fingerprint, set_up
    from ostinato.train import Training

    require_folder(out, start)
    given = {name: value for name, value in given.items() if value is not None}
    if merge and not given.get("lora_rank"):
        raise InputError("--merge puts an adapter into the model. Give its rank with --lora-rank.")
    shape = {name: given.pop(name) for name in TEXT_OPTIONS if name in given}
    begun = begun_steps(journal, name_of(run_name, out), fresh)
    given.setdefault("sample_every", given.get("valid_every", TrainingConfig().valid_every))
    config = TrainingConfig(**({"steps": begun} if begun else {}) | given)
    settings = TextTrainingConfig(files=files, valid=valid, start=start, seed=config.seed, **shape)
    condition = condition_of(config.steps, until, epochs, patience)
    parts = set_up(settings)
    _say_left_out(parts, settings)
    task = _task(parts)
    if epochs is not None and "steps" not in given and begun is None:
        config = dataclasses.replace(config, steps=steps_of(epochs, task.lengths, config))
    process = Training(_network(parts.model), task, config)
    told = dataclasses.asdict(config)
    with journal_at(journal) as opened:
        drive(
            process,
            run_of(opened, "text", fingerprint(settings), told, out, fresh, run_name),
            condition,
            checkpoint_every,
            counts=(len(parts.train), len(parts.valid)),
            show=_show,
            save=lambda: _save(process, parts, out, settings, merge=merge),
            out=out,
        )


def _task(parts: TextTraining) -> TextTask | MaskedTextTask:
    from ostinato.models import MaskedModel
    from ostinato.train import MaskedTextTask, TextTask

    if isinstance(parts.model, MaskedModel):
        return MaskedTextTask(parts.train, parts.valid, mask_id=parts.model.mask_id)
    return TextTask(parts.train, parts.valid, write=_sampler(parts.model))


def _network(model: LanguageModel | MaskedModel) -> Llama | GRU | MaskedBert:
    """Return what is trained. Raises `ModelError` where it is not ours."""
    from ostinato.models import GRU, MaskedModel

    if isinstance(model, MaskedModel) or isinstance(model.network, GRU):
        return model.network  # type: ignore[return-value]  # one of the two, by now
    return model.llama()


def _say_left_out(parts: TextTraining, settings: TextTrainingConfig) -> None:
    if not parts.left_out:
        return
    count = len(parts.left_out)
    click.echo(
        f"{count} {'row is' if count == 1 else 'rows are'} left out: within {settings.context} "
        f"tokens nothing of them counts (first: {parts.left_out[0]}). Raise --context to take them."
    )


def _show(step: Step) -> None:
    click.echo("  | " + str(step.report["sample"]).strip().replace("\n", "\n  | "))


def _sampler(model: LanguageModel) -> Callable[[Llama | GRU], str]:
    """Return what writes a sample with the network as it stands, from nothing."""

    def sample(network: Llama | GRU) -> str:
        import copy

        from ostinato.decode import SamplingParams
        from ostinato.loop import Steps
        from ostinato.models import Llama, merge
        from ostinato.text import write

        network = copy.deepcopy(network).eval()
        if isinstance(network, Llama):
            merge(network)
        start = "\n" if model.tokenizer.encode("\n") else "The"
        loop = write(
            [start],
            model=dataclasses.replace(model, network=network),
            each=Steps(60),
            sampling=SamplingParams(temperature=0.8, top_k=50),
            chat=False,
        )
        return next((str(r["output"]) for step in loop for _, r in step.results), "")

    return sample


def _save(
    process: Training, parts: TextTraining, out: Path, settings: TextTrainingConfig, *, merge: bool
) -> None:
    """Save the best weights where there were validations, else the averaged or the last ones."""
    from ostinato.models import LanguageModel, Llama, save_adapter
    from ostinato.train import save_model

    network = _network(parts.model)
    with process.best_weights():
        if settings.lora_rank and not merge:
            assert isinstance(network, Llama)
            out.mkdir(parents=True, exist_ok=True)
            save_adapter(network, out, base=str(settings.start))
            return
        if settings.lora_rank:
            assert isinstance(network, Llama)
            network = _merged(network, str(settings.start))
        save_model(out, network, parts.model.tokenizer)
        if settings.start is not None and isinstance(parts.model, LanguageModel):
            source = parts.model.folder / "generation_config.json"
            if source.is_file():
                shutil.copy(source, out / source.name)


def _merged(network: Llama, start: str) -> Llama:
    """Return the network's base in float32, as it may not be here, with its adapter merged."""
    import torch

    from ostinato.models import load_adapter, load_model, merge, save_adapter

    with tempfile.TemporaryDirectory() as folder:
        save_adapter(network, folder, base=start)
        base = load_model(start, dtype=torch.float32, compile=False).llama()
        return merge(load_adapter(base, folder))
