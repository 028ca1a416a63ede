"""Phase 3: having the model on the hive's node, and showing how it gets there."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rbee_core import wire
from rbee_core.errors import RbeeError, RemoteError, shorten
from rbee_core.keeper.interrupt import Interrupted
from rbee_core.keeper.screen.progress import showing, time_words
from rbee_core.keeper.screen.render import Screen
from rbee_core.keeper.screen.show import size_words

if TYPE_CHECKING:
    from rbee_core.client import HiveClient


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A model that is on the node now. `fetched` tells whether it had to be brought there."""

    reference: str
    size_bytes: int
    fetched: bool = False
    note: str = ""
    summary: str = ""


def provision(
    client: "HiveClient", request: wire.DownloadRequest, screen: Screen, prefix: str = "", *, goes_on: bool = False
) -> Provisioned:
    """Return once the model is on the node; lines about a download begin with `prefix`.

    `goes_on` tells that the hive stays when this command ends, and its downloads with it.

    Raises what the hive refused it with, or what the download failed with.
    """
    progress = client.download(request)
    if progress.state == "running":
        try:
            return _fetch(client, progress, screen, prefix)
        except Interrupted:
            screen.line(f"{prefix}{_interrupted(progress.reference, goes_on=goes_on)}")
            raise
    _raise_if_failed(progress)
    return Provisioned(progress.reference, progress.total_bytes, note=progress.note)


def _fetch(client: "HiveClient", first: wire.DownloadProgress, screen: Screen, prefix: str) -> Provisioned:
    started, last, note = time.monotonic(), first, shorten(first.note)
    name = f"{shorten(first.reference)} ({note})" if note else shorten(first.reference)
    screen.line(f"{prefix}Downloading {name}, {size_words(first.total_bytes)}")
    if first.queue_position:
        screen.line(f"{prefix}Waiting for its turn: place {first.queue_position} in the node's queue")
    with showing(screen, prefix) as show:
        for last in client.follow(first.id):
            show(last.done_bytes, last.total_bytes, last.fetched_bytes, shorten(last.trouble))
    _raise_if_failed(last)
    took = time_words(time.monotonic() - started)
    earlier = f", {size_words(last.total_bytes - last.fetched_bytes)} of it earlier" if resumed(last) else ""
    summary = f"Downloaded {name}: {size_words(last.total_bytes)} in {took}{earlier}"
    screen.line(f"{prefix}✓ {summary}")
    return Provisioned(last.reference, last.total_bytes, fetched=True, note=note, summary=summary)


def resumed(last: wire.DownloadProgress) -> bool:
    """Whether an earlier run had fetched a part; a hive that does not say is not asked."""
    return 0 < last.fetched_bytes < last.total_bytes


def _interrupted(reference: str, *, goes_on: bool) -> str:
    name = shorten(reference)
    if goes_on:
        return (
            f"The hive goes on fetching: `rbee models downloads` shows it, `rbee models pull --cancel {name}` ends it"
        )
    return "Interrupted; what was fetched is kept for the next time"


def _raise_if_failed(progress: wire.DownloadProgress) -> None:
    if progress.error is not None:
        raise RemoteError.of(progress.error)
    if progress.state != "done":
        raise RbeeError("The hive stopped telling about the download", hint="run the command again: it goes on")
