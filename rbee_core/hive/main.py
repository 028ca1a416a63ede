"""The `rbee-hive` command: options in, exit code out. The one place where the hive's errors become text."""

import asyncio
import json
import os
import sys
from typing import Any

import click

from rbee_core import __version__, settings
from rbee_core.errors import RbeeError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rbee-hive")
def main() -> None:
    """Manage the pool of workers of this machine."""


@main.command()
@click.option("--host", help="Address to listen on; other than loopback needs RBEE_API_KEY.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on, 0 for a free one.  [default: 7835]")
@click.option("--idle-timeout-s", type=float, help="Stop a worker after so many idle seconds.  [default: 300]")
@click.option("--ephemeral", is_flag=True, hidden=True, help="Belong to the process at the other end of stdin.")
@click.option("--detached", is_flag=True, hidden=True, help="Announce on stdout as JSON, log to the file only.")
def daemon(*, ephemeral: bool, detached: bool, **flags: Any) -> None:
    """Run a hive in the foreground until Ctrl+C or SIGTERM."""
    scripted = ephemeral or detached
    try:
        stopped = _run(scripted, ephemeral=ephemeral, flags=flags)
    except RbeeError as error:
        if scripted:
            print(json.dumps(error.body()), flush=True)  # noqa: T201
        click.echo(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), err=True)
        sys.exit(error.exit_code)
    if not scripted:
        count = len(stopped)
        click.echo(f"Shut down {count} worker{'' if count == 1 else 's'}.", err=True)


def _run(scripted: bool, *, ephemeral: bool, flags: dict[str, Any]) -> list[str]:
    from rbee_core.hive import home, logs

    in_force = settings.load(os.environ, **flags, **({"port": 0, "host": "127.0.0.1"} if ephemeral else {}))
    home.prepare(in_force)
    logs.start_logging(in_force.logs_dir / "hive.log", in_force.log_limit_bytes, to_stderr=not scripted)
    from rbee_core.hive.daemon import run

    def announce(address: dict[str, Any]) -> None:
        if scripted:
            print(json.dumps(address), flush=True)  # noqa: T201

    return asyncio.run(run(in_force, ephemeral=ephemeral, announce=announce))
