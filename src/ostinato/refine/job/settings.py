"""The settings of a job that every reply depends on, as a run records and compares them.

The prompt, rules and past cases are not among them: what they make of an item is hashed item by
item, so a new rule affects only the items that it fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from ostinato.journal import Difference, Place
from ostinato.models import model_place, weights_digest
from ostinato.refine.job.config import WEIGHTS, Job, SamplingSettings
from ostinato.refine.settings import ItemBudget, ReplySettings, check_tables, strategy_table


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What replies depend on of how a server is used."""

    api: str = "chat"
    prefill: str = "no"
    template: str = "no"
    stream: bool = True
    extensions: bool = False


@dataclass(frozen=True, kw_only=True)
class JobSettings(ReplySettings):
    """The settings of a job that every reply depends on, called as in its file."""

    adapter: Place = ""
    compile: bool = False
    bits: int | None = None
    device: str = "cpu"
    server: ServerSettings | None = None
    sampling: SamplingSettings = field(default_factory=SamplingSettings)

    @classmethod
    def of(cls, job: Job) -> JobSettings:
        """Return the settings of a job. Reads the model's files where they are on the disk."""
        return cls(
            model=model_place(job.model),
            weights=weights_digest(job.model, job.adapter),
            checks=check_tables(job.checks),
            order=tuple(check.name for check in job.checks),
            strategy=strategy_table(job.strategy),
            max_new_tokens=job.max_new_tokens,
            budget=ItemBudget(
                item_tokens=job.budgets.item_tokens, item_seconds=job.budgets.item_seconds
            ),
            seed=job.seed,
            adapter=job.adapter,
            # None, which is compiled where that is possible, gives the run its own compute mode.
            compile=bool(job.compile),
            bits=job.bits,
            device=job.device,
            server=_server_settings(job),
            sampling=job.sampling,
        )


def _server_settings(job: Job) -> ServerSettings | None:
    if job.server is None:
        return None
    return ServerSettings(**{f.name: getattr(job.server, f.name) for f in fields(ServerSettings)})


def changed_sections(before: Mapping[str, str], job: Job) -> list[Difference]:
    """Return the sections of a job that differ from the hashes that an older run recorded."""
    now = job.sections()
    # Runs from before the weights were hashed have no such section: they count as unchanged.
    known = {WEIGHTS: now[WEIGHTS], **before}
    return [Difference(name, None, None) for name in now if known.get(name) != now[name]]
