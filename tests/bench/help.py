"""How long `rbee --help` takes beside an interpreter that does nothing, in one run.

Run as ``python -m tests.bench.help [--json]``.
"""

import os
import sys
from statistics import median

from tests.bench.measure import SCRIPTS, Goal, arguments, interleaved, ratio, report, run


def main() -> int:
    options = arguments(__doc__, rounds=15).parse_args()

    def nothing() -> float:
        return run([sys.executable, "-c", "pass"], os.environ).returned_s

    def show_help() -> float:
        return run([SCRIPTS / "rbee", "--help"], os.environ).returned_s

    show_help()
    help_s, nothing_s = interleaved(options.rounds, show_help, nothing)
    goals = [Goal("rbee --help / python -c pass", ratio(help_s, nothing_s), 8)]
    return report(
        goals, {"rbee --help, s": median(help_s), "python -c pass, s": median(nothing_s)}, as_json=options.json
    )


if __name__ == "__main__":
    sys.exit(main())
