"""A discriminator and a text generator in turns, and what that does to a held-out judge.

    ostinato models get smollm2
    ostinato models get minilm
    python examples/adversarial_checks/run.py

Ends in about 15 minutes on two cores; the same command resumes it. README.md says what it shows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]

from examples.adversarial_checks.discriminator import FILE  # noqa: E402
from examples.adversarial_checks.effects import Drafts  # noqa: E402
from examples.adversarial_checks.heldout_judge import HeldOutJudge  # noqa: E402
from examples.adversarial_checks.report import Effects, Measure, lines  # noqa: E402
from examples.adversarial_checks.rounds import (  # noqa: E402
    AdversarialRounds,
    Drafter,
    Writing,
    drafts_of,
)
from ostinato.checks import check  # noqa: E402
from ostinato.errors import InputError  # noqa: E402
from ostinato.journal import JSON, Journal  # noqa: E402
from ostinato.loop import CheckpointSchedule, Loop, Reaches, Steps  # noqa: E402
from ostinato.models import load_encoder, load_model  # noqa: E402
from ostinato.refine import read_job  # noqa: E402
from recipes.cli_args import positive, run  # noqa: E402

NAME = "adversarial-checks"
SUPPORT = HERE.parent / "support"
GAP = 0.05  # of an AUC to 0.5: so near, the discriminator cannot tell
RECORDED = ("model", "adapter", "first", "prompts", "drafts", "tested", "seed")


@check(name="drafts")
def every_draft(text: str) -> tuple[bool, str]:
    """Accept nothing, so that all drafts of a prompt are written."""
    return False, "All drafts are wanted."


def read_rows(path: Path, count: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file. Raises `InputError` where it has fewer than `count`."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if count is not None and len(rows) < count:
        raise InputError(f"{path.name} must have {count} rows, got {len(rows)}. Ask for fewer.")
    return rows[:count]


def play(journal: Journal, args: argparse.Namespace, draft: Drafter) -> AdversarialRounds:
    """Play the rounds, or what is left of them; print the numbers of each."""
    rows = read_rows(HERE / "loop.jsonl", args.first + (args.rounds - 1) * args.prompts)
    process = AdversarialRounds(rows, draft, first=args.first, prompts=args.prompts)
    loop = Loop(
        process,
        until=Reaches("gap", below=GAP, over=2) | Steps(args.rounds),
        run=NAME,
        journal=journal,
        checkpoint=CheckpointSchedule(steps=1),  # a round takes a minute, its state is small
        spec={"settings": settings(args)},
    )
    with loop:
        for record in journal.get(NAME).steps():
            show(record.tick, record.report)
        for step in loop:
            show(step.tick, step.report)
    print(loop.stopped.sentence if loop.stopped else "", flush=True)
    return process


def settings(args: argparse.Namespace) -> dict[str, JSON]:
    """Return what the drafts depend on, as the run records it."""
    return {name: getattr(args, name) for name in RECORDED}


def require_same_settings(journal: Journal, args: argparse.Namespace) -> None:
    """Raise `InputError` where the recorded run has other settings."""
    found = journal.find(NAME)
    before = {} if found is None else found.spec["settings"]
    assert isinstance(before, Mapping)
    for name, value in before.items():
        if settings(args)[name] != value:
            raise InputError(
                f"--{name} must be {value}, as the run {NAME!r} has it, got {settings(args)[name]}."
                " Give the same to resume it, or --fresh to start over."
            )


def show(tick: int, report: Mapping[str, Any]) -> None:
    """Print a round."""
    numbers = {name: report[name] for name in report if isinstance(report[name], float)}
    told = "  ".join(f"{name} {value:.2f}" for name, value in numbers.items())
    print(f"round {tick}  {told}  tokens {report['tokens']}", flush=True)


def measure(args: argparse.Namespace, draft: Drafter, rounds: AdversarialRounds) -> Effects:
    """Write the drafts of the held-out prompts, and measure what is picked from them."""
    rows = read_rows(SUPPORT / "messages.jsonl", args.tested)
    print(f"Writing {args.drafts} drafts for {len(rows)} held-out prompts …", flush=True)
    pools = []
    for row, result in zip(rows, draft("tested", rows, every_draft), strict=True):
        texts, tokens = zip(*drafts_of(result), strict=True)
        pools.append(Drafts(row, texts, tokens))
    judge = HeldOutJudge.train(load_encoder(args.encoder), read_rows(HERE / "judge.jsonl"))
    checks = [one for one in read_job(SUPPORT / "job.toml").checks if one.kind != "confidence"]
    fluency = load_model(args.model, compile=False)
    first, last = rounds.discriminators[1], rounds.discriminators[-1]
    return Measure(pools, judge, checks, fluency).effects(first, last)


def main(arguments: Sequence[str] | None = None) -> None:
    """Play the rounds, measure, and print what was found."""
    args = _parser().parse_args(arguments)
    load_encoder(args.encoder)  # before any work, as it may be missing
    model = load_model(args.model, adapter=args.adapter or None)
    writing = Writing(drafts=args.drafts, seed=args.seed)
    with Journal(args.journal) if args.journal else Journal() as journal:
        if args.fresh and journal.find(NAME):
            journal.delete(NAME)
        require_same_settings(journal, args)
        draft = Drafter(model, writing, journal, NAME)
        rounds = play(journal, args, draft)
        rounds.discriminators[-1].save(args.out)
        effects = measure(args, draft, rounds)
    print(json.dumps(effects.to_json()) if args.json else "\n".join(lines(effects)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2", help="what writes: a name or a folder")
    parser.add_argument("--adapter", default="support", help='its adapter; "" for none')
    parser.add_argument("--encoder", default="minilm", help="the judge's encoder")
    parser.add_argument("--rounds", type=positive, default=3, help="rounds at most")
    parser.add_argument("--first", type=positive, default=96, help="prompts of the first round")
    parser.add_argument("--prompts", type=positive, default=32, help="prompts of a later round")
    parser.add_argument("--drafts", type=positive, default=4, help="drafts of a prompt at most")
    parser.add_argument("--tested", type=positive, default=120, help="held-out prompts")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other drafts")
    parser.add_argument("--journal", type=Path, help="another journal than .ostinato/journal.db")
    parser.add_argument("--out", type=Path, default=FILE, help="the discriminator's file")
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    return parser


if __name__ == "__main__":
    try:
        run(main)
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command resumes.")
