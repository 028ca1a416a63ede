"""A hive is killed at random moments of a pull: no model is listed and wrong, and little is fetched twice."""

import hashlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rbee_core import wire
from rbee_kit.program import Hive, Home
from tests.support.hub import Hub

KILLS = int(os.environ.get("RBEE_TEST_HIVE_KILLS", "10"))
SIZE = 8_000_000
REFERENCE = "hf:o/r"
SLACK_BYTES = 10 * 1024 * 1024


@pytest.fixture
def hub(home: Home) -> Iterator[Hub]:
    with Hub() as running:
        home.environment |= {"HF_ENDPOINT": running.url, "HF_HOME": str(home.folder / "hf")}
        yield running


def check_listed(hive: Hive, data: bytes) -> bool:
    """Return whether the model is listed; fail if it is and is not whole."""
    rows = [m for m in hive.client.models() if m.reference == REFERENCE]
    for row in rows:
        assert row.status == "ok"
        assert hashlib.sha256(Path(row.local_path).read_bytes()).digest() == hashlib.sha256(data).digest()
    return bool(rows)


def pull(hive: Hive) -> str:
    progress = hive.client.download(wire.DownloadRequest(model_ref=REFERENCE))
    return list(hive.client.follow(progress.id))[-1].state if progress.state == "running" else progress.state


@pytest.mark.timeout(300)
def test_no_kill_leaves_a_model_that_is_listed_and_wrong(hub: Hub, home: Home) -> None:
    data, chance = random.Random(5).randbytes(SIZE), random.Random(time.time_ns())
    data = b"GGUF" + data
    file = hub.add("o/r/m-Q4_K_M.gguf", data, bytes_per_s=16_000_000)
    finished = 0
    for _ in range(KILLS):
        hive = home.start_hive()
        if check_listed(hive, data):
            finished += 1
            hive.client.remove_model(REFERENCE)  # and once more, so that every kill meets a pull
        hive.client.download(wire.DownloadRequest(model_ref=REFERENCE))
        time.sleep(chance.uniform(0, 0.3))
        hive.kill()
    file.knobs.bytes_per_s = 0
    hive = home.start_hive()

    assert pull(hive) == "done"

    assert check_listed(hive, data)
    assert KILLS < 50 or finished > KILLS // 20
    assert hub.served_bytes <= (finished + 2) * (len(data) + SLACK_BYTES)
    assert not [name for name in home.files() if ".part" in name]
    hive.stop()


def test_kill_in_the_middle_is_resumed_by_the_next_hive(hub: Hub, home: Home) -> None:
    data = b"GGUF" + random.Random(6).randbytes(SIZE)
    file = hub.add("o/r/m-Q4_K_M.gguf", data, bytes_per_s=8_000_000)
    hive = home.start_hive()
    first = hive.client.download(wire.DownloadRequest(model_ref=REFERENCE))
    next(p for p in hive.client.follow(first.id) if p.done_bytes > SIZE // 2)
    hive.kill()
    file.knobs.bytes_per_s = 0

    hive = home.start_hive()
    assert not check_listed(hive, data)
    assert pull(hive) == "done"
    assert check_listed(hive, data)
    assert hub.served_bytes <= len(data) + SLACK_BYTES // 5
    hive.stop()
