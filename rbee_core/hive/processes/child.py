"""Processes of the hive: seeing them end, and ending them.

Stopping a worker, in order: (1) it was asked over HTTP by the caller; wait a bounded time, because a polite end frees
device memory cleanly. (2) SIGTERM to its process group, for a worker whose HTTP no longer answers; wait again.
(3) SIGKILL to the group. (4) Once the leader is dead and not yet reaped, SIGKILL the group once more: its pid is still
taken, so the group's number cannot belong to a stranger, and children it left behind go too. (5) Reap. Exits are seen
through a pidfd, never by waiting for a pipe to close: a grandchild may hold a pipe for ever (cpython gh-119710).
"""

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading


class Child:
    """A process group that we started. `exit` is None until it is gone and reaped.

    `asked_at` is when it was first asked to stop, in the loop's time; whoever asks writes it.

    Raises `OSError` if it cannot be watched; then it is gone.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._gone = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._killed_at: float | None = None
        self.asked_at: float | None = None
        self.pid = process.pid
        try:
            self._watch()
        except OSError:  # no descriptor is left for a pidfd: what cannot be watched must not run
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            self.close_stdin()
            raise

    @property
    def exit(self) -> int | None:
        """Exit code, or minus the signal's number."""
        return self._process.returncode

    def write(self, data: bytes) -> None:
        """Write to the child's stdin. Raises `OSError` if it is gone."""
        assert self._process.stdin is not None
        if self._process.stdin.closed:  # as it is once its end was seen
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def close_stdin(self) -> None:
        """Close the child's stdin: for those who hold on to it, the sign to end."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the child is gone; return False if `timeout_s` passed first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._gone.wait()
        return self._gone.is_set()

    def how(self) -> str:
        """Return how it ended, as a person reads it; a kill that was ours says so."""
        if self._killed_at is None or self.exit != -signal.SIGKILL:
            return describe_exit(self.exit)
        if self.asked_at is None:
            return "killed by the hive"
        return f"killed by the hive after {self._killed_at - self.asked_at:.0f} s: it did not stop when asked"

    @property
    def was_unwilling(self) -> bool:
        """Whether it was asked to stop, did not, and was killed for it."""
        return self.asked_at is not None and self._killed_at is not None and self.exit == -signal.SIGKILL

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole group; nothing happens if it is gone."""
        if not self._gone.is_set():
            if number == signal.SIGKILL and self._killed_at is None:
                self._killed_at = self._loop.time()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill the whole group now."""
        self.signal(signal.SIGKILL)

    async def end(self, ask_s: float, terminate_s: float) -> None:
        """Take steps 1 to 5 above. Cancelled in between, it kills at once, so that nothing is left behind."""
        try:
            if not await self.wait(ask_s):
                self.signal(signal.SIGTERM)
                await self.wait(terminate_s)
        finally:
            self.signal(signal.SIGKILL)
        await self.wait()

    def _watch(self) -> None:
        if sys.platform == "linux":
            fd = os.pidfd_open(self.pid)
            self._loop.add_reader(fd, self._exited, fd)
        else:
            threading.Thread(target=self._wait_in_thread, name=f"wait-{self.pid}", daemon=True).start()

    def _wait_in_thread(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._exited, None)

    def _exited(self, fd: int | None) -> None:
        if fd is not None:
            self._loop.remove_reader(fd)
            os.close(fd)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self.close_stdin()
        self._gone.set()


def describe_exit(code: int | None) -> str:
    """Return an exit code as a person reads it."""
    if code is None:
        return "still running"
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}, perhaps out of memory" if name == "SIGKILL" else name
