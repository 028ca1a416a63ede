"""How long `rbee --help` takes beside an interpreter that does nothing, in one run.

Run as ``python -m tests.bench.help [--json]``.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.bench.measure import ROOT, Goal, arguments, environment_of, exit_with, interleaved, ratio, rbee, report, run


def show_help(checkout: Path) -> float:
    """Return how long a checkout's `rbee --help` takes."""
    return run([*rbee(checkout), "--help"], environment_of(checkout)).returned_s


def nothing() -> float:
    return run([sys.executable, "-c", "pass"], os.environ).returned_s


def goal(help_s: Sequence[float], nothing_s: Sequence[float]) -> Goal:
    return Goal("rbee --help / python -c pass", ratio(help_s, nothing_s), 6)


def main() -> int:
    options = arguments(__doc__, rounds=15).parse_args()
    show_help(ROOT)
    help_s, nothing_s = interleaved(options.rounds, lambda: show_help(ROOT), nothing)
    numbers = {"rbee --help, s": median(help_s), "python -c pass, s": median(nothing_s)}
    return report([goal(help_s, nothing_s)], numbers, as_json=options.json)


if __name__ == "__main__":
    exit_with(main)
