"""Which hive `--node` means, and what is known of this RBEE_HOME's own."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rbee_core import home
from rbee_core.edge import Interrupted
from rbee_core.errors import HiveNotAnswering, HiveUnreachable, InvalidRequest
from rbee_core.keeper.hives import address, local
from rbee_core.keeper.hives.open import connect, hive_of
from rbee_core.settings import Settings


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("localhost", ("localhost", None, False)),
        ("mac.home", ("mac.home", None, False)),
        ("mac.home:9000", ("mac.home", 9000, False)),
        ("127.0.0.1:1", ("127.0.0.1", 1, False)),
        ("[::1]:7835", ("::1", 7835, False)),
        ("[::1]", ("::1", None, False)),
        ("fe80::1", ("fe80::1", None, False)),
        ("bücher.home", ("bücher.home", None, False)),
        ("xn--bcher-kva.de:5", ("xn--bcher-kva.de", 5, False)),
        ("my_mac.local.", ("my_mac.local.", None, False)),
        ("fe80::1%eth0", ("fe80::1%eth0", None, False)),
        ("https://mac.home", ("mac.home", None, True)),
        ("https://[::1]:9000", ("::1", 9000, True)),
    ],
)
def test_node_is_host_and_port(node: str, expected: tuple[str, int | None, bool]) -> None:
    assert address.parse(node) == expected


@pytest.mark.parametrize(
    "node",
    [
        "",
        "host:",
        ":80",
        "host:0",
        "host:65536",
        "host:x",
        "a b",
        "http://host",
        "https://",
        "https://https://h",
        "https://h/x",
        ".",
        ".:5",
        "a..b",
        "xn--zzzz-.invalid:5",
        "☃☃.invalid",
        "a\udcff",
        "256.1.1.1",
        "1.2.3.4.5",
        "%41",
        "*",
        f"{'a' * 300}:5",
        f"{'a.' * 150}b",
        "h/x",
        "u@h",
        "[::1]x",
        "h\n",
    ],
)
def test_what_is_no_node_is_refused(node: str) -> None:
    with pytest.raises(InvalidRequest):
        address.parse(node)


def test_only_plain_localhost_means_the_hive_of_this_home() -> None:
    assert address.is_local("localhost")
    assert not address.is_local("localhost:7835")
    assert not address.is_local("127.0.0.1")
    assert not address.is_local("https://localhost")


@pytest.mark.parametrize(
    ("host", "reached"), [("0.0.0.0", "127.0.0.1:80"), ("::", "[::1]:80"), ("10.0.0.9", "10.0.0.9:80")]
)
def test_hive_that_listens_everywhere_is_reached_by_loopback(host: str, reached: str, tmp_path: Path) -> None:
    with address.client_of(host, 80, Settings(home=tmp_path)) as client:
        assert client.address == reached


def test_without_a_note_there_is_no_hive(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)

    assert local.look(settings) is None
    with pytest.raises(local.NoHive, match="No hive is running"):
        connect("localhost", settings)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def noted(tmp_path: Path, listener: socket.socket) -> Settings:
    """Settings of a home whose hive is this very process."""
    me = home.identify(os.getpid())
    place = home.Home(tmp_path)
    note = home.HiveNote(
        pid=me.pid, start_time=me.start_time, host="127.0.0.1", port=listener.getsockname()[1], version="1"
    )
    home.write_note(place.hive_note_path, note)
    return Settings(home=tmp_path, connect_timeout_s=0.05)


def test_a_living_hive_that_says_nothing_is_not_none(listener: socket.socket, tmp_path: Path) -> None:
    settings = noted(tmp_path, listener)

    assert isinstance(local.look(settings), local.NotAnswering)
    with pytest.raises(HiveNotAnswering, match=rf"pid {os.getpid()}\) does not answer") as caught:
        connect("localhost", settings)
    assert f"kill -KILL {os.getpid()}" in caught.value.hint
    assert not caught.value.details["halted"]


def test_a_living_hive_that_takes_no_connection_is_not_none(listener: socket.socket, tmp_path: Path) -> None:
    settings = noted(tmp_path, listener)
    listener.close()

    assert isinstance(local.look(settings), local.NotAnswering)


def test_no_hive_is_started_beside_one_that_does_not_answer(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr("rbee_core.keeper.hives.launch.launch", lambda *options, **_: started.append(options))

    with pytest.raises(HiveNotAnswering), hive_of("localhost", noted(tmp_path, listener)):
        pass

    assert started == []


def test_ctrl_c_ends_the_wait_for_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, may_end = threading.Event(), threading.Event()

    def ask(*_: object, **__: object) -> list[object]:
        asked.set()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        may_end.wait()
        return []

    def pressed(*_: object) -> None:
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    before = signal.signal(signal.SIGALRM, pressed)
    try:
        with pytest.raises(Interrupted):
            address.client_of("no.such.host.invalid", 1, Settings(home=Path("/nowhere"), connect_timeout_s=60))
    finally:
        signal.signal(signal.SIGALRM, before)
        may_end.set()
    assert asked.is_set()


def test_a_name_that_is_not_found_in_time_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: may_end.wait())
    with pytest.raises(HiveUnreachable, match=r"Cannot connect to no\.such\.host\.invalid:1"):
        address.client_of("no.such.host.invalid", 1, Settings(home=Path("/nowhere"), connect_timeout_s=0.01))
    may_end.set()
