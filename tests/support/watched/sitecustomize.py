"""Notes each blocking call on the event loop of a hive's or worker's process. Only for tests.

Python imports a module of this name at its start, when this folder is on PYTHONPATH. The product knows nothing of it.
`blockbuster` knows which calls block; here they are written into the file that `RBEE_TEST_BLOCKED` names instead of
being raised, so that one run shows them all and nothing that catches errors can hide one.
"""

import os
import sys
import traceback
from collections.abc import Callable

LOOPS = ("rbee-hive", "rbee_core.hive", "llm-worker-rbee", "rbee_core.worker")

# Frames below which the loop's thread may wait for the system, and why.
ALLOWED = frozenset(
    {
        # The kernel ties the parent-death signal to the thread that starts a process: it must be the loop's.
        ("rbee_core/hive/processes/start.py", "start_process"),
        ("rbee_core/hive/processes/guard.py", "start"),
        # A few lines into a pipe of our own, far below what it holds.
        ("rbee_core/hive/processes/child.py", "write"),
        ("rbee_core/hive/main.py", "announce"),
        # It is called when there is something to read.
        ("rbee_core/hive/processes/orders.py", "readable"),
        # The last call into an engine: nothing is served any more.
        ("rbee_core/worker/engine.py", "release"),
        # One line into a file of our own; a thread for it would lose the last words of a process that dies.
        ("logging/__init__.py", "emit"),
        ("logging/handlers.py", "emit"),
    }
)


def watch(report: str) -> None:
    from blockbuster import BlockBuster

    buster = BlockBuster()
    for function in buster.functions.values():
        function.can_block_predicate = noting(function.full_name, function.can_block_predicate, report, function)
    buster.activate()


def noting(name: str, harmless: Callable[..., bool], report: str, function: "object") -> Callable[..., bool]:
    """Return what lets every call pass, and notes those that are not `harmless` and stand in no allowed frame."""

    def passes(*args: object, **kwargs: object) -> bool:
        if not harmless(*args, **kwargs):
            frames = [f for f in traceback.extract_stack() if "/blockbuster/" not in f.filename][:-1]
            names = {(f.filename, f.name) for f in frames}
            if not any(permitted(path, called, function) for path, called in names):
                told = " < ".join(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames[-9:]))
                note(report, f"{name}: {told}\n")
        return True

    return passes


def permitted(path: str, called: str, function: "object") -> bool:
    ours = any(path.endswith(file) and called == name for file, name in ALLOWED)
    return ours or any(path.endswith(file) and called in names for file, names in function.can_block_functions)


def note(report: str, line: str) -> None:
    descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def start() -> None:
    report = os.environ.get("RBEE_TEST_BLOCKED", "")
    if report and any(name in argument for argument in sys.orig_argv[:5] for name in LOOPS):
        watch(report)


start()
