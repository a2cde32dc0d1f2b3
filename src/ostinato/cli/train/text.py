"""`ostinato train` and `ostinato train text`: train a language model until it is good enough."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ostinato.arguments import require
from ostinato.cli.train.image import image
from ostinato.cli.train.image_tokens import image_tokens
from ostinato.cli.train.music import music
from ostinato.cli.train.options import RunOptions, settings_of, training_options
from ostinato.cli.train.training_run import TrainingJob, train_until
from ostinato.errors import InputError
from ostinato.text import TextTrainingConfig
from ostinato.train import TrainingConfig

if TYPE_CHECKING:
    from ostinato.loop import Step
    from ostinato.models import GRU, LanguageModel, Llama, MaskedBert, MaskedModel
    from ostinato.text import TextTraining
    from ostinato.train import MaskedTextTask, TextTask

TEXT_SETTINGS = settings_of(TextTrainingConfig, defaults=True)
SETTINGS = settings_of(TrainingConfig, defaults=True)
SAMPLE_TOKENS = 60
SETTINGS["sample_every"] = SETTINGS["sample_every"]._replace(
    help="Steps between samples; 0: none.  [default: as --valid-every]"
)


@click.group()
def train() -> None:
    """Train a model until it is good enough; the same command resumes."""


train.add_command(image)
train.add_command(image_tokens)
train.add_command(music)


@train.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--from", "start", metavar="MODEL", help="Fine-tune this model, not a new one.")
@click.option("--merge", is_flag=True, help="Save the model with the LoRA adapter merged.")
@click.option(
    "--valid",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Validation file; repeatable.",
)
@training_options(TEXT_SETTINGS | SETTINGS)
def text(
    files: tuple[Path, ...],
    start: str | None,
    merge: bool,
    valid: tuple[Path, ...],
    options: RunOptions,
) -> None:
    """Train a language model on FILES: plain text, or JSONL with text, prompts or messages.

    Without --from the network is new. Of messages only the assistant's turns count in the loss.
    """
    from ostinato.text import earlier_fingerprint, fingerprint, set_up

    out, typed = options.out, options.settings
    _require_other_folder(out, start)
    if merge and not typed.get("lora_rank"):
        raise InputError("--merge needs an adapter. Give its rank with --lora-rank.")
    config = TrainingConfig(**{name: typed[name] for name in SETTINGS if name in typed})
    if "sample_every" not in typed:
        config = dataclasses.replace(config, sample_every=config.valid_every)
    shape = {name: typed[name] for name in TEXT_SETTINGS if name in typed}
    settings = TextTrainingConfig(files=files, valid=valid, start=start, seed=config.seed, **shape)
    parts = set_up(settings)
    _report_left_out(parts, settings)
    train_until(
        TrainingJob(
            command="text",
            network=_network(parts.model),
            task=_task(parts),
            config=config,
            fingerprint=fingerprint(settings),
            earlier=earlier_fingerprint(settings),
            examples=(len(parts.train), len(parts.valid)),
            folder=out,
            save=lambda: _save(parts, out, settings, merge=merge),
            show=_show,
        ),
        options,
    )


def _require_other_folder(out: Path, start: str | None) -> None:
    require(
        start is None or not out.exists() or Path(start).resolve() != out.resolve(),
        "--out",
        "another folder than --from",
        str(out),
        "Name another.",
    )


def _task(parts: TextTraining) -> TextTask | MaskedTextTask:
    from ostinato.models import MaskedModel
    from ostinato.train import MaskedTextTask, TextTask

    if isinstance(parts.model, MaskedModel):
        return MaskedTextTask(parts.train, parts.valid, mask_id=parts.model.mask_id)
    return TextTask(parts.train, parts.valid, write=_sampler(parts))


def _network(model: LanguageModel | MaskedModel) -> Llama | GRU | MaskedBert:
    """Return the network to train. Raises `ModelError` for a network that is not ours."""
    from ostinato.models import GRU, MaskedModel

    if isinstance(model, MaskedModel):
        return model.network
    return model.network if isinstance(model.network, GRU) else model.llama()


def _report_left_out(parts: TextTraining, settings: TextTrainingConfig) -> None:
    if not parts.left_out:
        return
    count = len(parts.left_out)
    click.echo(
        f"{count} {'row is' if count == 1 else 'rows are'} left out: within {settings.context} "
        f"tokens no token counts in the loss (first: {parts.left_out[0]}). Raise --context to "
        "include them."
    )


def _show(step: Step) -> None:
    click.echo("  | " + str(step.report["sample"]).strip().replace("\n", "\n  | "))


def _sampler(parts: TextTraining) -> Callable[[Llama | GRU], str]:
    """Return a function that writes a sample with the network as it is."""
    from ostinato.text import sample_prompt

    prompt = sample_prompt(parts, SAMPLE_TOKENS)

    def sample(network: Llama | GRU) -> str:
        from ostinato.decode import SamplingParams, TokenPrompt
        from ostinato.loop import Steps
        from ostinato.models import LanguageModel, Llama, merge
        from ostinato.text import write

        assert isinstance(parts.model, LanguageModel)
        # A copy, as merging an adapter changes the weights that are being trained.
        network = copy.deepcopy(network).eval()
        if isinstance(network, Llama):
            merge(network)
        loop = write(
            [TokenPrompt(prompt.tokens)],
            model=dataclasses.replace(parts.model, network=network),
            each=Steps(SAMPLE_TOKENS),
            sampling=SamplingParams(temperature=0.8, top_k=50),
        )
        written = next((str(row["output"]) for step in loop for _, row in step.results), "")
        return prompt.shown + written

    return sample


def _save(parts: TextTraining, out: Path, settings: TextTrainingConfig, *, merge: bool) -> None:
    """Save the network, or only its adapter where one was trained and is not to be merged."""
    from ostinato.models import LanguageModel, Llama, save_adapter
    from ostinato.train import save_model

    network = _network(parts.model)
    if settings.lora_rank:
        assert isinstance(network, Llama)
        if not merge:
            out.mkdir(parents=True, exist_ok=True)
            save_adapter(network, out, base=str(settings.start))
            return
        network = _merged(network, str(settings.start))
    save_model(out, network, parts.model.tokenizer)
    if settings.start is not None and isinstance(parts.model, LanguageModel):
        source = parts.model.folder / "generation_config.json"
        if source.is_file():
            shutil.copy(source, out / source.name)


def _merged(network: Llama, start: str) -> Llama:
    """Return the base model with the network's adapter merged, in float32.

    The base is read again: while it trained its weights may have been rounded to bfloat16.
    """
    import torch

    from ostinato.models import load_adapter, load_model, merge, save_adapter

    with tempfile.TemporaryDirectory() as folder:
        save_adapter(network, folder, base=start)
        base = load_model(start, dtype=torch.float32, compile=False).llama()
        return merge(load_adapter(base, folder))
