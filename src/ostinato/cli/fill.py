"""`ostinato fill`: fill the gaps of a text with a masked language model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.options import json_option, run_option, seed_option
from ostinato.cli.run_loop import exit_interrupted, refuse_errors, rows_of
from ostinato.cli.runs.run_guard import WEIGHTS, run_settings
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.journal import JSON
    from ostinato.loop import Step


@click.command()
@click.argument("text")
@click.option("--model", help="Folder of `ostinato train text --kind masked`, or of a BERT.")
@click.option("--gap-tokens", default=8, type=click.IntRange(min=1), help="Tokens per gap.")
@click.option("--steps", default=8, type=click.IntRange(min=1), help="Unmasking steps.")
@click.option("--temperature", default=0.7, type=float, help="Sampling temperature; 0: greedy.")
@click.option(
    "--noise",
    default=1.0,
    type=float,
    help="Gumbel noise on the confidence that decides which tokens to keep.",
)
@seed_option
@click.option("--show", is_flag=True, help="Print the text at every step; a masked token is a dot.")
@run_option
@json_option
def fill(
    text: str,
    model: str | None,
    gap_tokens: int,
    steps: int,
    temperature: float,
    noise: float,
    seed: int,
    show: bool,
    run_name: str | None,
    as_json: bool,
) -> None:
    """Fill the gaps of TEXT, each marked as ___, most confident tokens first."""
    from ostinato.loop import CheckpointSchedule, check_seed
    from ostinato.models import weights_digest
    from ostinato.text import FillConfig, fill_gaps

    if model is None:
        raise InputError(
            "--model must name the folder of a masked language model, got none: no such model "
            "ships. Name a BERT's folder, or train a small one on texts of yours: "
            "ostinato train text FILE.txt --kind masked --out masked"
        )
    inputs: dict[str, JSON] = {
        "text": text,
        "model": model,
        "gap_tokens": gap_tokens,
        "steps": steps,
        "temperature": temperature,
        "noise": noise,
        "seed": check_seed(seed),
        WEIGHTS: weights_digest(model),
    }
    settings = run_settings(run_name, "fill", inputs)
    if run_name is not None:
        # There are few steps and they are small: a branch may start from any of them.
        settings["checkpoint"] = CheckpointSchedule(steps=1, keep=steps)
    loop = fill_gaps(
        [text],
        model=model,
        gap_tokens=gap_tokens,
        steps=steps,
        fill=FillConfig(temperature=temperature, noise=noise),
        seed=seed,
        **settings,
    )

    def watch(step: Step) -> None:
        for lane in step.lanes.values() if show and not as_json else ():
            click.echo(f"{lane.position:4}  {lane.report['text']}")

    rows = rows_of(loop, run_name, watch=watch)
    if not rows:
        exit_interrupted(0, 1, "texts", run_name)
    refuse_errors(rows)
    output = str(rows[0]["output"])
    result: dict[str, Any] = {"text": output, "stopped": rows[0]["stopped"]}
    click.echo(json.dumps(result) if as_json else output)
    if not as_json:
        click.echo(f"[{result['stopped']['sentence']}]", err=True)
