"""The hive's end of the guardian: starts it, keeps it informed, and starts another when it dies."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from rbee_core import aio
from rbee_core.hive.processes import guardian
from rbee_core.hive.processes.child import Child
from rbee_core.hive.processes.start import start_process
from rbee_core.titles import named

log = logging.getLogger(__name__)

ARGV = [sys.executable, "-I", "-S", *named(guardian.NAME), guardian.__file__]
RESTART_DELAY_S, LONGEST_DELAY_S = 0.2, 30.0


class Guard:
    """Registers process groups with a guardian process for as long as `keep` runs."""

    def __init__(self, environment: Mapping[str, str], log_path: Path) -> None:
        self._environment = environment
        self._log_path = log_path
        self._groups: set[int] = set()
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """The guardian's pid; 0 between two of them."""
        return self._child.pid if self._child else 0

    def add(self, group: int) -> None:
        """Have `group` killed when the hive dies."""
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        """Forget `group`; call only after it is reaped."""
        self._groups.discard(group)
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        if self._child is not None:
            try:
                self._child.write(line.encode())
            except OSError:
                log.warning("the guardian is gone; a new one will learn all groups")

    def start(self) -> None:
        """Start a guardian and tell it everything."""
        self._child = Child(start_process(ARGV, self._environment, self._log_path))
        for group in self._groups:
            self._tell(f"+{group}\n")

    async def keep(self) -> None:
        """Replace a guardian that dies, until cancelled. Where the system refuses another, the hive goes on without.

        Then the workers' other safeguards have to do, and a new one is tried for again and again.
        """
        delay_s = RESTART_DELAY_S
        while True:
            if self._child is not None:
                await self._child.wait()
                log.warning("the guardian (pid %d) died; starting another", self._child.pid)
                self._child, delay_s = None, RESTART_DELAY_S
            await aio.sleep(delay_s)
            try:
                self.start()
            except OSError as error:
                delay_s = min(delay_s * 2, LONGEST_DELAY_S)
                log.warning("no guardian can be started (%s); trying again in %g s", error.strerror, delay_s)

    async def release(self) -> None:
        """Let the guardian end. Call when no worker is left and nobody minds it any more: at end-of-file it kills."""
        child, self._child = self._child, None
        if child is not None:
            child.close_stdin()
            await child.end(ask_s=1.0, terminate_s=0.0)
