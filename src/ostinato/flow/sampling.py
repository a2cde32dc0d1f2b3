"""The call that runs another process, such as the sampling of images, as a run below the flow's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ostinato.flow.frames import frame_of
from ostinato.flow.record import Made

if TYPE_CHECKING:
    from ostinato.journal import RunConfig

TENSOR = "tensor"
"""The entry of a recorded output that is a tensor."""


def sample(config: RunConfig) -> list[Any]:
    """Run another process, such as the sampling of images or music, as a run that this one calls.

    `config` is that of any kind of run, such as `SampleImageRun` of `ostinato.image`. Returns what
    its items are, in their order (tensors, texts); files are written as its configuration says.
    The run is shown below this one, and resumed with it.
    """
    from ostinato.journal import config_to_json
    from ostinato.runs import CONFIG, folder_of

    frame = frame_of("sample")
    session = frame.task.session
    if session is None:
        outputs = frame.task.record.call(
            frame, "sample", {"kind": config.kind}, lambda path: Made(_sampled(config, None))
        )
        return [_as_sampled(each) for each in outputs]
    written = config_to_json(config, folder_of(session.run.database.path))

    def make(path: str) -> Made:
        value = session.call_run(
            f"{path}/run",
            lambda child: _sampled(config, child),
            kind=config.kind,
            spec={CONFIG: written},
        )
        return Made(value, synced=True)

    outputs = frame.task.record.call(frame, "sample", {"kind": config.kind, **written}, make)
    return [_as_sampled(each) for each in outputs]


def _sampled(config: RunConfig, run: Any) -> list[Any]:
    from ostinato.loop import ItemsWork
    from ostinato.runs import kind_of

    work = kind_of(config.kind).builder()(config, run=run)
    with work.loop:
        for each in work.loop:
            work.watch(each)
    work.finish()
    results = work.results if isinstance(work, ItemsWork) else []
    return [_recorded(each.output) for each in results]


def _recorded(output: Any) -> Any:
    """Return an output for the journal, which keeps a small tensor as a list."""
    kind = str(getattr(output, "dtype", ""))
    return {TENSOR: output, "dtype": kind} if kind.startswith("torch.") else output


def _as_sampled(value: Any) -> Any:
    if not isinstance(value, dict) or TENSOR not in value:
        return value
    import torch

    from ostinato.journal import with_tensors

    kind = getattr(torch, str(value["dtype"]).removeprefix("torch."))
    return torch.as_tensor(with_tensors(value[TENSOR]), dtype=kind)
