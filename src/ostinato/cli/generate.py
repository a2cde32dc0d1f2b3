"""`ostinato generate`: write text token by token, and tell why it stopped."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ostinato.cli.constraint_options import constraint_from, constraint_options
from ostinato.cli.exit_codes import Exit
from ostinato.cli.runs.recorded_command import begun_by
from ostinato.cli.runs.run_guard import WEIGHTS, refuse_another
from ostinato.cli.signals import ends_by_signal
from ostinato.cli.text_output import TextOutput
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.decode import Constraint, DraftProposer, SamplingParams
    from ostinato.journal import JSON
    from ostinato.loop import Condition, Loop
    from ostinato.models import LanguageModel
    from ostinato.remote import Server

TOP_K = 50


@click.command()
@click.argument("prompt", required=False)
@click.option(
    "--model",
    default="smollm2",
    show_default=True,
    help="A model's name or folder, or a server's: http://HOST:PORT/v1#MODEL",
)
@click.option("--key-env", metavar="NAME", help="The variable that holds the server's key.")
@click.option("--adapter", help="An adapter's name or folder.")
@click.option(
    "--compile/--no-compile",
    default=None,
    help="Compile the network's pass for this machine: faster. [default: where it can be]",
)
@click.option("--int8", is_flag=True, help="Round the weights to 8 bits (compiled).")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N")
@click.option(
    "--plain", is_flag=True, help="Continue the prompt as it is, without a chat template."
)
@click.option("--system", help="A system message before the prompt.")
@click.option("--max-new-tokens", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--stop", multiple=True, help="End at this phrase (may be given again).")
@click.option("--each", help="End by this condition, such as: Exceeds('entropy', above=4)")
@click.option("--temperature", default=0.7, show_default=True, type=float, help="0: the likeliest.")
@click.option("--top-k", default=TOP_K, show_default=True, type=int)
@click.option("--top-p", default=1.0, show_default=True, type=float)
@click.option("--min-p", default=0.0, show_default=True, type=float)
@click.option("--repetition-penalty", default=1.0, show_default=True, type=float)
@click.option(
    "--end-bias",
    default=0.0,
    show_default=True,
    type=float,
    help="Raise the end's logit toward the limit, up to this.",
)
@click.option(
    "--end-within",
    default=32,
    show_default=True,
    type=int,
    help="Tokens in which --end-bias grows.",
)
@constraint_options
@click.option(
    "--prompt-lookup",
    metavar="N",
    type=click.IntRange(1, 64),
    help="Compute N tokens ahead, as they followed before: the same text, sooner.",
)
@click.option(
    "--draft-model",
    metavar="MODEL",
    help="Compute 4 tokens ahead, guessed by this smaller model.",
)
@click.option(
    "--num-beams",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Above 1: search the likeliest text with so many kept; nothing is drawn.",
)
@click.option(
    "--length-penalty",
    default=1.0,
    show_default=True,
    type=float,
    help="Of --num-beams; 0: none.",
)
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--show", is_flag=True, help="Print each token with its probability and runners-up.")
@click.option("--run", "run_name", help="Journal it as a run; the same name goes on where it was.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def generate(
    prompt: str | None,
    model: str,
    key_env: str | None,
    adapter: str | None,
    compile: bool | None,
    int8: bool,
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
    """Write a text that answers PROMPT (or standard input), token by token.

    With --run it is journaled: the same command prints what there is and goes on where it was.
    Exit codes: 0 the text ended; 1 it could not be written; 2 something given is wrong; 130
    interrupted.
    """
    from ostinato.decode import SamplingParams
    from ostinato.loop import check_seed
    from ostinato.models import weights_digest

    text = sys.stdin.read() if prompt in (None, "-") else prompt
    if not text or not text.strip():
        raise InputError("The prompt must be a text, got nothing. Give it as an argument.")
    if plain and system:
        raise InputError(
            "--system must be given without --plain, which leaves the chat template out, got both. "
            "Leave one out, or begin the prompt with it."
        )
    if sum((prompt_lookup is not None, draft_model is not None, num_beams > 1)) > 1:
        raise InputError(
            "--prompt-lookup, --draft-model and --num-beams must be given alone, got two. Leave one."
        )
    _refuse_without_effect(num_beams)
    if int8 and compile is False:
        raise InputError("--int8 must be given without --no-compile, got both. Leave one out.")
    constraint = constraint_from(sampling)
    if constraint is not None and num_beams > 1:
        raise InputError("A constraint must be given without --num-beams, got both. Leave one out.")
    messages = [{"role": "system", "content": system}] if system else []
    order = GenerateOptions(
        prompt=[*messages, {"role": "user", "content": text}] if system else text,
        model=model,
        key_env=key_env,
        adapter=adapter,
        compile=compile,
        int8=int8,
        device=device,
        plain=plain,
        each=_condition(max_new_tokens, stop, each),
        sampling=SamplingParams(**sampling),
        seed=check_seed(seed),
        alternatives=5 if (show or each) and num_beams == 1 else 0,
        prompt_lookup=prompt_lookup,
        draft_model=draft_model,
        num_beams=num_beams,
        length_penalty=length_penalty,
        constraint=constraint,
        weights=weights_digest(model, adapter) if run_name is not None else "",
    )
    try:
        sys.exit(_generate(order, run_name, begun_by(text), show=show, as_json=as_json))
    except KeyboardInterrupt:
        click.echo("\nInterrupted.", err=True)
        sys.exit(Exit.INTERRUPTED)


OF_SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p", "repetition_penalty"),
    *("end_bias", "end_within", "seed"),
)


def _refuse_without_effect(num_beams: int) -> None:
    """Refuse options that were given and would change nothing."""
    context = click.get_current_context()

    def given(name: str) -> bool:
        return context.get_parameter_source(name) is ParameterSource.COMMANDLINE

    if num_beams == 1 and given("length_penalty"):
        raise InputError(
            "--length-penalty must be given with --num-beams, got none. Add --num-beams 4."
        )
    for name in OF_SAMPLING:
        if num_beams > 1 and given(name):
            raise InputError(
                f"--{name.replace('_', '-')} must be given without --num-beams, which draws nothing, "
                "got both. Leave one out."
            )


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """What is to be written: the same for a run that goes on."""

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
    int8: bool = False
    device: str = "cpu"
    weights: str = ""

    def to_json(self) -> dict[str, JSON]:
        """Return it as it is recorded with a run: all that its text depends on."""
        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        of_beams = ("num_beams", "length_penalty") if self.num_beams == 1 else ()
        usual = {"compile": None, "int8": False, "device": "cpu", WEIGHTS: ""}
        usual |= {"constraint": None, "key_env": None}
        ways = [name for name, value in usual.items() if values[name] == value]
        for name in ("prompt_lookup", "draft_model", *of_beams, *ways):
            del values[name]
        sampling = {name: str(value) for name, value in asdict(self.sampling).items()}
        if self.constraint is not None:
            values["constraint"] = self.constraint.to_json()
        if not self.sampling.end_bias:
            del sampling["end_bias"], sampling["end_within"]
        return {**values, "each": str(self.each), "sampling": sampling}

    def loop(self, run_name: str | None, begun: Mapping[str, JSON]) -> Loop:
        """Load the model and return the loop; `begun` is recorded with its run."""
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
            spec={"generate": self.to_json(), **begun},
        )

    def _proposer(self) -> DraftProposer | None:
        from ostinato.decode import DraftModel, PromptLookup
        from ostinato.models import load_model

        if self.draft_model is not None:
            return DraftModel(load_model(self.draft_model, device=self.device))
        return PromptLookup(self.prompt_lookup) if self.prompt_lookup is not None else None

    def _sampling(self) -> SamplingParams:
        """Return the sampling; a server is not asked for a `--top-k` that nobody has chosen."""
        from ostinato.remote import is_server

        usual = is_server(self.model) and self.sampling.top_k == TOP_K
        return replace(self.sampling, top_k=0) if usual else self.sampling

    def _model(self) -> LanguageModel | Server:
        """Load the model, or return the server that has it."""
        from ostinato.models import load_model
        from ostinato.remote import Server, is_server

        if not is_server(self.model):
            if self.key_env:
                raise InputError(
                    f"--key-env must be given with a server, got the model {self.model!r}. "
                    "Leave it out."
                )
            return load_model(
                self.model,
                adapter=self.adapter,
                compile=self.compile,
                int8=self.int8,
                device=self.device,
            )
        refused = {
            "--adapter": self.adapter,
            "--compile or --int8": self.compile or self.int8,
            "--device": self.device != "cpu",
            "--show or --each": self.alternatives,
        }
        for option, given in refused.items():
            if given:
                raise InputError(
                    f"{option} must be given with a model in this process, got the server "
                    f"{self.model}. Leave it out."
                )
        api = "completions" if self.plain else "chat"
        return Server.of(self.model, api=api, key_env=self.key_env or "")


def _generate(
    order: GenerateOptions,
    run_name: str | None,
    begun: Mapping[str, JSON],
    *,
    show: bool,
    as_json: bool,
) -> Exit:
    """Write the text, or print that of a run which is finished, and say why it ended."""
    written = TextOutput(show=show, quiet=as_json, beams=order.num_beams > 1)
    if run_name is not None and refuse_another(run_name, "generate", order.to_json()):
        written.recall(run_name)
        written.tell(f" The run {run_name!r} is finished.")
        return written.exit
    loop = order.loop(run_name, begun)
    if run_name is not None:
        written.recall(run_name, loop.tick)
    with ends_by_signal(loop) as asked, loop:
        for step in loop:
            for lane in step.lanes.values():
                written.add(lane.position, lane.report)
            for _, row in step.results:
                written.row = row
    written.stopped = loop.stopped
    paused = asked.by_signal and not written.row
    written.tell(" The same command goes on." if paused and run_name is not None else "")
    return Exit.INTERRUPTED if paused else written.exit


def _condition(limit: int, stop: tuple[str, ...], each: str | None) -> Condition:
    from ostinato.loop import Phrase, Steps, parse

    condition: Condition = Steps(limit)
    for phrase in stop:
        condition = condition | Phrase(phrase)
    return condition | parse(each) if each else condition
