"""SIGKILL at random moments of a pull: what appears is right, and little is fetched twice."""

import contextlib
import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rbee_core.backend.base import RemoteFile
from rbee_core.models.transfer import fetch
from tests.support.hub import Hub

KILLS = int(os.environ.get("RBEE_TEST_KILLS", "50"))  # for each way of fetching
SIZE = 6 * 1024 * 1024
# Forks instead of starting a hundred interpreters: a child pulls in a loop until the parent kills it.
CHILD = """
import os, sys, signal
from pathlib import Path
from rbee_core.backend.base import RemoteFile
from rbee_core.models.transfer import fetch
from rbee_core.models.transfer_rules import TransferOptions
url, size, sha, target, trial = sys.argv[1:]
options = TransferOptions(trial_bytes=int(trial))
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        fetch(RemoteFile("a", url, int(size), sha256=sha), Path(target), options=options)
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""


@pytest.mark.parametrize(
    ("trial_bytes", "bytes_per_s"), [(SIZE, 60_000_000), (500_000, 20_000_000)], ids=["one", "lanes"]
)
def test_no_kill_leaves_a_wrong_file(tmp_path: Path, trial_bytes: int, bytes_per_s: int) -> None:
    data = random.Random(7).randbytes(SIZE)
    target = tmp_path / "a.gguf"
    chance = random.Random(time.time_ns())
    finished = 0
    with Hub() as hub:
        published = hub.add("o/r/a.gguf", data, bytes_per_s=bytes_per_s)
        url = f"{hub.url}/o/r/resolve/main/a.gguf"
        argv = [sys.executable, "-c", CHILD, url, str(SIZE), published.sha256, str(target), str(trial_bytes)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as puller:
            assert puller.stdin is not None
            assert puller.stdout is not None
            for _ in range(KILLS):
                puller.stdin.write("go\n")
                pid = int(puller.stdout.readline())
                time.sleep(chance.uniform(0.002, 0.15))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
                assert puller.stdout.readline() == "gone\n"
                if target.exists():
                    assert hashlib.sha256(target.read_bytes()).hexdigest() == published.sha256
                    target.unlink()
                    finished += 1
            puller.stdin.close()
        fetch(RemoteFile("a", url, SIZE, sha256=published.sha256), target)
    assert target.read_bytes() == data
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".part") == []
    assert KILLS < 20 or finished
    assert any(r.headers.get("range", "-")[-1] != "-" for r in hub.gets()) == (trial_bytes < SIZE)


def test_little_is_fetched_twice_after_a_kill(tmp_path: Path) -> None:
    data = os.urandom(16 * 1024 * 1024)
    target = tmp_path / "a.gguf"
    with Hub() as hub:
        published = hub.add("o/r/a.gguf", data, bytes_per_s=40_000_000)
        url = f"{hub.url}/o/r/resolve/main/a.gguf"
        argv = [sys.executable, "-c", CHILD, url, str(len(data)), published.sha256, str(target), "1000000"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as puller:
            assert puller.stdin is not None
            assert puller.stdout is not None
            puller.stdin.write("go\n")
            pid = int(puller.stdout.readline())
            part = target.with_name("a.gguf.part")
            deadline = time.monotonic() + 20
            while not (part.exists() and part.stat().st_size > len(data) // 2):
                assert time.monotonic() < deadline
                time.sleep(0.005)
            os.kill(pid, 9)
            puller.stdin.close()
        published.knobs.bytes_per_s = 0
        fetch(RemoteFile("a", url, len(data), sha256=published.sha256), target)
        assert hub.served_bytes <= len(data) + 10 * 1024 * 1024
    assert target.read_bytes() == data
