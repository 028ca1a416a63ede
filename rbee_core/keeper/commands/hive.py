"""`rbee hive start|stop|status|reload`: this machine's persistent hive, seen from outside."""

import contextlib
import os
import signal
import time

import click

from rbee_core.errors import HiveAlreadyRunning, RbeeError
from rbee_core.home import HiveNote, Home, ProcessId, is_alive
from rbee_core.keeper.hives import launch, local
from rbee_core.keeper.options import json_option
from rbee_core.keeper.screen.show import count_workers, show_json
from rbee_core.settings import LAST_RESORT_S, Settings, load

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
    _refuse_second(local.look(settings))
    options = [] if host is None else ["--host", host]
    options += [] if port is None else ["--port", str(port)]
    process = launch.launch("--detached", *options, lifeline=False)
    try:
        note = launch.await_ready(process, settings)
    except BaseException:
        process.terminate()
        launch.end(process, settings.shutdown_grace_s)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
    # It is meant to outlive us: without this mark Python warns about a child that nobody waited for.
    process.returncode = 0
    click.echo(f"Hive started: pid {note.pid}, listening on {note.host}:{note.port}")


def _refuse_second(hive: local.Running | local.Starting | local.NotAnswering | None) -> None:
    match hive:
        case None:
            return
        case local.NotAnswering(_, error):
            raise error
        case local.Running(note, client):
            client.close()
        case local.Starting(note):
            pass
    raise HiveAlreadyRunning(pid=note.pid, port=note.port)


@hive.command("stop")
def stop() -> None:
    """Stop the hive and all its workers, and wait until it is gone."""
    settings = load(os.environ, forgiving=True)
    match local.look(settings):
        case None:
            raise local.NoHive
        case local.NotAnswering(_, error):
            raise error
        case local.Starting(note):
            stopped: list[str] = []
            click.echo(f"Stopping a hive that is still starting (pid {note.pid})", err=True)
            with contextlib.suppress(ProcessLookupError):
                os.kill(note.pid, signal.SIGTERM)
        case local.Running(note, client):
            with client:
                stopped = client.shutdown()
            click.echo(f"Shutting down {count_workers(len(stopped))}", err=True)
    patience_s = settings.shutdown_grace_s + 2 * LAST_RESORT_S
    if not _await_gone(note.process, patience_s):
        pid, log = note.pid, Home(settings.home).hive_log
        raise RbeeError(
            f"The hive (pid {pid}) is still there {patience_s:g} s after it was told to stop",
            hint=f"look at {log}, or end it and its workers with `kill -KILL {pid}`",
        )
    click.echo(f"Hive stopped: {count_workers(len(stopped))} shut down")


@hive.command("reload")
@json_option
def reload(as_json: bool) -> None:
    """Have the hive take its config.toml again, without disturbing anybody; a wrong one changes nothing."""
    from rbee_core.client import calls

    match local.look(load(os.environ, forgiving=True)):
        case local.Running(_, client):
            with client:
                taken = client.call(calls.reload())
        case local.NotAnswering(_, error):
            raise error
        case _:
            raise local.NoHive
    if as_json:
        show_json(taken)
        return
    click.echo(f"Changed: {', '.join(taken.changed)}" if taken.changed else "Nothing changed")
    if taken.needs_restart:
        click.echo(f"Counts from the hive's next start on: {', '.join(taken.needs_restart)}")


@hive.command("status")
@json_option
def status(as_json: bool) -> int:
    """Show whether a hive runs, where, and what it holds; exit code 1 if none runs or it does not answer."""
    settings = load(os.environ, forgiving=True)
    match local.look(settings):
        case None:
            _show_none(as_json=as_json)
        case local.Starting(note):
            _show_starting(note, as_json=as_json)
        case local.NotAnswering() as silent:
            _show_silent(silent, settings, as_json=as_json)
        case local.Running() as running:
            with running.client:
                _show_running(running, settings, as_json=as_json)
            return 0
    return 1


def _show_none(*, as_json: bool) -> None:
    if as_json:
        show_json({"running": False, "answering": False})
    else:
        click.echo("No hive is running on this RBEE_HOME")


def _show_starting(note: HiveNote, *, as_json: bool) -> None:
    if as_json:
        show_json({"running": True, "answering": False, "starting": True, "pid": note.pid, "version": note.version})
    else:
        click.echo(f"Hive is starting: pid {note.pid}")


def _show_silent(silent: local.NotAnswering, settings: Settings, *, as_json: bool) -> None:
    note, error = silent.note, silent.error
    if as_json:
        where = {"pid": note.pid, "host": note.host, "port": note.port, "version": note.version}
        facts = {"running": True, "answering": False, **where, "home": str(settings.home), **error.body()}
        show_json(facts)
        return
    click.echo(f"Hive is running but does not answer: pid {note.pid}, listening on {error.details['address']}")
    click.echo(f"Home: {settings.home}")
    click.echo(f"hint: {error.hint}")


def _show_running(running: local.Running, settings: Settings, *, as_json: bool) -> None:
    note, client = running.note, running.client
    workers = client.list_workers()
    if as_json:
        where = {"pid": note.pid, "host": note.host, "port": note.port, "version": note.version}
        show_json({"running": True, "answering": True, **where, "home": str(settings.home), "workers": workers})
        return
    click.echo(f"Hive is running: pid {note.pid}, listening on {client.address}, version {note.version}")
    click.echo(f"Home: {settings.home}")
    click.echo(f"Workers: {len(workers)}")
    for worker in workers:
        click.echo(f"  {worker.worker_id}  {worker.state}  {worker.backend}  {worker.device}  {worker.model_ref}")


def _await_gone(process: ProcessId, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(GONE_POLL_S)
    return True
