"""A worker must not outlive its hive: two safeguards within the worker, because each alone has a hole.

The kernel's parent-death signal misses a parent that died before it was armed, so the parent's pid is compared
afterwards. The pipe on stdin works where the kernel has no such signal, but its reader cannot run while a native
library holds the interpreter lock. The hive has two more for what is left (`rbee_core/hive/design.md`): its guardian,
for stopped and stuck workers and their children, and the sweep of the next hive.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1
EXIT_ORPHANED = 3


def arm() -> None:
    """Ask the kernel to kill this process when its parent dies. Call first, from the main thread; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def hold(hive_pid: int, stdin_fd: int) -> None:
    """Leave now if the hive is already gone, and at once when `stdin_fd` reports that it is."""
    if os.getppid() != hive_pid:
        os._exit(EXIT_ORPHANED)
    threading.Thread(target=_leave_on_end_of_file, args=(stdin_fd,), name="lifeline", daemon=True).start()


def _leave_on_end_of_file(fd: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(fd, 4096):
            pass
    os._exit(EXIT_ORPHANED)
