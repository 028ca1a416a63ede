"""The guardian: a tiny process that ends every worker when the hive is gone, however the hive went.

Run as a script, with the standard library only and in a session of its own. It reads lines from stdin: ``+PGID``
registers a process group, ``-PGID`` forgets it. The hive alone holds the other end of the pipe, so end-of-file means
that the hive is dead; then every registered group is killed. This reaches what a worker's own safeguards cannot:
stopped processes, ones stuck in native code, and their children. Where there is a /proc, children that moved to a
session of their own are found by the hive's tag in their environment and killed too.
"""

import contextlib
import os
import signal
import sys

NAME = "rbee-guardian"


def main() -> None:
    """Read registrations until the hive is gone, then kill what is left."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:  # what `top` shows
        comm.write(NAME)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        sign, group = line[:1], int(line[1:])
        if sign == b"+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    tag = os.environb.get(b"RBEE_INSTANCE")
    if tag:
        kill_tagged(b"RBEE_INSTANCE=" + tag)


def kill_tagged(entry: bytes) -> None:
    """Kill every other process that has `entry` in the environment it was started with."""
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environ:
            if int(pid) != os.getpid() and entry in environ.read().split(b"\0"):
                os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    main()
