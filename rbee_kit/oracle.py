"""Finds every process that a test has started, by a tag in its environment.

Parents, groups and sessions can be left by a process that wants to; its environment at start cannot.
"""

import contextlib
import os
import time

import psutil

TAG_VARIABLE = "RBEE_TEST_TAG"
STARTED_S = 5.0
_known: dict[int, str] = {}
"""The tags of processes that are there, so far as they are known; a number may be given anew once its owner is gone."""


def processes(tag: str) -> list[psutil.Process]:
    """Return the live processes that carry `tag`, without this one."""
    there = set(psutil.pids()) - {os.getpid()}
    for pid in _known.keys() - there:
        del _known[pid]
    carriers = [pid for pid in sorted(there) if (_known[pid] if pid in _known else _tag_of(pid)) == tag]
    found: list[psutil.Process] = []
    for pid in carriers:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if not _is_zombie(process):
                found.append(process)
    return found


def _tag_of(pid: int) -> str:
    """Return the tag that a process carries, "" for none: it is read once, which matters to thousands of tests.

    A process that was just forked has its parent's, until it runs what it was started for.
    """
    try:
        process = psutil.Process(pid)
        tag = _read_tag(process)
        if time.time() - process.create_time() > STARTED_S:
            _known[pid] = tag
    except psutil.NoSuchProcess:
        return ""
    return tag


def _read_tag(process: psutil.Process) -> str:
    try:
        return process.environ().get(TAG_VARIABLE, "")
    except (psutil.Error, OSError):  # gone, a zombie, or somebody else's
        return ""


def zombies() -> list[psutil.Process]:
    """Return our own children that ended and were not waited for."""
    if hasattr(os, "waitid") and not _somebody_waits():
        return []
    return [p for p in psutil.Process().children() if _is_zombie(p)]


def _somebody_waits() -> bool:
    """Return whether there is such a child, which is asked more cheaply than which."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # there is no child
        return False


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
