"""The hive of one command: started when no hive runs on this machine, gone when the command returns."""

from typing import Self

from rbee_core.keeper.hives import launch
from rbee_core.settings import Settings


class EphemeralHive:
    """A private hive that hangs on this process by its stdin: whatever ends the keeper ends the hive and its workers.

    It is launched when built, so that it boots while the caller imports its HTTP client; `address` waits for it.
    """

    def __init__(self, settings: Settings, *, worker: bool) -> None:
        """Launch it; with `worker`, it prepares a worker process while it boots."""
        self._settings = settings
        self._process = launch.launch("--ephemeral", *([] if worker else ["--no-worker"]), lifeline=True)
        self._address: tuple[str, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def address(self) -> tuple[str, int]:
        """Return host and port once the hive listens. Raises what kept it from starting."""
        if self._address is None:
            ready = launch.await_ready(self._process, self._settings)
            self._address = (ready["host"], ready["port"])
        return self._address

    def exit_words(self) -> str:
        """Say how the hive ended; empty while it runs."""
        code = self._process.poll()
        return "" if code is None else launch.exit_words(code)

    def stop(self) -> None:
        """Let go of the hive and wait until it is gone."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is not None:
            stdin.close()
        launch.end(self._process, self._settings.shutdown_grace_s)
        if stdout is not None:
            stdout.close()

    def kill(self) -> None:
        """End the hive now; its guardian ends the workers."""
        self._process.kill()
