"""What the benches share: timing a command's output byte by byte, medians of interleaved rounds, the report."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rbee_kit import oracle

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Timing:
    """Seconds since the command's start; `returned_s` is when its process was gone."""

    first_s: float
    last_s: float
    returned_s: float
    text: str
    stderr: str


@dataclass(frozen=True)
class Goal:
    """A ratio or a time, and what it has to be."""

    name: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def run(argv: Sequence[str | Path], environment: Mapping[str, str]) -> Timing:
    """Run a command and note when its first and its last byte came out."""
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        with subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as p:
            assert p.stdout is not None
            first = last = 0.0
            data = b""
            try:
                while chunk := os.read(p.stdout.fileno(), 65_536):
                    if chunk.strip():
                        last = time.perf_counter()
                        first = first or last
                    data += chunk
            except BaseException:
                p.terminate()
                raise
        returned = time.perf_counter()
        errors.seek(0)
        stderr = errors.read().decode()
    if p.returncode:
        sys.exit(f"{argv[0]} ended with {p.returncode}:\n{stderr[-2000:]}")
    return Timing(first - started, last - started, returned - started, data.decode(), stderr)


def environment_of(checkout: Path) -> dict[str, str]:
    """Return an environment in which this interpreter's programs run the code in `checkout`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RBEE_", "PYTHON"))}
    return kept | {"PYTHONPATH": str(checkout)}


def rbee(checkout: Path = ROOT) -> list[str]:
    """Return what runs the command `rbee` of a checkout: where it begins differs between commits."""
    scripts = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["rbee"].partition(":")
    return [sys.executable, "-P", "-c", f"import sys; from {module} import {function}; sys.exit({function}())"]


@contextmanager
def home(checkout: Path = ROOT) -> Iterator[dict[str, str]]:
    """Give the environment of a new RBEE_HOME; at the end, nothing that was started with it is alive."""
    tag = str(uuid.uuid4())
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield environment_of(checkout) | {"RBEE_HOME": folder, oracle.TAG_VARIABLE: tag}
        finally:
            oracle.kill(tag)


@contextmanager
def hive(environment: Mapping[str, str], checkout: Path = ROOT) -> Iterator[None]:
    """Run a hive on the node `localhost` of this environment."""
    try:
        subprocess.run(
            [*rbee(checkout), "hive", "start", "--port", "0"], env=environment, check=True, capture_output=True
        )
        yield
    finally:
        subprocess.run([*rbee(checkout), "hive", "stop"], env=environment, check=False, capture_output=True)


def interleaved(rounds: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Return what each measure gave, taken in turns so that a slow minute hits all of them.

    Every other round goes backwards: whoever comes after another pays for what that one left behind.
    """
    taken: list[list[float]] = [[] for _ in measures]
    for number in range(rounds):
        places = range(len(measures)) if number % 2 == 0 else reversed(range(len(measures)))
        for place in places:
            taken[place].append(measures[place]())
    return taken


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of each round: the machine's mood is the same within one."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def arguments(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with what every bench takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser


def report(goals: Sequence[Goal], numbers: Mapping[str, float], *, as_json: bool) -> int:
    """Print the outcome; return the exit code, 1 if a goal is missed."""
    if as_json:
        outcome = {g.name: {"value": round(g.value, 4), "limit": g.limit, "met": g.met} for g in goals}
        print(json.dumps({"goals": outcome, "numbers": {k: round(v, 4) for k, v in numbers.items()}}))
    else:
        for name, value in numbers.items():
            print(f"{name:45} {value:10.3f}")
        for goal in goals:
            sign, verdict = "≥" if goal.at_least else "≤", "ok" if goal.met else "MISSED"
            print(f"{goal.name:45} {goal.value:10.3f} {goal.unit:1} {sign} {goal.limit:g}  {verdict}")
    return 0 if all(g.met for g in goals) else 1


def exit_with(bench: Callable[[], int]) -> NoReturn:
    """Run a bench and exit with its code; Ctrl+C and SIGTERM end it as an error would, so that it cleans up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    sys.exit(bench())


def _leave(number: int, _frame: object) -> NoReturn:
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, lambda *_: None)  # not SIG_IGN, which whoever cleans up would inherit
    sys.exit(128 + number)
