"""The eight phases as a record: which ran, for how long, with what outcome; shown as they happen."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rbee_core.errors import RbeeError
from rbee_core.keeper.screen.render import Screen

NAMES = {
    "1": "Worker registry check",
    "2": "Pool preflight",
    "3": "Model provisioning",
    "4": "Worker preflight",
    "3-5": "Model provisioning, worker preflight and startup",
    "6": "Worker registration",
    "7": "Worker health check",
    "8": "Inference execution",
}


@dataclass(slots=True)
class Phase:
    """One phase that was entered. `detail` is its outcome in words."""

    phase: str
    name: str
    detail: str = ""
    duration_ms: int = 0


class PhaseLog:
    """Collects phases and shows each on the screen."""

    def __init__(self, screen: Screen, clock: Callable[[], float] = time.monotonic) -> None:
        self.screen = screen
        self.entered: list[Phase] = []
        self._clock = clock

    @contextmanager
    def phase(self, number: str) -> Generator[Phase]:
        """Time the block as phase `number`. One that ends with an error stays the last one entered."""
        phase = Phase(number, NAMES[number])
        self.entered.append(phase)
        started = self._clock()
        try:
            yield phase
        finally:
            phase.duration_ms = round((self._clock() - started) * 1000)

    def forget(self, phase: Phase) -> None:
        """Leave out a phase that turned out to have nothing to do."""
        self.entered.remove(phase)

    def say(self, detail: str) -> None:
        """Show a line of the current phase, and note it as its outcome."""
        current = self.entered[-1]
        current.detail = detail.removeprefix("✓ ")
        self.screen.line(f"[Phase {current.phase}] {detail}")

    def wait(self, detail: str) -> None:
        """Begin a line of the current phase; `over` ends it."""
        self.screen.start(f"[Phase {self.entered[-1].phase}] {detail}")

    def fraction(self, detail: str, share: float) -> None:
        """Show on one line, in tenths, which `share` of something long is done."""
        self.screen.fraction(f"[Phase {self.entered[-1].phase}] {detail}", share)

    def over(self, detail: str) -> None:
        """End the line that `wait` began."""
        self.entered[-1].detail = detail.removeprefix("✓ ")
        self.screen.end(f" {detail}")

    def failed(self, error: RbeeError, log_path: str) -> None:
        """Show that the current phase failed."""
        where = ""
        if self.entered:
            self.entered[-1].detail = error.message
            where = f"[Phase {self.entered[-1].phase}] "
        self.screen.failure(where, error, log_path)

    def as_data(self) -> list[dict[str, Any]]:
        """Return the phases for --json."""
        return [
            {"phase": p.phase, "name": p.name, "duration_ms": p.duration_ms, "detail": p.detail} for p in self.entered
        ]
