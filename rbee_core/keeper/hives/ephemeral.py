"""The hive of one command: started when no hive runs on this machine, gone when the command returns."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager

from rbee_core.edge import Interrupted
from rbee_core.errors import DeadlineExceeded
from rbee_core.home import HiveNote
from rbee_core.keeper.hives import launch
from rbee_core.keeper.interrupt import disarm
from rbee_core.settings import Settings

HURRY_S = 0.5
"""How long the end of a hive may take that nobody waits for any more: Ctrl+C was pressed, or the time is over."""

_HURRIES = (Interrupted, DeadlineExceeded)


class EphemeralHive:
    """A private hive that hangs on this process by its stdin: whatever ends the keeper ends the hive and its workers.

    It may still be booting; `address` waits for it.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", settings: Settings) -> None:
        self._process = process
        self._settings = settings
        self._note: HiveNote | None = None

    def address(self) -> tuple[str, int]:
        """Return host and port once the hive listens. Raises what kept it from starting."""
        if self._note is None:
            self._note = launch.await_ready(self._process, self._settings)
        return self._note.host, self._note.port

    def exit_words(self) -> str:
        """Say how the hive ended; empty while it runs."""
        code = self._process.poll()
        return "" if code is None else launch.exit_words(code)

    def stop(self, within_s: float | None = None) -> None:
        """Let go of the hive and wait until it is gone; after `within_s`, it and its workers are ended at once."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is not None:
            stdin.close()
        launch.end(self._process, self._settings.shutdown_grace_s if within_s is None else within_s)
        if stdout is not None:
            stdout.close()

    def kill(self) -> None:
        """End the hive now; its guardian ends the workers."""
        self._process.kill()


@contextmanager
def ephemeral_hive(settings: Settings, *, worker: bool) -> Generator[EphemeralHive]:
    """Launch a hive for the block and stop it after; with `worker`, it prepares a worker process while it boots.

    Does not wait until it listens, so that the caller can import its HTTP client meanwhile.
    """
    hive = EphemeralHive(launch.launch("--ephemeral", *([] if worker else ["--no-worker"]), lifeline=True), settings)
    within_s = None
    try:
        yield hive
    except _HURRIES:
        within_s = HURRY_S
        disarm()  # the worker may have noticed first, and the end is not to be broken off
        raise
    finally:
        try:
            hive.stop(within_s)
        except _HURRIES:  # while it was waited for; it must not be left behind
            hive.stop(HURRY_S)
            raise
