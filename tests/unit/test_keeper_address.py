"""Which hive `--node` means."""

import json
import os
from pathlib import Path

import pytest

from rbee_core.errors import InvalidRequest
from rbee_core.keeper.hives import address
from rbee_core.settings import Settings


def note(home: Path, text: str) -> Settings:
    (home / "run").mkdir()
    (home / "run" / "hive.json").write_text(text)
    return Settings(home=home)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("localhost", ("localhost", None)),
        ("mac.home", ("mac.home", None)),
        ("mac.home:9000", ("mac.home", 9000)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:7835", ("::1", 7835)),
        ("[::1]", ("::1", None)),
        ("fe80::1", ("fe80::1", None)),
    ],
)
def test_node_is_host_and_port(node: str, expected: tuple[str, int | None]) -> None:
    assert address.parse(node) == expected


@pytest.mark.parametrize(
    "node", ["", "host:", ":80", "host:0", "host:65536", "host:x", "a b", "http://host", "h/x", "u@h", "[::1]x", "h\n"]
)
def test_what_is_no_node_is_refused(node: str) -> None:
    with pytest.raises(InvalidRequest):
        address.parse(node)


def test_only_plain_localhost_means_the_hive_of_this_home() -> None:
    assert address.is_local("localhost")
    assert not address.is_local("localhost:7835")
    assert not address.is_local("127.0.0.1")


def test_run_file_of_a_living_process_is_believed(tmp_path: Path) -> None:
    noted = {"pid": os.getpid(), "port": 7835, "host": "127.0.0.1", "start_time": 1.5, "version": "0.1.0"}

    found = address.read_run_file(note(tmp_path, json.dumps(noted)))

    assert found == address.RunFile(os.getpid(), "127.0.0.1", 7835, 1.5)


def test_hive_that_listens_everywhere_is_reached_by_loopback(tmp_path: Path) -> None:
    noted = {"pid": os.getpid(), "port": 7835, "host": "0.0.0.0", "start_time": 1.5}

    found = address.read_run_file(note(tmp_path, json.dumps(noted)))

    assert found is not None
    assert found.host == "127.0.0.1"


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "{}", '{"pid": "x", "port": 1, "host": "h", "start_time": 0}'),
        '{"pid": 4194305, "port": 1, "host": "h", "start_time": 0}',  # above the largest pid there is
        '{"pid": 99999999999999999999, "port": 1, "host": "h", "start_time": 0}',
    ],
)
def test_run_file_that_means_nothing_means_no_hive(tmp_path: Path, text: str) -> None:
    assert address.read_run_file(note(tmp_path, text)) is None


def test_no_run_file_means_no_hive(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)

    assert address.running(settings) is None
    with pytest.raises(address.NoHive, match="No hive is running"):
        address.connect("localhost", settings)
