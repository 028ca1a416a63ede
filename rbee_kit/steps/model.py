"""Steps about loading a model: one that works, one that cannot, and how its worker ends."""

import json
import re
from pathlib import Path

import psutil
import pytest
from pytest_bdd import given, parsers, then, when

from rbee_core import wire
from rbee_kit import given as given_source
from rbee_kit import ready, telling
from rbee_kit.asking import Asking
from rbee_kit.damage import damaged
from rbee_kit.loaded import Loaded, load
from rbee_kit.program import Hive, Home, Result
from rbee_kit.waiting import eventually

LONG_LOAD_S = 10.0


@given("the model is loaded", target_fixture="loaded")
@when("the model is loaded", target_fixture="loaded")
def load_model(hive: Hive, model: str, backend: str) -> Loaded:
    return load(hive, model, backend)


@given(parsers.parse("the model is loaded with a context of {tokens:d} tokens"), target_fixture="loaded")
def load_with_context(hive: Hive, model: str, backend: str, tokens: int) -> Loaded:
    return load(hive, model, backend, tokens)


@given(parsers.re(ready.SENTENCE.pattern), target_fixture="loaded")
@when(parsers.re(ready.SENTENCE.pattern), target_fixture="loaded")
def model_is_ready(shelf: ready.Shelf, home: Home, model: str, backend: str) -> Loaded:
    return shelf.loaded(home, model, backend)


@given("the model's place on the disk is known", target_fixture="sound")
def place_of_model(hive: Hive, model: str, backend: str) -> wire.ModelInfo:
    found = hive.client.download(wire.DownloadRequest(model_ref=model, backend=backend))
    for progress in hive.client.follow(found.id) if found.id else ():
        found = progress
    assert found.state == "done", str(found.error)
    [known] = hive.client.models()
    return known


@when(parsers.re(r"a text is asked for of a copy that is (?P<damage>.+)"), target_fixture="result")
def ask_bad_model(
    asking: Asking, home: Home, sound: wire.ModelInfo, damage: str, pytestconfig: pytest.Config
) -> Result:
    instead = pytestconfig.getoption("--bad-model")
    bad = damaged(Path(sound.local_path), home.folder / "damaged", damage)
    return asking.run("--json", "--model", instead or given_source.reference_to(bad, sound.format))


@when(parsers.parse("a text is asked for on device {number:d}"), target_fixture="result")
def ask_on_device(asking: Asking, number: int) -> Result:
    return asking.run("--device", str(number))


@when("the worker is stopped")
def stop_worker(hive: Hive, loaded: Loaded) -> None:
    assert hive.client.stop_worker(loaded.worker.worker_id) == [loaded.worker.worker_id]


@when("the worker's process is killed")
def kill_worker(loaded: Loaded) -> None:
    psutil.Process(loaded.worker.pid).kill()


@then("its progress never fell")
def progress_never_fell(loaded: Loaded) -> None:
    assert list(loaded.progress) == sorted(loaded.progress)
    assert loaded.progress[-1] == 1.0


@then("a load that takes long shows where it is")
def long_load_shows(loaded: Loaded) -> None:
    between = [fraction for fraction in loaded.progress if 0 < fraction < 1]
    assert between or loaded.load_s < LONG_LOAD_S, f"no progress in {loaded.load_s:.0f} s"


@then("the worker is on a device of the backend")
def on_device(loaded: Loaded, backend: str) -> None:
    [info] = [b for b in loaded.hive.client.backends() if b.name == backend]
    assert loaded.worker.device in [device.id for device in info.devices]


@then("memory was set aside for it")
def memory_set_aside(loaded: Loaded) -> None:
    reckoned = loaded.worker.reserved_bytes
    assert reckoned > 0, f"its estimate is of {reckoned} bytes, so that no model is too large for it"


@then("that device belongs to the accelerator that the backend names")
def on_accelerator(loaded: Loaded, backend: str) -> None:
    [info] = [b for b in loaded.hive.client.backends() if b.name == backend]
    assert loaded.worker.device.partition(":")[0] == info.accelerator


@then("it is refused in one sentence")
def refused_in_one_sentence(result: Result) -> None:
    assert result.exit_code in (1, 2), f"exit code {result.exit_code}: {result.stdout}{result.stderr}"
    reasons = [line for line in result.stderr.splitlines() if line.startswith("error: ") or "✗ " in line]
    assert len(reasons) == 1, result.stderr
    assert "Traceback" not in result.stdout + result.stderr


@then("the backend refuses to load it, in one sentence")
def refused_by_backend(result: Result) -> None:
    said = result.stdout + result.stderr
    assert result.exit_code == 1, f"a model that is none was loaded: exit code {result.exit_code}, {said}"
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "MODEL_LOAD_FAILED", (
        f"`estimate` or `load` should raise ModelLoadFailed for it; it ended with {error['code']}: {error['message']}"
    )
    assert "\n" not in error["message"]
    assert "Traceback" not in said


@then("no process of it is left")
def nothing_of_it_left(home: Home, loaded: Loaded) -> None:
    def left() -> list[psutil.Process]:
        return [process for process in home.processes() if process.pid not in loaded.before]

    eventually(lambda: not left(), 2, what="no process of the worker is left")


@then("the worker ended by itself, without an error")
def ended_by_itself(home: Home, loaded: Loaded) -> None:
    ended = re.compile(rf"{loaded.worker.worker_id}: its process \d+ ended: (.+)")
    [how] = ended.findall(home.log("hive"))
    assert how == "exit code 0", f"asked to stop, its process ended otherwise than by itself: {how}{after_close(home)}"


def after_close(home: Home) -> str:
    last = "".join(telling.raised(home)[-1:]).rpartition("\n")[2]
    return f" (the last that it raised: {last})" if last else "; does `close` end?"
