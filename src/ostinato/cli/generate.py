"""`ostinato generate`: generate a text token by token, and say why it ended."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ostinato.cli.constraint_options import constraint_from, constraint_options
from ostinato.cli.options import json_option, model_options, run_option, seed_option
from ostinato.cli.run_loop import RESUME, Exit
from ostinato.cli.runs.recorded_command import command_spec
from ostinato.cli.runs.run_guard import WEIGHTS, require_same_inputs
from ostinato.cli.text_output import TextOutput
from ostinato.errors import InputError, ModelError
from ostinato.text_files import decode_text

if TYPE_CHECKING:
    from ostinato.decode import Constraint, DraftProposer, SamplingParams
    from ostinato.journal import JSON
    from ostinato.loop import Condition, Loop
    from ostinato.models import LanguageModel
    from ostinato.remote import Server

TOP_K = 50
SAMPLING_OPTIONS = (
    *("temperature", "top_k", "top_p", "min_p", "repetition_penalty"),
    *("end_bias", "end_within", "seed"),
)
"""Without effect on beam search, which does not sample."""


@click.command()
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
@click.option("--top-k", default=TOP_K, type=int, help="Top-k sampling; 0: off.")
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
@run_option
@json_option
def generate(
    prompt: str | None,
    model: str,
    key_env: str | None,
    adapter: str | None,
    compile: bool | None,
    bits: int | None,
    device: str,
    plain: bool,
    system: str | None,
    max_new_tokens: int,
    stop: tuple[str, ...],
    each: str | None,
    prompt_lookup: int | None,
    draft_model: str | None,
    num_beams: int,
    length_penalty: float,
    seed: int,
    show: bool,
    run_name: str | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Generate a text that answers PROMPT (or standard input), token by token.

    With --run the same command prints the text so far and resumes. Exit codes: 0 the text ended; 1
    it could not be written; 2 an argument or a file is wrong; 130 interrupted.
    """
    from ostinato.decode import SamplingParams
    from ostinato.loop import check_seed
    from ostinato.models import weights_digest

    text = prompt
    if prompt in (None, "-"):
        text = decode_text(sys.stdin.buffer.read(), "Standard input", fix="Send UTF-8.")
    if not text or not text.strip():
        raise InputError(
            "PROMPT must be a text, got nothing. Give it as an argument or on standard input."
        )
    constraint = constraint_from(sampling)
    # Before the model is loaded, so that a typing error costs no time.
    _refuse_conflicts(click.get_current_context().params, constraint)
    _refuse_without_effect(num_beams)
    messages = [{"role": "system", "content": system}] if system else []
    options = GenerateOptions(
        prompt=[*messages, {"role": "user", "content": text}] if system else text,
        model=model,
        key_env=key_env,
        adapter=adapter,
        compile=compile,
        bits=bits,
        device=device,
        plain=plain,
        each=_condition(max_new_tokens, stop, each),
        sampling=SamplingParams(**sampling),
        seed=check_seed(seed),
        # A condition of --each may read `entropy`, which is reported only with alternatives.
        alternatives=5 if (show or each) and num_beams == 1 else 0,
        prompt_lookup=prompt_lookup,
        draft_model=draft_model,
        num_beams=num_beams,
        length_penalty=length_penalty,
        constraint=constraint,
        # Hashing reads all weights, so only a run that may be resumed pays for it.
        weights=weights_digest(model, adapter) if run_name is not None else "",
    )
    try:
        sys.exit(_generate(options, run_name, command_spec(text), show=show, as_json=as_json))
    except KeyboardInterrupt:
        click.echo("\nInterrupted.", err=True)
        sys.exit(Exit.INTERRUPTED)


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
    context = click.get_current_context()

    def typed(name: str) -> bool:
        return context.get_parameter_source(name) is ParameterSource.COMMANDLINE

    if num_beams == 1 and typed("length_penalty"):
        raise InputError(
            "--length-penalty must be given with --num-beams, got none. Add --num-beams 4."
        )
    for name in SAMPLING_OPTIONS:
        if num_beams > 1 and typed(name):
            raise InputError(
                f"--{name.replace('_', '-')} must be given without --num-beams, which does not "
                "sample, got both. Leave one out."
            )


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """What a text depends on: the same when its run resumes."""

    prompt: Any
    model: str
    adapter: str | None
    plain: bool
    each: Condition
    sampling: SamplingParams
    seed: int
    alternatives: int
    key_env: str | None = None
    prompt_lookup: int | None = None
    draft_model: str | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    constraint: Constraint | None = None
    compile: bool | None = None
    bits: int | None = None
    device: str = "cpu"
    weights: str = ""

    def to_json(self) -> dict[str, JSON]:
        """Return the options as a run records them.

        A younger option is left out at its default, so that runs of older versions resume.
        Proposals are left out because they change the speed, never the text.
        """
        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        beam_options = ("num_beams", "length_penalty") if self.num_beams == 1 else ()
        defaults = {"compile": None, "bits": None, "device": "cpu", WEIGHTS: ""}
        defaults |= {"constraint": None, "key_env": None}
        unset = [name for name, value in defaults.items() if values[name] == value]
        for name in ("prompt_lookup", "draft_model", *beam_options, *unset):
            del values[name]
        sampling = {name: str(value) for name, value in asdict(self.sampling).items()}
        if self.constraint is not None:
            values["constraint"] = self.constraint.to_json()
        if not self.sampling.end_bias:
            del sampling["end_bias"], sampling["end_within"]
        return {**values, "each": str(self.each), "sampling": sampling}

    def loop(self, run_name: str | None, command: Mapping[str, JSON]) -> Loop:
        """Load the model and return the loop; the run's spec records `command`."""
        from ostinato.text import write

        return write(
            [self.prompt],
            model=self._model(),
            each=self.each,
            sampling=self._sampling(),
            seed=self.seed,
            chat=not self.plain,
            alternatives=self.alternatives,
            proposer=self._proposer(),
            num_beams=self.num_beams,
            length_penalty=self.length_penalty,
            constraint=self.constraint,
            run=run_name,
            spec={"generate": self.to_json(), **command},
        )

    def _proposer(self) -> DraftProposer | None:
        from ostinato.decode import DraftModel, PromptLookup
        from ostinato.models import shared_model

        if self.draft_model is not None:
            try:
                return DraftModel(shared_model(self.draft_model, device=self.device))
            except ModelError as error:
                raise ModelError(f"--draft-model: {error}") from None
        return PromptLookup(self.prompt_lookup) if self.prompt_lookup is not None else None

    def _sampling(self) -> SamplingParams:
        """Return the sampling parameters, for a server without our default of `--top-k`.

        OpenAI's own API refuses top-k, so it is sent only where someone chose it.
        """
        from ostinato.remote import is_server

        default = is_server(self.model) and self.sampling.top_k == TOP_K
        return replace(self.sampling, top_k=0) if default else self.sampling

    def _model(self) -> LanguageModel | Server:
        """Load the model, or return its server. Raises `InputError` for options of the other."""
        from ostinato.inference import check_before_loading
        from ostinato.models import load_model
        from ostinato.remote import Server, is_server

        if not is_server(self.model):
            if self.key_env:
                raise InputError(
                    f"--key-env must be given with a server, got the model {self.model!r}. "
                    "Leave it out."
                )
            check_before_loading(
                self.model,
                slots=self.num_beams,
                compile=self.compile,
                bits=self.bits,
                device=self.device,
                adapter=self.adapter,
                say=partial(click.echo, err=True),
            )
            return load_model(
                self.model,
                adapter=self.adapter,
                compile=self.compile,
                bits=self.bits,
                device=self.device,
            )
        local_only = {
            "--adapter": self.adapter,
            "--compile, --int8 or --int4": self.compile or self.bits,
            "--device": self.device != "cpu",
            "--show or --each": self.alternatives,
        }
        for option, value in local_only.items():
            if value:
                raise InputError(
                    f"{option} must be given with a model in this process, got the server "
                    f"{self.model}. Leave it out."
                )
        api = "completions" if self.plain else "chat"
        return Server.of(self.model, api=api, key_env=self.key_env or "")


def _generate(
    options: GenerateOptions,
    run_name: str | None,
    command: Mapping[str, JSON],
    *,
    show: bool,
    as_json: bool,
) -> Exit:
    """Generate the text, or print that of a finished run without loading the model."""
    output = TextOutput(show=show, quiet=as_json, beams=options.num_beams > 1)
    if run_name is not None and require_same_inputs(run_name, "generate", options.to_json()):
        output.recall(run_name)
        output.finish(f" The run {run_name!r} is finished.")
        return output.exit
    loop = options.loop(run_name, command)
    if run_name is not None:
        output.recall(run_name, loop.tick)
    from ostinato.loop import ends_by_signal

    with ends_by_signal(loop) as signaled, loop:
        for step in loop:
            for lane in step.lanes.values():
                output.add(lane.position, lane.report)
            for _, row in step.results:
                output.row = row
    output.stopped = loop.stopped
    # A signal during the last step comes too late to interrupt anything.
    paused = signaled.number and not output.row
    output.finish(f" {RESUME}" if paused and run_name is not None else "")
    return Exit.INTERRUPTED if paused else output.exit


def _condition(limit: int, stop: tuple[str, ...], each: str | None) -> Condition:
    from ostinato.loop import Phrase, Steps, parse

    condition: Condition = Steps(limit)
    for phrase in stop:
        condition = condition | Phrase(phrase)
    return condition | parse(each) if each else condition
