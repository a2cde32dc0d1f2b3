"""Builds the runs that write a text and fill gaps from their configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ostinato.decode import DraftModel, DraftProposer, PromptLookup, SamplingParams
from ostinato.errors import InputError, ModelError
from ostinato.inference import check_before_loading
from ostinato.journal import RunSource, require_unchanged
from ostinato.loop import CheckpointSchedule, ItemsWork, Work
from ostinato.models import LanguageModel, load_model, near_place, shared_model, weights_digest
from ostinato.remote import Server, is_server
from ostinato.text.config import FillRun, GenerateRun
from ostinato.text.filling import fill_gaps
from ostinato.text.unmask import FillConfig
from ostinato.text.writing import TextLoop, write


def build_generate(
    config: GenerateRun,
    *,
    run: RunSource | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Work:
    """Build the run that writes one text; `say` gets a line about what takes long before it.

    Raises `ModelError` for a model that cannot be loaded, `InputError` for settings that it lacks,
    `RunError` where its files have changed since the run started.
    """
    return Work(loop=_loop(config, _model(config, say), run))


def write_at_temperatures(
    config: GenerateRun,
    temperatures: Sequence[float],
    *,
    say: Callable[[str], None] = lambda line: None,
) -> list[TextLoop]:
    """Return the loop of the same text for each temperature, with one model and unrecorded.

    All draw with the same random numbers, so what differs is due to the temperature. Raises as
    `build_generate` does.
    """
    each = [replace(config, temperature=temperature) for temperature in temperatures]
    model = _model(config, say)
    return [_loop(one, model, None) for one in each]


def _model(config: GenerateRun, say: Callable[[str], None]) -> LanguageModel | Server:
    return _server(config) if is_server(config.model) else _local_model(config, say)


def _loop(config: GenerateRun, model: LanguageModel | Server, run: RunSource | None) -> TextLoop:
    prompt = config.prompt if isinstance(config.prompt, str) else list(config.prompt)
    return write(
        [prompt],
        model=model,
        each=config.condition(),
        sampling=_sampling(config),
        seed=config.seed,
        chat=not config.plain,
        alternatives=config.alternatives,
        proposer=_proposer(config),
        num_beams=config.num_beams,
        length_penalty=config.length_penalty,
        constraint=config.constraint,
        run=run,
    )


def _local_model(config: GenerateRun, say: Callable[[str], None]) -> LanguageModel:
    name = near_place(config.model)
    if config.key_env:
        raise _misplaced("key_env", "a server", f"the model {name!r}")
    today = weights_digest(config.model, config.adapter)
    require_unchanged(f"The files of {name}", config.weights, today)
    asked = {each: getattr(config, each) for each in ("compile", "bits", "device")}
    asked["adapter"] = config.adapter and near_place(config.adapter)
    check_before_loading(name, slots=config.num_beams, say=say, **asked)
    return load_model(name, **asked)


def _server(config: GenerateRun) -> Server:
    """Return the server. Raises `InputError` for settings of models in this process."""
    for name, default in _LOCAL_ONLY.items():
        if getattr(config, name) != default:
            raise _misplaced(name, "a model in this process", f"the server {config.model}")
    api = "completions" if config.plain else "chat"
    return Server.of(config.model, api=api, key_env=config.key_env or "")


_LOCAL_ONLY: Mapping[str, object] = {
    "adapter": None,
    "compile": None,
    "bits": None,
    "device": "cpu",
    "alternatives": 0,
    "num_beams": 1,
    "constraint": None,
    "prompt_lookup": None,
    "draft_model": None,
}
"""Settings that a server does not have, with their defaults."""


def _misplaced(name: str, expected: str, got: str) -> InputError:
    error = InputError(f"{name} must be given with {expected}, got {got}. Leave it out.")
    error.key = name
    return error


def _sampling(config: GenerateRun) -> SamplingParams:
    names = SamplingParams.__dataclass_fields__.keys() & GenerateRun.__dataclass_fields__.keys()
    return SamplingParams(**{name: getattr(config, name) for name in names})


def _proposer(config: GenerateRun) -> DraftProposer | None:
    if config.draft_model is not None:
        try:
            return DraftModel(shared_model(near_place(config.draft_model), device=config.device))
        except ModelError as error:
            raise ModelError(f"The draft model cannot be used: {error}") from None
    return None if config.prompt_lookup is None else PromptLookup(config.prompt_lookup)


def build_fill(config: FillRun, *, run: RunSource | None = None) -> ItemsWork:
    """Build the run that fills the gaps of one text.

    Raises `RunError` where the model's files have changed since the run started.
    """
    name = near_place(config.model)
    require_unchanged(f"The files of {name}", config.weights, weights_digest(config.model))
    # There are few steps and they are small: a branch may start from any of them.
    schedule = None if run is None else CheckpointSchedule(steps=1, keep=config.steps)
    return ItemsWork(
        loop=fill_gaps(
            [config.text],
            model=name,
            gap_tokens=config.gap_tokens,
            steps=config.steps,
            fill=FillConfig(temperature=config.temperature, noise=config.noise),
            seed=config.seed,
            run=run,
            checkpoint=schedule,
        )
    )
