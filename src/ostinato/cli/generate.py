"""`ostinato generate`: generate a text token by token, and say why it ended."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ostinato.cli.constraint_options import NAMES, constraint_from, constraint_options
from ostinato.cli.following import View, display_for, followed, view_options
from ostinato.cli.options import fields_as_options, flag_of, model_options, seed_option
from ostinato.cli.presenters import drive
from ostinato.cli.recording import Recording, recording_options, way_back
from ostinato.cli.run_loop import Exit
from ostinato.cli.text_output import TextOutput
from ostinato.cli.text_steps import (
    TakesTemperatures,
    compare,
    refuse_steps,
    step_options,
    waiting,
)
from ostinato.errors import InputError
from ostinato.text_files import decode_text

if TYPE_CHECKING:
    from ostinato.decode import Constraint
    from ostinato.journal import RunSource
    from ostinato.text import GenerateRun

SAMPLING_OPTIONS = (
    *("temperature", "top_k", "top_p", "min_p", "repetition_penalty"),
    *("end_bias", "end_within", "seed"),
)
"""Without effect on beam search, which does not sample."""


_SPELLED = {
    "prompt": "PROMPT or --system",
    "weights": "model (its files have changed)",
    "bits": "--int8 or --int4",
    "alternatives": "--show, --step or --each",
    "constraint": ", ".join(map(flag_of, NAMES[:-1])) + f" or {flag_of(NAMES[-1])}",
}


def spelled(name: str) -> str:
    """Return how a field is called on the command line."""
    field, *_ = name.split(".")
    return _SPELLED.get(field) or flag_of(field)


@click.command(cls=TakesTemperatures)
@click.argument("prompt", required=False)
@click.option(
    "--model",
    default="smollm2",
    help="Name, folder, or server: http://HOST:PORT/v1#MODEL",
)
@click.option("--key-env", metavar="NAME", help="Environment variable with the server's API key.")
@model_options
@click.option("--plain", is_flag=True, help="Continue the prompt without a chat template.")
@click.option("--system", help="System message.")
@click.option(
    "--max-new-tokens", default=200, type=click.IntRange(min=1), help="Token limit of the text."
)
@click.option("--stop", multiple=True, help="Stop string; repeatable.")
@click.option("--each", help="Stop condition of the text, such as: Exceeds('entropy', above=4)")
@click.option("--temperature", default=0.7, type=float, help="Sampling temperature; 0: greedy.")
@click.option("--top-k", default=50, type=int, help="Top-k sampling; 0: off.")
@click.option("--top-p", default=1.0, type=float, help="Nucleus sampling; 1: off.")
@click.option(
    "--min-p", default=0.0, type=float, help="Min-p: cutoff as a share of the top probability."
)
@click.option("--repetition-penalty", default=1.0, type=float, help="Repetition penalty; 1: off.")
@click.option(
    "--end-bias", default=0.0, type=float, help="Logit added to the end token near the limit."
)
@click.option(
    "--end-within", default=32, type=int, help="Tokens before the limit in which --end-bias grows."
)
@constraint_options
@click.option(
    "--prompt-lookup",
    metavar="N",
    type=click.IntRange(1, 64),
    help="Speculative decoding: propose N tokens from the text so far.",
)
@click.option(
    "--draft-model",
    metavar="MODEL",
    help="Speculative decoding: a smaller model proposes 4 tokens.",
)
@click.option(
    "--num-beams", default=1, type=click.IntRange(1, 64), help="Beam search; 1: sampling."
)
@click.option(
    "--length-penalty", default=1.0, type=float, help="Length penalty of --num-beams; 0: none."
)
@seed_option
@click.option("--show", is_flag=True, help="Print each token with its probability and runners-up.")
@step_options
@view_options
@recording_options(spelled)
def generate(
    prompt: str | None,
    model: str,
    adapter: str | None,
    draft_model: str | None,
    system: str | None,
    each: str | None,
    show: bool,
    step: bool,
    pace: float | None,
    temperatures: tuple[float, ...],
    view: View,
    recording: Recording,
    **settings: Any,
) -> None:
    """Generate a text that answers PROMPT (or standard input), token by token.

    It is recorded as a run: the same command with --run resumes it, and prints the text again when
    it is finished. Exit codes: 0 the text ended; 1 it could not be written; 2 an argument or a file
    is wrong; 130 interrupted.
    """
    from ostinato.loop import parse
    from ostinato.models import adapter_place, model_place, split_adapter, weights_digest
    from ostinato.remote import is_server
    from ostinato.text import GenerateRun

    constraint = constraint_from(settings)
    # Before the model is loaded, so that a typing error costs no time.
    _refuse_conflicts(click.get_current_context().params, constraint)
    _refuse_without_effect(settings["num_beams"])
    refuse_steps(click.get_current_context())
    if adapter is None and not is_server(model):
        model, adapter = split_adapter(model)
    config = GenerateRun(
        prompt=_prompt(prompt, system),
        model=model_place(model),
        adapter=adapter_place(adapter) if adapter else None,
        weights=weights_digest(model, adapter),
        draft_model=None if draft_model is None else model_place(draft_model),
        constraint=constraint,
        each=None if each is None else str(parse(each)),
        # A condition of --each may read `entropy`, which is reported only with alternatives.
        alternatives=5
        if (show or each or step or temperatures) and settings["num_beams"] == 1
        else 0,
        **_settings_of(model, settings),
    )
    if not is_server(model) and config.num_beams == 1:
        config = replace(config, **_recommended(config, recording, view))
    view = replace(view, show=show, step=step, pace=pace)
    if temperatures:
        with fields_as_options(spelled):
            sys.exit(compare(config, temperatures, view))
    sys.exit(drive(config, recording, view, spelled))


def _prompt(typed: str | None, system: str | None) -> str | tuple[Mapping[str, str], ...]:
    """Return the text or the messages; from standard input where no text is typed."""
    text = typed
    if text in (None, "-"):
        text = decode_text(sys.stdin.buffer.read(), "Standard input", fix="Send UTF-8.")
    if not text or not text.strip():
        raise InputError(
            "PROMPT must be a text, got nothing. Give it as an argument or on standard input."
        )
    if not system:
        return text
    return ({"role": "system", "content": system}, {"role": "user", "content": text})


def _settings_of(model: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings for a model: a server gets top-k only where it is typed.

    OpenAI's own API refuses it.
    """
    from ostinato.remote import is_server

    return {**settings, "top_k": 0} if is_server(model) and not _typed("top_k") else settings


def _recommended(config: GenerateRun, recording: Recording, view: View) -> dict[str, Any]:
    """Return the sampling that is not typed: that of the run to resume, else the model's own."""
    from ostinato.models import RECOMMENDED, recommendation, recommended_sampling
    from ostinato.text import GenerateRun

    typed, before = [name for name in RECOMMENDED if _typed(name)], recording.before()
    if _typed("temperatures"):
        typed.append("temperature")
    if isinstance(before, GenerateRun):
        return {name: getattr(before, name) for name in RECOMMENDED if name not in typed}
    found = recommended_sampling(config.model, without=typed)
    view.say(recommendation(found))
    return dict(found)


def _refuse_conflicts(params: Mapping[str, Any], constraint: Constraint | None) -> None:
    """Raise `InputError` for options that exclude one another."""
    beams = params["num_beams"] > 1
    if params["plain"] and params["system"]:
        raise InputError(
            "--system must be given without --plain, which leaves the chat template out, got both. "
            "Leave one out, or put the message at the start of the prompt."
        )
    if sum((params["prompt_lookup"] is not None, params["draft_model"] is not None, beams)) > 1:
        raise InputError(
            "--prompt-lookup, --draft-model and --num-beams must be given alone, got two. Keep one."
        )
    if params["bits"] and params["compile"] is False:
        raise InputError(
            f"--int{params['bits']} must be given without --no-compile, got both. Leave one out."
        )
    if constraint is not None and beams:
        raise InputError("A constraint must be given without --num-beams, got both. Leave one out.")


def _refuse_without_effect(num_beams: int) -> None:
    """Raise `InputError` for a typed option that would change nothing."""
    if num_beams == 1 and _typed("length_penalty"):
        raise InputError(
            "--length-penalty must be given with --num-beams, got none. Add --num-beams 4."
        )
    for name in SAMPLING_OPTIONS:
        if num_beams > 1 and _typed(name):
            raise InputError(
                f"{flag_of(name)} must be given without --num-beams, which does not "
                "sample, got both. Leave one out."
            )


def _typed(name: str) -> bool:
    context = click.get_current_context()
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def present(config: GenerateRun, run: RunSource | None, view: View) -> Exit:
    """Generate the text and print it token by token, or print that of a finished run.

    A finished run needs no model.
    """
    from ostinato.journal import Run, StopKind
    from ostinato.loop import ends_by_signal
    from ostinato.refine import tally_of
    from ostinato.runs import build_config

    beams = config.num_beams > 1
    if (view.show or view.step) and not beams and not config.alternatives:
        raise InputError(
            f"--{'step' if view.step else 'show'} must be given when a text starts, got it for one "
            "whose steps were recorded without runners-up. Leave it out."
        )
    output = TextOutput(view=view, beams=beams)
    if isinstance(run, Run) and run.status == "stopped":
        output.recall(run)
        output.finish(f" The run {run.name!r} is finished.")
        return output.exit
    loop = build_config(config, run=run, say=view.say).loop
    if loop.recorded_as is not None:
        output.recall(loop.recorded_as, loop.tick)
    display = display_for(tally_of(1, loop.recorded_as), view, alone=True)
    with (
        ends_by_signal(loop) as signaled,
        followed(loop, view, display),
        loop,
        waiting(config, output, view, ended=lambda: signaled.number) as goes_on,
    ):
        for step in loop:
            display.step(step)
            for lane in step.lanes.values():
                if not goes_on(lane.report):
                    loop.pause("It was left.")
                output.add(lane.position, lane.report)
            for result in step.results:
                output.result = result
    output.stopped = loop.stopped
    # What ends it during the last step comes too late to interrupt anything.
    left = signaled.number or (loop.stopped is not None and loop.stopped.kind is StopKind.PERSON)
    paused = left and output.result is None
    output.finish()
    if paused:
        click.echo(way_back(loop.recorded_as), err=True)
    return Exit.INTERRUPTED if paused else output.exit
