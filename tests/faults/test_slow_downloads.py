"""A hub that sends next to nothing must not hold up what has nothing to do with it."""

import os
import urllib.request
from collections.abc import Iterator

import pytest

from rbee_core import wire
from rbee_core.client import HiveClient
from rbee_kit.program import Home
from rbee_kit.waiting import eventually
from tests.support.hub import Hub

pytestmark = pytest.mark.scripted

SHARED_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""So many helper threads a Python program has for all of its short blocking calls."""
SLOW = max(6, SHARED_THREADS)


@pytest.fixture
def hub(home: Home) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        home.environment.pop(name, None)
    with Hub() as running:
        home.environment |= {"HF_ENDPOINT": running.url, "HF_HOME": str(home.folder / "hf")}
        for n in range(SLOW + 2):
            running.add(f"org/slow{n}/m-Q4_K_M.gguf", b"GGUF" + os.urandom(4_000_000), bytes_per_s=20_000)
        yield running


def pull(client: HiveClient, n: int) -> wire.DownloadProgress:
    return client.download(wire.DownloadRequest(model_ref=f"hf:org/slow{n}"))


def test_slow_downloads_stop_no_spawn_no_list_and_no_readiness(hub: Hub, home: Home) -> None:
    home.environment["RBEE_DOWNLOADS_AT_ONCE"] = str(SLOW)
    hive = home.start_hive()
    client = hive.client
    assert [pull(client, n).state for n in range(SLOW)] == ["running"] * SLOW
    eventually(lambda: len(hub.gets()) == SLOW, 60, what="every download has begun")

    assert client.models() == []
    with urllib.request.urlopen(f"http://127.0.0.1:{hive.port}/v1/ready", timeout=30) as ready:
        assert ready.status == 200
    assert client.list_workers() == []
    assert client.spawn(wire.SpawnRequest(model_ref="scripted:")).worker_id
    assert len(client.list_workers()) == 1
    assert client.health().status == "alive"
    assert next(client.follow(pull(client, 0).id)).state == "running"


def test_download_that_waits_for_its_turn_says_so(hub: Hub, home: Home) -> None:
    home.environment["RBEE_DOWNLOADS_AT_ONCE"] = "1"
    hive = home.start_hive()
    assert pull(hive.client, 0).queue_position == 0
    assert pull(hive.client, 1).queue_position == 1

    waiting = home.start("rbee", "models", "pull", "org/slow2")
    eventually(lambda: "place 2 in the node's queue" in waiting.stderr, 60, what="the command says that it waits")

    assert hive.stop().exit_code == 0
    ended = waiting.finish(30)
    assert (ended.exit_code, "Traceback" in ended.stderr) == (1, False)
