"""`ostinato tune`: tune a model by the checks of a job, until its drafts pass more often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ostinato.cli.train.command import TrainCommand
from ostinato.cli.train.line import line
from ostinato.cli.train.options import TrainingOptions
from ostinato.cli.train.settings import Setting
from ostinato.reward import GroupConfig

if TYPE_CHECKING:
    from ostinato.cli.following import View
    from ostinato.cli.run_loop import Exit
    from ostinato.journal import RunConfig, RunSource
    from ostinato.loop import Step
    from ostinato.train import TrainingWork


def _typed(values: dict[str, Any], options: TrainingOptions) -> dict[str, Any]:
    """Show a text whenever the held-out prompts are looked at."""
    return {"sample_every": values.get("valid_every", GroupConfig.valid_every)} | values


def _sample(step: Step, work: TrainingWork) -> str:
    """Return a text of the step, and how fast the step was."""
    seconds: dict[str, float] = getattr(work.process, "seconds", {})
    took = sum(seconds.values())
    samples, tokens = (float(str(step.report[name])) for name in ("samples", "tokens"))
    speed = f"  | {samples / took:.2f} samples/s, {tokens / took:.0f} tokens/s" if took else ""
    text = "  | " + str(step.report["sample"]).strip().replace("\n", "\n  | ")
    return f"{text}\n{speed}".rstrip()


TUNE = TrainCommand(
    kind="tune",
    help="""Tune the model of the job JOB.toml by the job's checks: they are its reward.

    The model writes groups of texts for the job's prompts and learns which of a group pass more
    checks. --out gets an adapter: ostinato refine JOB.toml --adapter OUT. The same command resumes.
    """,
    line=line(
        "reward {reward:.3f}",
        "passed {passed:4.0%}",
        "length {length:.0f}",
        "kl {kl:.4f}",
        "entropy {entropy:.2f}",
        "held out at first: reward {start/reward/valid:.3f}",
        "passed {start/passed/valid:4.0%}",
        "held out: reward {reward/valid:.3f}",
        "passed {passed/valid:4.0%}",
        "copied {copied:4.0%}",
        "bits {bits:.2f}",
    ),
    sample=_sample,
    overrides={
        "sample_every": Setting(int, "Steps between samples; 0: none.  [default: as --valid-every]")
    },
    typed=_typed,
)

tune = TUNE.command()


def present(config: RunConfig, run: RunSource | None, view: View) -> Exit:
    """Resume a tuning as the command drives it."""
    return TUNE.present(config, run, view)
