"""What a process is called in `ps`, `top`, `pgrep -f` and `nvidia-smi`, which would all say "python".

On Linux only, and without a library: they cost a start of theirs, and the usual one overwrites the environment too, by
which processes of a hive are found. Elsewhere the name that a process was started with (`named`) has to do.
"""

import contextlib
import sys

COMM_LIMIT = 15
_ARG_START, _ARG_END = 48 - 3, 49 - 3  # of the fields of /proc/PID/stat, the third of which follows the program's name


def named(name: str) -> tuple[str, str]:
    """Return an option for a Python interpreter that `ps` shows and Python ignores."""
    return "-X", name


def show_as(title: str) -> None:
    """Have this process called `title`, as far as the room for its arguments goes; `top` shows the first word.

    Never raises. What everybody on the machine may read stands in a title: no path, no secret.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, ValueError, IndexError):  # a kernel may forbid it
        with open("/proc/self/comm", "wb", buffering=0) as comm:
            comm.write(title.partition(" ")[0].encode()[:COMM_LIMIT])
        with open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        start, room = int(fields[_ARG_START]), int(fields[_ARG_END]) - int(fields[_ARG_START])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(title.encode("utf-8", "replace")[: room - 1].ljust(room, b"\0"))
