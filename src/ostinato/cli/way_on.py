"""How a run is gone on with, in words for its owner."""

from __future__ import annotations

from ostinato.loop.run import RunRow


def way_on(row: RunRow) -> str:
    """Say what goes on with a run."""
    if "factory" in row.spec:
        anew = ' --until "…"' if row.status == "stopped" else ""
        return f"ostinato runs resume {row.name} --trust{anew}"
    command = own_command(row)
    if command is not None:
        return command
    return f"Python: Loop(process, until=..., run={row.name!r})"


def own_command(row: RunRow) -> str | None:
    """Return the command that began a run and goes on with it, where there is one."""
    if row.kind == "refine" and "job" in row.spec:
        limit = row.spec.get("limit")
        return f"ostinato refine {row.spec['job']}" + (f" --limit {limit}" if limit else "")
    if "sample" in row.spec:
        return f"ostinato sample {row.spec['sample']} … --run {row.name}"
    if row.kind == "train" and "out" in row.spec:
        return f"ostinato train {row.spec.get('task', 'text')} … --out {row.spec['out']}"
    return None
