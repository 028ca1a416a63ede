"""Reading a small file that anybody may have put there: never waits, never reads without a bound."""

import errno
import os
import stat
from pathlib import Path


def read(path: Path, limit_bytes: int = 1 << 20) -> tuple[bytes, os.stat_result]:
    """Return the bytes of a file and what the system says of it.

    Raises `OSError` if it cannot be read; that is also what a pipe, a folder, a device and a longer file are, none of
    which is waited for.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)  # else a pipe waits for its writer
    with os.fdopen(fd, "rb") as file:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise OSError(errno.EFBIG, f"it has more than {limit_bytes} bytes")
    return data, seen
