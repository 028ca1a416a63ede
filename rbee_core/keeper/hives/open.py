"""Reaching the hive of a node, which for this machine may have to be started first and stopped again."""

import contextlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from rbee_core.errors import HiveUnreachable, RbeeError
from rbee_core.keeper.hives import address
from rbee_core.keeper.hives.ephemeral import EphemeralHive
from rbee_core.keeper.interrupt import Interrupts, interrupts
from rbee_core.settings import Settings

if TYPE_CHECKING:
    from rbee_core.client import HiveClient


class Reach:
    """The way to one hive. `ephemeral` is the hive that was started for this command, if one was.

    `check` runs before a hive is started, and only then: what it raises saves starting one.
    """

    def __init__(
        self,
        node: str,
        settings: Settings,
        stack: contextlib.ExitStack,
        signals: Interrupts,
        *,
        worker: bool,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._stack = stack
        self.ephemeral: EphemeralHive | None = None
        self._client = address.running(settings) if address.is_local(node) else address.connect(node, settings)
        if self._client is not None:
            stack.enter_context(self._client)
            return
        if check is not None:
            check()
        self.ephemeral = stack.enter_context(EphemeralHive(settings, worker=worker))
        signals.at_once = self.ephemeral.kill

    def connect(self) -> "HiveClient":
        """Wait for the hive and return a client of it."""
        if self._client is None:
            import_module("rbee_core.client")  # slow, so it is done while the hive boots
            assert self.ephemeral is not None
            self._client = self._stack.enter_context(address.client_of(*self.ephemeral.address(), self._settings))
        return self._client

    def explained(self, error: RbeeError) -> RbeeError:
        """Name the cause instead of the symptom where this command's own hive is gone."""
        words = self.ephemeral.exit_words() if self.ephemeral else ""
        log = self._settings.logs_dir / "hive.log"
        return RbeeError(f"The hive of this command is gone ({words})", hint=f"look at {log}") if words else error


@contextmanager
def hive_of(node: str, settings: Settings) -> "Generator[HiveClient]":
    """Yield a client of the node's hive; on this machine, one is started for the block if none runs."""
    address.parse(node)
    with interrupts() as signals, contextlib.ExitStack() as stack:
        reach = Reach(node, settings, stack, signals, worker=False)
        try:
            yield reach.connect()
        except HiveUnreachable as error:
            raise reach.explained(error) from error
