"""What this machine has free right now."""

import contextlib
from pathlib import Path

import psutil

_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory_bytes() -> int:
    """Return how much host memory a new process can take: what the system has, within this cgroup's limit."""
    available = psutil.virtual_memory().available
    for limit_path, usage_path in _CGROUP_FILES:
        with contextlib.suppress(OSError, ValueError):  # no such cgroup version, or "max": no limit
            limit, usage = (int(Path(p).read_text()) for p in (limit_path, usage_path))
            available = min(available, max(0, limit - usage))
    return available
