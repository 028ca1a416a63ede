"""A hub that is slow with what a repository holds holds nobody: not who asked, not the hive, not its end."""

import signal
from collections.abc import Iterator

import psutil
import pytest

from rbee_core import wire
from rbee_core.client import HiveClient
from rbee_core.errors import RbeeError
from rbee_kit.program import Home, Program
from rbee_kit.waiting import eventually
from tests.support.hub import Hub, Metadata

pytestmark = pytest.mark.scripted

HANGS = [pytest.param(Metadata(drip_s=0.2), id="drips"), pytest.param(Metadata(silent=True), id="silent")]
COMMANDS = [("infer", "--model", "hf:o/r", "--prompt", "x"), ("models", "pull", "hf:o/r")]
LONG_BEFORE_THE_HUB_S = 20.0
"""The hub never ends; a hive asks it for 30 s, three times if it is silent."""


@pytest.fixture
def hub(home: Home) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        home.environment.pop(name, None)
    with Hub() as running:
        home.environment |= {"HF_ENDPOINT": running.url, "HF_HOME": str(home.folder / "hf")}
        running.add("o/r/m-Q4_K_M.gguf", b"GGUF" + bytes(1000))
        yield running


def asked(hub: Hub) -> bool:
    return any(r.path == "/api/models/o/r" for r in hub.requests)


def started(hub: Hub, home: Home, command: tuple[str, ...]) -> Program:
    """Return a command whose hive waits for the hub."""
    keeper = home.start("rbee", *command)
    eventually(lambda: asked(hub) or not keeper.running(), 60, what="the hub is asked")
    assert keeper.running(), keeper.stderr
    return keeper


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
@pytest.mark.parametrize("hang", HANGS)
def test_a1_a_killed_keeper_leaves_nothing(hang: Metadata, command: tuple[str, ...], hub: Hub, home: Home) -> None:
    hub.metadata = hang
    keeper = started(hub, home, command)

    keeper.signal(signal.SIGKILL)
    keeper.finish()

    eventually(lambda: home.processes() == [], LONG_BEFORE_THE_HUB_S, what="nothing is left")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
@pytest.mark.parametrize("hang", HANGS)
def test_a1_ctrl_c_does_not_wait_for_the_hub(hang: Metadata, command: tuple[str, ...], hub: Hub, home: Home) -> None:
    hub.metadata = hang
    keeper = started(hub, home, command)

    keeper.signal(signal.SIGINT)

    assert keeper.finish(LONG_BEFORE_THE_HUB_S).exit_code == 130
    assert home.processes() == []


@pytest.mark.parametrize("hang", HANGS)
def test_a1_a_timeout_does_not_wait_for_the_hub(hang: Metadata, hub: Hub, home: Home) -> None:
    hub.metadata = hang

    answer = home.rbee(*COMMANDS[0], "--timeout", "2", timeout_s=LONG_BEFORE_THE_HUB_S)

    assert answer.exit_code == 1
    assert "deadline of 2 s" in answer.stderr
    assert home.processes() == []


@pytest.mark.parametrize("hang", HANGS)
def test_a1_a_hive_stops_while_the_hub_is_asked(hang: Metadata, hub: Hub, home: Home) -> None:
    hub.metadata = hang
    hive = home.start_hive()
    keeper = started(hub, home, COMMANDS[1])

    hive.program.signal(signal.SIGTERM)

    assert hive.program.finish(LONG_BEFORE_THE_HUB_S).exit_code == 0
    assert keeper.finish(LONG_BEFORE_THE_HUB_S).exit_code == 1


@pytest.mark.parametrize("hang", HANGS)
def test_a1_asking_has_an_end_of_its_own(hang: Metadata, hub: Hub, home: Home) -> None:
    hub.metadata = hang
    home.environment["HF_HUB_ETAG_TIMEOUT"] = "1"
    client: HiveClient = home.start_hive().client

    with pytest.raises(RbeeError) as caught:
        client.download(wire.DownloadRequest(model_ref="hf:o/r"))

    assert (caught.value.code, caught.value.message) == (
        "DOWNLOAD_FAILED", f"{hub.url} did not answer about hf:o/r within 1 s",
    )  # fmt: skip
    assert caught.value.hint


def test_b1_a_bomb_for_an_answer_costs_no_memory(hub: Hub, home: Home) -> None:
    """200 MB of blanks, in 200 KB on the wire."""
    import gzip

    hub.metadata = Metadata(gzip.compress(b"[" + b" " * 200_000_000, 1), {"Content-Encoding": "gzip"})
    hive = home.start_hive()
    before = psutil.Process(hive.pid).memory_info().rss

    with pytest.raises(RbeeError) as caught:
        hive.client.download(wire.DownloadRequest(model_ref="hf:o/r"))

    assert caught.value.code == "DOWNLOAD_FAILED"
    assert psutil.Process(hive.pid).memory_info().rss - before < 100_000_000
