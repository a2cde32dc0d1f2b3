"""`ostinato fill`: fill the gaps of a text, the surest tokens first."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from ostinato.cli.exit_codes import Exit
from ostinato.cli.rows import rows_of
from ostinato.cli.runs.recorded_command import begun_by
from ostinato.cli.runs.run_guard import WEIGHTS, refuse_another
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.journal import JSON
    from ostinato.loop import Step


@click.command()
@click.argument("text")
@click.option("--model", required=True, help="A folder: ostinato train text --kind masked.")
@click.option(
    "--gap-tokens", default=8, show_default=True, type=click.IntRange(min=1), help="A gap's."
)
@click.option("--steps", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--temperature", default=0.7, show_default=True, type=float, help="0: the likeliest.")
@click.option(
    "--noise", default=1.0, show_default=True, type=float, help="On which tokens are the surest."
)
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--show", is_flag=True, help="Print the text at every step; a hidden token is a dot.")
@click.option("--run", "run_name", help="Journal it as a run; the same name goes on where it was.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def fill(
    text: str,
    model: str,
    gap_tokens: int,
    steps: int,
    temperature: float,
    noise: float,
    seed: int,
    show: bool,
    run_name: str | None,
    as_json: bool,
) -> None:
    """Fill the gaps of TEXT, each marked as ___, with a network that sees both sides."""
    from ostinato.loop import CheckpointSchedule, check_seed
    from ostinato.models import weights_digest
    from ostinato.text import FillConfig, fill_gaps

    order: dict[str, JSON] = {
        "text": text,
        "model": model,
        "gap_tokens": gap_tokens,
        "steps": steps,
        "temperature": temperature,
        "noise": noise,
        "seed": check_seed(seed),
        WEIGHTS: weights_digest(model),
    }
    if run_name is not None:
        refuse_another(run_name, "fill", order)
    loop = fill_gaps(
        [text],
        model=model,
        gap_tokens=gap_tokens,
        steps=steps,
        fill=FillConfig(temperature=temperature, noise=noise),
        seed=seed,
        run=run_name,
        checkpoint=CheckpointSchedule(steps=1, keep=steps) if run_name is not None else None,
        spec={"fill": order, **begun_by()},
    )

    def watch(step: Step) -> None:
        for lane in step.lanes.values() if show and not as_json else ():
            click.echo(f"{lane.position:4}  {lane.report['text']}")

    rows = rows_of(loop, run_name, watch=watch)
    if not rows:
        click.echo("It is not filled yet. The same command goes on.", err=True)
        sys.exit(Exit.INTERRUPTED)
    if rows[0]["stopped"]["kind"] == "error":
        raise InputError(rows[0]["stopped"]["sentence"])
    output = str(rows[0]["output"])
    told = {"text": output, "stopped": rows[0]["stopped"]}
    click.echo(json.dumps(told) if as_json else output)
