"""The specification of a `Refine` in Python: compared, but not built from its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from ostinato.errors import RunError
from ostinato.journal import JSON, Journal, Run, RunConfig, RunSource, differences, require_same
from ostinato.loop import digest
from ostinato.models import model_place, weights_digest
from ostinato.refine.inputs import PromptOf, Row, module_source
from ostinato.refine.settings import ReplySettings
from ostinato.runs import config_of, folder_of, record

if TYPE_CHECKING:
    from ostinato.decode import SamplingParams


@dataclass(frozen=True, kw_only=True)
class RefineConfig(ReplySettings, RunConfig):
    """What the results of a `Refine` depend on.

    `items` is the hash of its items, `source` that of the module of a prompt function; `prompt` is
    a template.
    """

    kind: ClassVar[str] = "Refine"
    call: ClassVar[str] = "Refine(…).run(run={name!r})"

    items: str
    prompt: str = ""
    source: str = ""
    sampling: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: str,
        items: Sequence[tuple[str, Row]],
        prompt: str | PromptOf,
        *,
        sampling: SamplingParams,
        **settings: Any,
    ) -> RefineConfig:
        """Return the configuration of a `Refine`: what is long or a function is hashed."""
        values = asdict(sampling)
        bias = {str(token): value for token, value in values["logit_bias"].items()}
        template = prompt if isinstance(prompt, str) else ""
        return cls(
            model=model_place(model),
            weights=weights_digest(model),
            items=digest([[key, dict(row)] for key, row in items]),
            prompt=template,
            source="" if isinstance(prompt, str) else digest(module_source(prompt)),
            sampling={**values, "logit_bias": bias},
            **settings,
        )


def spelled(name: str) -> str:
    """Return how a field is called in a message."""
    hashed = {
        "items": "the hash of items",
        "source": "the hash of prompt's source",
        "weights": "the hash of the model's files",
    }
    return hashed.get(name, name)


def run_of(config: RefineConfig, run: Run | str, journal: Journal | None) -> Run:
    """Return the run to resume or to start. Raises `InputError` for one of other settings."""
    if isinstance(run, str):
        assert journal is not None
        return record(journal, config, name=run, spelled=spelled)
    before = config_of(run)
    if isinstance(before, RefineConfig):  # else the caller has made the run
        folder = folder_of(run.database.path)
        require_same(run.name, differences(before, config, folder), spelled=spelled)
    return run


def build_refine(config: RefineConfig, *, run: RunSource | None = None, **more: Any) -> NoReturn:
    """Raise `RunError`: items, prompt and checks are in the program that made them."""
    name = run.name if isinstance(run, Run) else "NAME"
    raise RunError(
        f"The run {name!r} must be resumed by the program that started it: its items, prompt and "
        f"checks are made there. Call the same {config.resumed_by(name)} again."
    )
