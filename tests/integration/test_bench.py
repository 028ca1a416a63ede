"""The benches: rounds are paired, the other side runs its own code, and one that is ended leaves nothing."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rbee_kit.waiting import eventually
from tests.bench import measure, page, streams

ROOT = Path(__file__).parents[2]
PATIENCE_S = 100


def bench(name: str, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
    return subprocess.Popen(
        argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def started_under(folder: Path) -> Iterator[str]:
    """Yield the command lines of processes whose RBEE_HOME is below `folder`."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("RBEE_HOME", "").startswith(str(folder)):
                yield " ".join(process.cmdline())
        except (psutil.Error, OSError):
            continue


def test_every_other_round_goes_backwards() -> None:
    order: list[str] = []
    measures = [lambda name=name: order.append(name) or float(len(order)) for name in "ab"]
    assert measure.interleaved(2, *measures) == [[1, 4], [2, 3]]
    assert order == ["a", "b", "b", "a"]


def test_a_ratio_is_that_of_the_median_round() -> None:
    assert measure.ratio([1.0, 10.0, 6.0], [2.0, 10.0, 2.0]) == 1.0


def test_a_page_says_what_falls_short() -> None:
    goals = [measure.Goal("quick", 0.99, 0.97, at_least=True), measure.Goal("late", 7.5, 5, unit="ms")]
    text = page.of(goals, {"seen, s": 0.25}, rounds=3, threads=2)
    assert "| quick | ≥ 0.97  | 0.990 | pass |" in text
    assert "| late | ≤ 5 ms | 7.500 | **falls short** |" in text
    assert "| seen, s | 0.250 |" in text


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'data: {"token": "a", "index": 0}\n\ndata: {"done": true, "total_tokens": 3}\n\n', 3),
        (b'data: {"text":"a"}\n\ndata: {"usage":{"completion_tokens":2,"total_tokens":9}}\n\ndata: [DONE]\n\n', 2),
        (b'data: {"text":"a"}\n\ndata: {"text":""}\n\ndata: {"text":""}\n\ndata: [DONE]\n\n', 2),
    ],
)
def test_the_tokens_of_every_server_are_counted(body: bytes, tokens: int) -> None:
    async def asked() -> streams.Stream:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body)
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await streams.ask(f"http://127.0.0.1:{port}/x", {})

    assert asyncio.run(asked()).tokens == tokens


def test_two_checkouts_are_compared_in_one_command() -> None:
    with bench("against", str(ROOT), "--only", "help", "--rounds", "1", "--json") as process:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (0, 1), stderr  # 1: a machine that others use too misses a goal
    assert json.loads(stdout)["numbers"].keys() == {"rbee --help, s, here", "rbee --help, s, there"}


def test_a_folder_without_rbee_is_no_other_side(tmp_path: Path) -> None:
    with bench("against", str(tmp_path), "--only", "help") as process:
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f"{tmp_path} is no checkout of rbee" in stderr


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_ended_bench_leaves_no_hive(tmp_path: Path, ending: signal.Signals, code: int) -> None:
    environment = measure.environment_of(ROOT) | {"TMPDIR": str(tmp_path)}
    arguments = ("--rounds", "1000", "--threads", "1")
    with bench("decode", *arguments, environment=environment) as process:
        try:
            eventually(lambda: any("llm-worker-rbee" in c for c in started_under(tmp_path)), 60, what="a worker")
            process.send_signal(ending)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    eventually(lambda: not list(started_under(tmp_path)), what="nothing is left")
