"""Finds every process that a test has started, by a tag in its environment.

Parents, groups and sessions can be left by a process that wants to; its environment at start cannot.
"""

import contextlib
import os

import psutil

TAG_VARIABLE = "RBEE_TEST_TAG"


def processes(tag: str) -> list[psutil.Process]:
    """Return the live processes that carry `tag`, without this one."""
    return [p for p in psutil.process_iter() if p.pid != os.getpid() and _carries(p, tag)]


def _carries(process: psutil.Process, tag: str) -> bool:
    try:
        return process.environ().get(TAG_VARIABLE) == tag
    except (psutil.Error, OSError):  # gone, a zombie, or somebody else's
        return False


def zombies() -> list[psutil.Process]:
    """Return our own children that ended and were not waited for."""
    return [p for p in psutil.Process().children() if _is_zombie(p)]


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def leftovers(tag: str) -> list[str]:
    """Describe what a test has left running, or dead and not reaped."""
    return [*map(_describe, processes(tag)), *(f"zombie {p.pid}" for p in zombies())]


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {process.status()} {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"{process.pid} (ending)"


def kill(tag: str) -> None:
    """Kill whatever carries `tag`, and reap what is ours."""
    for process in processes(tag):
        with contextlib.suppress(psutil.Error):
            process.kill()
    for zombie in zombies():
        with contextlib.suppress(psutil.Error):
            zombie.wait(timeout=1)
