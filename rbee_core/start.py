"""Where each program of rbee begins: its console script, and `python -m` of its package, call these.

Importing a program takes a tenth of a second. Ctrl+C in that time ends the process without a word: nothing has been
started yet that could be left behind. So this module imports next to nothing before it has said so. What Python itself
says of a Ctrl+C while it starts, before it reads a line of ours, is beyond a Python program's reach.
"""

import gc
import os
import signal
import sys
import time
from importlib import import_module

EXIT_INTERRUPTED = 130

begun_at: float | None = None
"""When this process became a program of ours, in seconds of the monotonic clock; None where none was started."""


def rbee() -> None:
    """Run `rbee` and exit."""
    _start("keeper")


def rbee_hive() -> None:
    """Run `rbee-hive` and exit."""
    _start("hive", "rbee-hive")


def llm_worker_rbee() -> None:
    """Run `llm-worker-rbee` and exit."""
    _start("worker", "llm-worker-rbee")


def _start(package: str, title: str = "") -> None:
    """Import a program by its name, so that this module may stand below all of them, and run it.

    One that stays carries its `title` and its arguments in `ps`. Until it has `settled`, nobody looks for garbage.
    """
    global begun_at  # noqa: PLW0603  # as early as can be
    begun_at = time.monotonic()
    _leave_quietly_on_interrupt()
    gc.disable()
    if title:
        from rbee_core.titles import show_as  # a command that is over at once need not wait for it

        show_as(" ".join([title, *sys.argv[1:]]))
    import_module(f"rbee_core.{package}.main").main()


def settled() -> None:
    """Look for garbage from now on, and never among what is there: a hundred thousand objects of imports, which stay.

    Looking through them would be a sixth of a start, and 30 ms in which no token gets on, again and again.
    """
    if begun_at is not None:  # else this process is somebody else's
        gc.freeze()
        gc.enable()


def _leave_quietly_on_interrupt() -> None:
    """Exit on SIGINT; one that the caller had ignored (a job in the background) stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def _exit(*_: object) -> None:
    os._exit(EXIT_INTERRUPTED)
