"""The guardian: a tiny process that ends every worker when the hive is gone, however the hive went.

Run as a script, with the standard library only and in a session of its own. It reads lines from stdin: ``+PGID``
registers a process group, ``-PGID`` forgets it. The hive alone holds the other end of the pipe, so end-of-file means
that the hive is dead; then every registered group is killed. This reaches what a worker's own cords cannot: stopped
processes, ones stuck in native code, and their children.
"""

import os
import signal
import sys


def main() -> None:
    """Read registrations until the hive is gone, then kill what is left."""
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
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
