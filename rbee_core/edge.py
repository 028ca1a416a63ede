"""The edge of a program: whatever a command ends with becomes a sentence, a hint and an exit code, here and only here.

`rbee infer` reports its own errors, phase by phase, and a hive that was started by `rbee` as JSON too.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from rbee_core import streams
from rbee_core.errors import RbeeError

EXIT_INTERRUPTED = 130


class Interrupted(BaseException):
    """Raised in the main thread by a signal; `exit_code` is 128 plus its number, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def begin() -> None:
    """Make the streams fit for use, and Ctrl+C what Python makes of it. The imports are over when this is called."""
    streams.prepare()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def leave(code: int) -> NoReturn:
    """Exit. The end is decided, so that Ctrl+C and a full disk have no say any more.

    The system takes back what is left at once; Python would let go of a hundred thousand objects one by one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    streams.let_go()
    if logging := sys.modules.get("logging"):
        logging.shutdown()
    os._exit(code)


def run(command: click.Command, arguments: Sequence[str], name: str) -> int:
    """Run a command and return its exit code; whatever goes wrong, no traceback is shown."""
    try:
        answer: Any = command.main(args=list(arguments), prog_name=name, standalone_mode=False)
    except RbeeError as error:
        report(error)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt, Interrupted) as stop:
        return getattr(stop, "exit_code", EXIT_INTERRUPTED)
    except SystemExit as stop:  # Click's, when whoever read our output left
        return stop.code if isinstance(stop.code, int) else 1
    except Exception as error:  # noqa: BLE001  # the edge: whatever is left is the system's refusal, or our bug
        (report_refusal if isinstance(error, OSError) else report_bug)(error)
        return 1
    return answer if isinstance(answer, int) else 0


def report_refusal(error: Exception) -> None:
    """Tell what the system refused."""
    report(RbeeError(f"The system refused: {error}", hint="free what it lacks, or correct the permissions"))


def report(error: RbeeError) -> None:
    """Tell a person what went wrong and what to do."""
    click.echo(f"error: {error.message}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)


def report_bug(error: Exception) -> None:
    """Say that rbee itself failed; the traceback only for those who asked for it."""
    click.echo(f"error: rbee failed unexpectedly ({type(error).__name__}: {error}); this is a bug", err=True)
    if os.environ.get("RBEE_DEBUG") == "1":
        import traceback  # needed only here

        traceback.print_exception(error)
    else:
        click.echo("hint: RBEE_DEBUG=1 shows the traceback to report it with", err=True)
