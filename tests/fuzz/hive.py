"""Thousands of requests that schemathesis makes of a running hive's own description, right ones and wrong ones.

Run as ``python -m tests.fuzz.hive FOLDER [--cases N] [--seed N]``, where FOLDER holds schemathesis as `pip install
--target` puts it; `nox -s fuzz` does both. The hive has the scripted backend: what is tried is the front, not a model.
Exits with 1 if an answer is a bug or belies the description, if the hive has ended, or if a log holds a traceback.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rbee_core.hive.dialects.table import TABLE
from rbee_kit import oracle
from rbee_kit.program import Hive, Home
from tests.bench.measure import ROOT, exit_with

MODEL = "scripted:tokens=3"
LEFT_OUT = ("/v1/shutdown", "/v1/events")  # the one ends the hive, the other has no end
CHECKS = ("no_bug_of_ours", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
CLI = "from schemathesis.cli import schemathesis; schemathesis()"
BUG = re.compile(r"Traceback|^error [0-9a-f]{12} in| error [0-9a-f]{12} in ", re.MULTILINE)
NOBODY = "http://127.0.0.1:9"
LONGEST_S = 1800


@contextmanager
def running() -> Iterator[Hive]:
    """Give a hive on a home of its own, which reaches no hub."""
    tag = str(uuid.uuid4())
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), tag)
        home.use_plugins_in(ROOT / "tests/support/plugins")
        home.environment |= {"HF_ENDPOINT": NOBODY}
        try:
            yield home.start_hive()
        finally:
            home.close()
            oracle.kill(tag)


def fuzzed(hive: Hive, packages: Path, options: argparse.Namespace) -> int:
    """Have schemathesis ask, and return its exit code."""
    operations = sum(row.plain_path not in LEFT_OUT for row in TABLE)
    environment = {
        **os.environ,
        "PYTHONPATH": str(packages.absolute()),
        "SCHEMATHESIS_HOOKS": "hooks",
        "RBEE_FUZZ_MODEL": MODEL,
    }
    environment["PYTHONPATH"] += os.pathsep + str(ROOT / "tests/fuzz")
    argv = [sys.executable, "-c", CLI, "run", f"http://127.0.0.1:{hive.port}/v1/openapi.json"]
    argv += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(-(-options.cases // operations))]
    argv += ["--checks", ",".join(CHECKS), "--mode", "all", "--request-timeout", "30", "--continue-on-failure"]
    argv += ["--generation-database", "none", "--suppress-health-check", "all", "--no-color", "--warnings", "off"]
    argv += ["--seed", str(options.seed), *(part for path in LEFT_OUT for part in ("--exclude-path", path))]
    return subprocess.run(argv, env=environment, check=False, timeout=LONGEST_S, cwd=hive.home.folder).returncode


def bugs(home: Home) -> list[str]:
    """Return the first lines of what the logs tell of bugs."""
    logs = [home.log("hive"), *home.worker_logs()]
    return [log[found.start() : found.start() + 2000] for log in logs for found in BUG.finditer(log)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with running() as hive:
        code = fuzzed(hive, options.folder, options)
        alive = hive.program.running() and hive.client.health().status == "alive"
        found = bugs(hive.home)
    print(*found[:5], f"{len(found)} bugs in logs; the hive {'lives' if alive else 'has ended'}", sep="\n")
    return 1 if code or found or not alive else 0


if __name__ == "__main__":
    exit_with(main)
