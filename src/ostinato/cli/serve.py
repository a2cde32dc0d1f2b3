"""`ostinato serve`: serve a model over an OpenAI-compatible API."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ostinato.cli.options import model_options
from ostinato.errors import InputError, MissingExtra

if TYPE_CHECKING:
    import socket
    from types import FrameType

    import uvicorn

    from ostinato.flow import FlowFunction
    from ostinato.models import LanguageModel
    from ostinato.server import Defaults, FlowScheduler, Scheduler

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.argument("model", default="smollm2")
@model_options
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", default=8000, type=click.IntRange(0, 65535), help="Port; 0: any free port.")
@click.option("--key-env", metavar="NAME", help="Environment variable with the API key to require.")
@click.option(
    "--allow-host",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="Additional host name to answer under; repeatable.",
)
@click.option("--name", help="Model name in the API.  [default: MODEL]")
@click.option(
    "--slots", default=16, type=click.IntRange(1, 256), help="Sequences generated at once."
)
@click.option(
    "--max-waiting",
    default=64,
    type=click.IntRange(min=1),
    help="Length of the queue; further requests are refused.",
)
@click.option(
    "--check-seconds",
    default=3.0,
    type=click.FloatRange(min=0.1),
    help="Time limit for all checks of a request, in seconds.",
)
@click.option(
    "--job",
    "job_file",
    metavar="JOB.toml",
    type=click.Path(path_type=Path),
    help="Job whose checks and strategy apply to requests without their own.",
)
@click.option(
    "--flow",
    "program",
    metavar="FILE.py[:NAME]",
    help="Flow that answers the requests; MODEL is that of its calls.",
)
def serve(
    model: str,
    adapter: str | None,
    compile: bool | None,
    bits: int | None,
    device: str,
    host: str,
    port: int,
    key_env: str | None,
    allowed: tuple[str, ...],
    name: str | None,
    slots: int,
    max_waiting: int,
    check_seconds: float,
    job_file: Path | None,
    program: str | None,
) -> None:
    """Serve MODEL over an OpenAI-compatible API, with checks during generation.

    Ctrl-C ends the server when the running requests are done; a second Ctrl-C ends it at once.
    """
    key = _key(key_env)
    if bits and compile is False:
        raise InputError(
            f"--int{bits} must be given without --no-compile, got both. Leave one out."
        )
    _require_key(host, key)
    # Before the model is loaded, which would be in vain.
    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("A model as a server", "serve") from None
    from ostinato.inference import check_before_loading
    from ostinato.models import load_model, recommendation, recommended_sampling
    from ostinato.server import application

    # Read before the model is loaded, so that a wrong file is reported at once.
    flow = None if program is None else _flow(program, job_file)
    defaults = _defaults(job_file)
    loading: dict[str, Any] = {
        "adapter": adapter,
        "compile": compile,
        "bits": bits,
        "device": device,
    }
    check_before_loading(model, slots=slots, say=partial(click.echo, err=True), **loading)
    sampling = recommended_sampling(model) if flow is None else {}
    if sampling:
        click.echo(recommendation(sampling), err=True)
    scheduler = _scheduler(
        partial(load_model, model, **loading),
        flow,
        slots=slots,
        max_waiting=max_waiting,
        defaults=defaults,
        check_seconds=check_seconds,
    )
    served = name or (scheduler.model.name if flow is None else flow.name)
    # Under other names it is refused: a web page could point its own name here (DNS rebinding).
    hosts = [*LOOPBACK, *allowed, host]
    app = application(scheduler, model=served, hosts=hosts, key=key, sampling=sampling)
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False)
    try:
        _server(config, scheduler, served).run()
    finally:
        scheduler.close(at_once=True)


def _require_key(host: str, key: str) -> None:
    # An open port without a key would let anyone on the network compute here.
    if host not in LOOPBACK and not key:
        raise InputError(
            f"A server that other machines can reach must require a key, got --host {host} without "
            "one. Name the variable that holds it: --key-env NAME."
        )


def _flow(program: str, job_file: Path | None) -> FlowFunction[..., Any]:
    """Return the flow to serve. Raises `InputError` for one beside options that it decides."""
    from ostinato.cli.flow import place_of
    from ostinato.flow import flow_of

    if job_file is not None:
        raise InputError(
            f"--job must be left out with --flow, got {job_file}. Check texts in the flow."
        )
    typed = click.get_current_context().get_parameter_source("check_seconds")
    if typed is ParameterSource.COMMANDLINE:
        raise InputError("--check-seconds must be left out with --flow, whose checks are its own.")
    return flow_of(*place_of(program))


def _scheduler(
    load: Callable[[], LanguageModel],
    flow: FlowFunction[..., Any] | None,
    *,
    slots: int,
    max_waiting: int,
    **of_model: Any,
) -> Scheduler | FlowScheduler:
    """Return what answers the requests: the model, or a flow whose calls use it."""
    from ostinato.server import FlowScheduler, Scheduler

    if flow is None:
        return Scheduler(load, slots=slots, max_waiting=max_waiting, **of_model)
    return FlowScheduler(flow, load, slots=slots, max_waiting=max_waiting)


def _server(
    config: uvicorn.Config, scheduler: Scheduler | FlowScheduler, served: str
) -> uvicorn.Server:
    """Return a server that prints its address, and closes the scheduler at a second Ctrl-C."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            # Read back from the socket, as --port 0 lets the system choose.
            for listening in self.servers:
                host, port = listening.sockets[0].getsockname()[:2]
                at = f"[{host}]" if ":" in host else host
                click.echo(f"{served} is at http://{at}:{port}/v1 (Ctrl-C ends it).")

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit:
                # A second Ctrl-C: do not wait for lanes that are generating.
                scheduler.close(at_once=True, timeout=0)
                self.force_exit = True
                return
            click.echo(
                "Ending when the running requests are done; Ctrl-C again ends at once.", err=True
            )
            self.should_exit = True

    return Server(config)


def _key(key_env: str | None) -> str:
    if key_env is None:
        return ""
    key = os.environ.get(key_env, "").strip()
    if not key:
        raise InputError(
            f"The environment variable {key_env} must hold the server's key, got nothing. Set it: "
            f"export {key_env}=…"
        )
    if not (key.isascii() and key.isprintable()):  # no header holds another one
        raise InputError(
            f"The environment variable {key_env} must hold the server's key in one line of ASCII, "
            "got other characters. Set it again."
        )
    return key


def _defaults(job_file: Path | None) -> Defaults:
    from ostinato.server import Defaults

    if job_file is None:
        return Defaults()
    from ostinato.refine import read_job

    job = read_job(job_file)
    return Defaults(checks=job.checks, strategy=job.strategy)
