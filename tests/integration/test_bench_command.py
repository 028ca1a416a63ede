"""`rbee bench` with scripted workers: what it says, beside an endpoint too, and what it leaves."""

import json
import signal
from pathlib import Path

import pytest

from rbee_kit.program import Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted
MODEL = "scripted:tokens=8;token_ms=1"
QUICK = ("--rounds", "1", "--words", "10", "--tokens", "8")


def test_a_model_is_measured_beside_an_endpoint_and_goes_again(home: Home, tmp_path: Path) -> None:
    hive = home.start_hive()
    picture = tmp_path / "both.svg"
    url = f"http://127.0.0.1:{hive.port}/v1"
    endpoint = ("--url", url, "--url-model", MODEL)
    result = home.rbee("bench", "--model", MODEL, *QUICK, "--streams", "2", *endpoint, "--plot", str(picture), "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["start"]["model"], said["start"]["backend"]) == (MODEL, "scripted")
    assert said["start"]["phases_s"].keys() == {"model", "load"}
    assert said["start"]["resident_bytes"] > 0
    assert [(speed["where"], speed["streams"]) for speed in said["speeds"]] == [
        ("rbee", 1),
        (url, 1),
        ("rbee", 2),
        (url, 2),
    ]
    assert all(speed["tokens_per_s"] > 0 and speed["first_token_ms"] > 0 for speed in said["speeds"])
    assert [speed["hive_cpu_us_per_token"] is None for speed in said["speeds"]] == [False, True, False, True]
    assert picture.read_text(encoding="utf-8").startswith("<svg")


def test_ctrl_c_ends_it_and_leaves_nothing(home: Home) -> None:
    program = home.start("rbee", "bench", "--model", "scripted:tokens=inf;token_ms=5", "--tokens", "4096", *QUICK[:4])
    eventually(lambda: "at a time" in program.stderr or not program.running(), 60, what="it measures")
    program.signal(signal.SIGINT)
    assert program.finish().exit_code == 130, program.stderr
    eventually(lambda: not home.processes(), 10, what="nothing is left")


@pytest.mark.parametrize(
    "wrong",
    [
        ("--url", "there/v1"),
        ("--tokens", "1"),
        ("--streams", "0"),
        ("--plot", "/no/such/folder/x.svg"),
        ("--slots", "0"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(home: Home, wrong: tuple[str, str]) -> None:
    result = home.rbee("bench", *wrong)
    assert (result.exit_code, wrong[0] in result.stderr) == (2, True), result.stderr


def test_an_endpoint_that_is_not_there_is_named_before_anything_starts(home: Home) -> None:
    result = home.rbee("bench", "--url", "http://127.0.0.1:9/v1")
    assert result.exit_code == 1
    assert "error: http://127.0.0.1:9/v1 cannot be measured" in result.stderr
