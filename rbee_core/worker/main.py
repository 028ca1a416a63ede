"""The worker's program: what ends it with its hive, a listening server, then the model.

The hive writes one `WorkerSpec` to stdin and keeps the pipe open for as long as it lives. Nothing secret is in argv
or the environment.
"""

import logging
import os
import sys

from rbee_core.imports import import_aiohttp
from rbee_core.titles import show_as
from rbee_core.worker import lifeline


def main() -> None:
    """Run one worker to its end. Console script `llm-worker-rbee`; started by the hive only."""
    if sys.argv[1:2] == ["--version"]:
        from rbee_core import __version__

        print(f"llm-worker-rbee {__version__}")  # noqa: T201
        return
    if sys.stdin.isatty():
        sys.exit("llm-worker-rbee is started by rbee-hive; run `rbee infer` or `rbee-hive daemon` instead")
    lifeline.arm()
    code = 1
    try:
        _run()
        code = 0
    except Exception:
        logging.getLogger("rbee.worker").exception("the worker failed")
    finally:
        # An engine thread that is stuck in native code must not hold up the exit that the hive is waiting for.
        logging.shutdown()
        os._exit(code)


def _run() -> None:
    import_aiohttp()
    from rbee_core import aio, wire
    from rbee_core.worker.program import prepare, run, title

    plugins = prepare() if "--spare" in sys.argv else None
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(lifeline.EXIT_ORPHANED)
    spec = wire.decode(line, wire.WorkerSpec)
    lifeline.hold(spec.hive_pid, sys.stdin.fileno())
    show_as(title(spec))
    os.environ.update(spec.environment)  # before an engine is imported, which is when drivers read it
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    aio.run(run(spec, plugins))
