"""How a run is gone on with, in words for its owner."""

from __future__ import annotations

import shlex

from ostinato.cli.jobs.job_runs import in_place_of
from ostinato.cli.runs.recorded_command import begun_of
from ostinato.journal import Run, RunRow


def way_on(run: Run) -> str:
    """Say what goes on with a run."""
    row = run.now()
    anew = ' --until "…"' if row.status == "stopped" else ""
    if "factory" in row.spec:
        return f"ostinato runs resume {row.name} --trust{anew}"
    command = own_command(run)
    if command is None:
        return f"Python: Loop(process, until=..., run={row.name!r})"
    if row.kind == "train":
        return command + anew
    newer = in_place_of(run)
    return command if newer is None else f"{command} (that goes on with the newer run {newer})"


def own_command(run: Run) -> str | None:
    """Return the command that began a run and goes on with it, where there is one."""
    begun = begun_of(run)
    return _unrecorded(run.now()) if begun is None else str(begun)


def _unrecorded(row: RunRow) -> str | None:
    """Return what is known of a command that was not recorded whole."""
    spec = row.spec
    if row.kind == "refine" and "job" in spec:
        told = ["ostinato", "refine", str(spec["job"])]
        told += ["--output", str(spec["output"])] if "output" in spec else []
        told += ["--limit", str(spec["limit"])] if spec.get("limit") else []
        return shlex.join(told)
    if "sample" in spec:
        return f"ostinato sample {spec['sample']} … --run {row.name}"
    for name in ("generate", "fill"):
        if name in spec:
            return f"ostinato {name} … --run {row.name}"
    if row.kind == "train" and "out" in spec and row.parent is None:
        return f"ostinato train {spec.get('task', 'text')} … --out {spec['out']}"
    return None
