"""`rbee logs WORKER`: a worker's log, from its hive, or from the file that it left on this machine."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rbee_core.errors import HiveNotAnswering, HiveUnreachable, RbeeError, WorkerNotFound
from rbee_core.home import Home
from rbee_core.keeper.hives.address import is_local
from rbee_core.keeper.hives.open import connect
from rbee_core.keeper.options import node_option
from rbee_core.settings import Settings, load

if TYPE_CHECKING:
    from rbee_core.client import HiveClient

FOLLOW_POLL_S = 0.25
LIVE = ("loading", "idle", "busy", "stopping")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@click.command("logs")
@click.argument("worker")
@click.option("--follow", "-f", is_flag=True, help="Go on until the worker ends.")
@node_option("Where it runs.")
def logs(worker: str, follow: bool, node: str) -> None:
    """Show a worker's log.

    Also that of a worker which has ended, even if no hive runs any more, none answers, or it ends meanwhile.
    """
    if not _ID.fullmatch(worker):
        raise WorkerNotFound(worker_id=worker)
    settings = load(os.environ)
    for line in _lines(worker, follow, node, settings):
        click.echo(line)


def _lines(worker: str, follow: bool, node: str, settings: Settings) -> Iterator[str]:
    """Ask the hive; where this machine's hive cannot tell, or has forgotten the worker, read the file.

    A hive that ends while its worker's log is followed ends the worker too: what that wrote last is in the file.
    """
    reading = Reading(worker)
    try:
        with connect(node, settings) as client:
            yield from reading.from_hive(client, follow=follow)
    except RbeeError as error:
        silent = isinstance(error, HiveNotAnswering)
        forgotten = silent or isinstance(error, HiveUnreachable) or error.code == "WORKER_NOT_FOUND"
        path = Home(settings.home).worker_log(worker)
        if not (forgotten and is_local(node) and path.is_file()):
            raise
        if silent:
            click.echo(f"{error.message}; this is the file so far", err=True)
        yield from reading.from_file(path)


class Reading:
    """One worker's log, read up to `offset` bytes, wherever it is read from next."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self.offset = 0

    def from_hive(self, client: "HiveClient", *, follow: bool) -> Iterator[str]:
        """Yield the log lines that the hive has; with `follow`, until the worker has ended."""
        while True:
            # The state is asked first: what an ending worker wrote last is then in the log that is read after it.
            ended = not follow or client.worker(self._worker).state not in LIVE
            page = client.worker_log(self._worker, self.offset)
            yield from page.lines
            if page.offset > self.offset:
                self.offset = page.offset
            elif ended:
                return
            else:
                time.sleep(FOLLOW_POLL_S)

    def from_file(self, path: Path) -> Iterator[str]:
        """Yield the lines of a log file, without control characters that would reach the terminal."""
        with path.open("rb") as file:
            # A file that is shorter than what was read was cut: its beginning is what was dropped.
            file.seek(self.offset if self.offset <= path.stat().st_size else 0)
            for line in file:
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                yield "".join(c if c.isprintable() or c == "\t" else "�" for c in text)
