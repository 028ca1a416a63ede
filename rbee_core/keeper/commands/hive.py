"""`rbee hive start|stop|status`: this machine's persistent hive, seen from outside."""

import os
import time
from typing import TYPE_CHECKING

import click

from rbee_core.errors import RbeeError
from rbee_core.keeper.hives import address, launch
from rbee_core.keeper.screen.show import show_json
from rbee_core.settings import Settings, load

if TYPE_CHECKING:
    from rbee_core.client import HiveClient

GONE_POLL_S = 0.02


@click.group("hive")
def hive() -> None:
    """Start, stop and inspect this machine's hive."""


@hive.command("start")
@click.option("--host", metavar="ADDRESS", help="Where to listen; loopback unless told otherwise.")
@click.option("--port", type=int, metavar="N", help="0 takes a free one.")
def start(host: str | None, port: int | None) -> None:
    """Start the hive in the background and return when it listens."""
    settings = load(os.environ, host=host, port=port)
    options = [] if host is None else ["--host", host]
    options += [] if port is None else ["--port", str(port)]
    process = launch.launch("--detached", *options, lifeline=False)
    try:
        ready = launch.await_ready(process, settings)
    except BaseException:
        process.terminate()
        launch.end(process, settings.shutdown_grace_s)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
    # It is meant to outlive us: without this mark Python warns about a child that nobody waited for.
    process.returncode = 0
    click.echo(f"Hive started: pid {ready['pid']}, listening on {ready['host']}:{ready['port']}")


@hive.command("stop")
def stop() -> None:
    """Stop the hive and all its workers, and wait until it is gone."""
    settings = load(os.environ)
    noted = address.read_run_file(settings)
    client = address.running(settings)
    if noted is None or client is None:
        raise address.NoHive
    with client:
        stopped = client.shutdown()
    if not _await_gone(noted, settings.shutdown_grace_s):
        raise RbeeError(
            f"The hive (pid {noted.pid}) is still there {settings.shutdown_grace_s:g} s after it was told to stop",
            hint=f"look at {settings.logs_dir / 'hive.log'}, or kill it: its workers end with it",
        )
    click.echo(f"Hive stopped: {count_workers(len(stopped))} shut down")


@hive.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> int:
    """Show whether a hive runs, where, and what it holds; exit code 1 if none runs."""
    settings = load(os.environ)
    noted, client = address.read_run_file(settings), address.running(settings)
    if noted is None or client is None:
        if as_json:
            show_json({"running": False})
        else:
            click.echo("No hive is running on this RBEE_HOME")
        return 1
    with client:
        _show_status(noted, client, settings, as_json=as_json)
    return 0


def _show_status(noted: address.RunFile, client: "HiveClient", settings: Settings, *, as_json: bool) -> None:
    health, workers = client.health(), client.list_workers()
    if as_json:
        facts = {"running": True, "pid": noted.pid, "host": noted.host, "port": noted.port, "version": health.version}
        show_json({**facts, "home": str(settings.home), "workers": workers})
        return
    click.echo(f"Hive is running: pid {noted.pid}, listening on {client.address}, version {health.version}")
    click.echo(f"Home: {settings.home}")
    click.echo(f"Workers: {len(workers)}")
    for worker in workers:
        click.echo(f"  {worker.worker_id}  {worker.state}  {worker.backend}  {worker.device}  {worker.model_ref}")


def count_workers(number: int) -> str:
    """Say how many workers, in words that fit any number."""
    return "1 worker" if number == 1 else f"{number} workers"


def _await_gone(noted: address.RunFile, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while _is_there(noted):
        if time.monotonic() > deadline:
            return False
        time.sleep(GONE_POLL_S)
    return True


def _is_there(noted: address.RunFile) -> bool:
    """Whether that very process is alive: not a later one with its id, nor a zombie that its parent forgot."""
    import psutil

    try:
        process = psutil.Process(noted.pid)
        return abs(process.create_time() - noted.start_time) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
