"""`ostinato serve`: a model as an OpenAI-compatible server."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ostinato.errors import InputError, MissingExtra

if TYPE_CHECKING:
    import socket
    from types import FrameType

    import uvicorn

    from ostinato.server import Defaults, Scheduler

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.argument("model", default="smollm2")
@click.option("--adapter", help="An adapter's name or folder.")
@click.option(
    "--compile/--no-compile",
    default=None,
    help="Compile the network's pass for this machine: faster. [default: where it can be]",
)
@click.option("--int8", is_flag=True, help="Round the weights to 8 bits (compiled).")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option("--key-env", metavar="NAME", help="The variable that holds the key to ask for.")
@click.option(
    "--allow-host",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="Answer under this host name too (may be given again).",
)
@click.option("--name", help="The name to serve it under. [default: MODEL]")
@click.option("--slots", default=16, show_default=True, type=click.IntRange(1, 256))
@click.option("--max-waiting", default=64, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--check-seconds",
    default=3.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="How long the checks of a request may compute in all.",
)
@click.option(
    "--job",
    "job_file",
    metavar="JOB.toml",
    type=click.Path(path_type=Path),
    help="Take checks and strategy of this job where a request names none.",
)
def serve(
    model: str,
    adapter: str | None,
    compile: bool | None,
    int8: bool,
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
) -> None:
    """Serve MODEL as an OpenAI-compatible server, with checks while it writes.

    Ctrl-C ends it when the answers in work are done, a second one at once.
    """
    key = _key(key_env)
    if host not in LOOPBACK and not key:
        raise InputError(
            f"A server that others can reach must ask for a key, got --host {host} without one. "
            "Name the variable that holds it: --key-env NAME."
        )
    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("A model as a server", "serve") from None
    from ostinato.models import load_model
    from ostinato.server import Scheduler, application

    defaults = _defaults(job_file)
    desk = Scheduler(
        partial(load_model, model, adapter=adapter, compile=compile, int8=int8, device=device),
        slots=slots,
        max_waiting=max_waiting,
        defaults=defaults,
        check_seconds=check_seconds,
    )
    served = name or desk.model.name
    hosts = [*LOOPBACK, *allowed, host]
    app = application(desk, model=served, hosts=hosts, key=key)
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False)
    try:
        _server(config, desk, served).run()
    finally:
        desk.close(at_once=True)


def _server(config: uvicorn.Config, desk: Scheduler, served: str) -> uvicorn.Server:
    """Return a server that says where it listens, and ends its desk when it is asked to end."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for listening in self.servers:
                host, port = listening.sockets[0].getsockname()[:2]
                at = f"[{host}]" if ":" in host else host
                click.echo(f"{served} is at http://{at}:{port}/v1 (Ctrl-C ends it).")

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit:
                desk.close(at_once=True, timeout=0)
                self.force_exit = True
                return
            click.echo("Ending when the answers in work are done; Ctrl-C again: at once.", err=True)
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
    return key


def _defaults(job_file: Path | None) -> Defaults:
    from ostinato.server import Defaults

    if job_file is None:
        return Defaults()
    from ostinato.refine import read_job

    job = read_job(job_file)
    return Defaults(checks=job.checks, strategy=job.strategy)
