"""The `rbee-hive` command: options in, exit code out."""

import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
from functools import partial
from typing import Any, NoReturn

import click

from rbee_core import __version__, edge, settings
from rbee_core.descriptors import raise_limit
from rbee_core.errors import RbeeError
from rbee_core.hive.processes.start import start_spare
from rbee_core.hive.terms import EPHEMERAL, PERSISTENT, Tenure
from rbee_core.home import HiveNote, Home, as_text
from rbee_core.imports import import_aiohttp
from rbee_core.start import settled
from rbee_core.streams import CannotWrite


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rbee-hive")
def cli() -> None:
    """Manage the pool of workers of this machine."""


def main() -> NoReturn:
    """Run the `rbee-hive` command and exit."""
    edge.begin()
    edge.leave(edge.run(cli, sys.argv[1:], "rbee-hive"))


@cli.command()
@click.option("--host", help="Address to listen on; other than loopback needs RBEE_API_KEY.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on, 0 for a free one.  [default: 7835]")
@click.option("--idle-timeout-s", type=float, help="Stop a worker after so many idle seconds.  [default: 300]")
@click.option("--ephemeral", is_flag=True, hidden=True, help="Belong to the process at the other end of stdin.")
@click.option("--no-worker", is_flag=True, hidden=True, help="Prepare no worker ahead of the first request.")
@click.option("--detached", is_flag=True, hidden=True, help="Announce on stdout as JSON, log to the file only.")
def daemon(*, ephemeral: bool, no_worker: bool, detached: bool, **flags: Any) -> None:
    """Run a hive in the foreground until Ctrl+C or SIGTERM."""
    scripted = ephemeral or detached
    tenure = dataclasses.replace(EPHEMERAL, spare=not no_worker) if ephemeral else PERSISTENT
    try:
        stopped = _run(tenure, flags, scripted=scripted)
    except StarterGone:
        return
    except Exception as error:
        if not isinstance(error, RbeeError | OSError):
            logging.getLogger(__name__).exception("the hive stopped on a bug")
        if scripted:
            _tell_starter(_as_ours(error))
        raise _as_ours(error) from error
    if not scripted:
        count = len(stopped)
        click.echo(f"Shut down {count} worker{'' if count == 1 else 's'}.", err=True)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def detect(as_json: bool) -> None:
    """List what can run models on this machine, and why something cannot."""
    from rbee_core import wire
    from rbee_core.backend.manager import PluginHost
    from rbee_core.inventory import as_text, describe_all

    backends = describe_all(PluginHost(os.environ).candidates())
    if as_json:
        click.echo(wire.encode(wire.BackendList(backends=backends)))
    else:
        click.echo("\n".join(as_text(backends)))


class StarterGone(Exception):
    """Raised when whoever started this hive does not hear any more that it listens."""


def _as_ours(error: Exception) -> RbeeError:
    """Return an error that says what ended the hive."""
    if isinstance(error, RbeeError):
        return error
    if isinstance(error, OSError):
        return RbeeError(
            f"The system refused: {error}", hint="free what it lacks, or see `ulimit -a` and the hive's log"
        )
    hint = "please report it with the last lines of hive.log"
    return RbeeError(f"The hive stopped on a bug: {type(error).__name__}: {error}", hint=hint)


def _tell_starter(error: RbeeError) -> None:
    """Say on stdout, as JSON, why this hive does not start."""
    with contextlib.suppress(OSError, CannotWrite):
        print(json.dumps(error.body()), flush=True)  # noqa: T201


def _run(tenure: Tenure, flags: dict[str, Any], *, scripted: bool) -> list[str]:
    in_force = settings.load(os.environ, **flags)
    os.umask(0o077)  # whatever the caller's: all that is written here is the user's own
    if tenure.lifeline:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal of whoever it belongs to is not its own
    raise_limit()
    home = Home(in_force.home)
    home.prepare()
    try:
        return _serve(in_force, tenure, home, scripted=scripted)
    finally:
        home.tidy()  # also when it did not come to listen


def _serve(in_force: settings.Settings, tenure: Tenure, home: Home, *, scripted: bool) -> list[str]:
    spare = start_spare(home) if tenure.spare else None
    import_aiohttp()
    from rbee_core import aio
    from rbee_core.hive.daemon import run
    from rbee_core.hive.processes import logs

    logs.start_logging(home.hive_log, in_force.log_limit_bytes, to_stderr=not scripted)

    def announce(note: HiveNote) -> None:
        settled()
        if scripted:
            try:
                print(as_text(note), flush=True)  # noqa: T201
            except (OSError, CannotWrite) as error:
                logging.getLogger(__name__).info("whoever started this hive is gone")
                raise StarterGone from error

    told = partial(_end_anyway, in_force.shutdown_grace_s + settings.LAST_RESORT_S)
    return aio.run(run(in_force, tenure, announce, spare, told))


def _end_anyway(within_s: float) -> None:
    """End this process after so long, whatever it waits for: a disk, a process that the kernel does not let go.

    Its workers end with it: guardian and kernel see to that, however a hive goes.
    """

    def end() -> None:
        say = partial(
            logging.getLogger(__name__).error, "did not get to its end within %g s; leaving what holds it up", within_s
        )
        saying = threading.Thread(target=say, daemon=True)  # the log may be what holds it up
        saying.start()
        saying.join(1.0)
        os._exit(1)

    timer = threading.Timer(within_s, end)
    timer.daemon = True
    timer.start()
