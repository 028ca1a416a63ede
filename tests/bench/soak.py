"""Thousands of short requests, eight at a time: what a worker holds after them is what it held after the first ones.

Run as ``python -m tests.bench.soak [--requests N] [--json]``; ten thousand take some minutes. Exits with 1 if the
worker's or the hive's memory has grown by more than a twentieth, or if threads or descriptors were left.
"""

import json
import urllib.request
from dataclasses import dataclass

import psutil

from tests.bench import peers
from tests.bench.decode import add_threads
from tests.bench.many import STREAMS, prompt
from tests.bench.measure import Goal, arguments, exit_with, report
from tests.bench.peers import Server, Terms

WARM_UP = 400


@dataclass(frozen=True)
class Holding:
    """What a process holds."""

    rss_bytes: int
    threads: int
    descriptors: int

    @classmethod
    def of(cls, process: psutil.Process) -> "Holding":
        return cls(process.memory_info().rss, process.num_threads(), process.num_fds())


def processes(server: Server) -> dict[str, psutil.Process]:
    """Return the hive's process and its worker's."""
    with urllib.request.urlopen(server.url.replace("/v1/inference", "/v1/workers/list")) as answer:
        worker = psutil.Process(json.load(answer)["workers"][0]["pid"])
    hive = worker.parent()
    assert hive is not None
    return {"worker": worker, "hive": hive}


def ask(server: Server, requests: int) -> None:
    """Ask that many times: some prompts long, most short, every third with sampling."""
    for number in range(0, requests, STREAMS):
        chain = "default" if number % 3 == 0 else "greedy"
        server.ask([prompt() * (1 + number % 5) for _ in range(STREAMS)], 4, chain)


def main() -> int:
    parser = arguments(__doc__, rounds=1)
    add_threads(parser)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    goals: list[Goal] = []
    numbers: dict[str, float] = {"requests": options.requests}
    with peers.through_hive(Terms(options.threads, slots=STREAMS)) as server:
        ask(server, WARM_UP)
        watched = processes(server)
        before = {name: Holding.of(process) for name, process in watched.items()}
        ask(server, options.requests)
        for name, process in watched.items():
            first, last = before[name], Holding.of(process)
            numbers |= {
                f"{name}: RSS before, MB": first.rss_bytes / 1e6,
                f"{name}: RSS after, MB": last.rss_bytes / 1e6,
            }
            goals += [
                Goal(f"{name}: RSS after / before", last.rss_bytes / first.rss_bytes, 1.05),
                Goal(f"{name}: threads more", last.threads - first.threads, 0),
                Goal(f"{name}: descriptors more", last.descriptors - first.descriptors, 4),
            ]
    return report(goals, numbers, as_json=options.json)


if __name__ == "__main__":
    exit_with(main)
