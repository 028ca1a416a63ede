"""Steps about documents: each takes the words from the document and the facts from the running program."""

import contextlib
import importlib.metadata
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pytest_bdd import given, parsers, then, when

from rbee_core import wire
from step_defs.inference import Asking
from step_defs.support import Hive, Home, Result, eventually

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
REQUEST = re.compile(r"`(GET|POST|DELETE|PUT) (/v1/[^`]*)`")
PLACEHOLDER = re.compile(r"\{\w+\}")
SQLITE = b"SQLite format 3"
# What differs from run to run in the lines that the flow document shows.
VARIES = (
    (r"worker-\w+", "worker-[0-9a-f]+"),
    (r"\.{5} ✓", r"[.]{3,}(?:[0-9]+%[.]*)* ✓"),
    (r"\d+\.\d+\.\d+", "[0-9]+[.][0-9]+[.][0-9]+"),
    (r"\d+\.\d\d", "[0-9]+[.][0-9][0-9]"),
    (r"\b\d+(?= ms|$)", "[0-9]+"),
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def table(name: str, heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading, without its own heading."""
    _, _, section = read(name).partition(f"\n## {heading}\n")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def databases(home: Home) -> list[str]:
    return [name for name in home.files() if (home.path / name).read_bytes().startswith(SQLITE)]


def catalogued(home: Home) -> list[str]:
    return [line.split()[0] for line in home.rbee("models", "list").stdout.splitlines()[1:]]


# ARCHITECTURE.md


def drawn(part: str) -> list[str]:
    """Return what the drawing in ARCHITECTURE.md says of a part."""
    [words] = re.findall(rf"── {part}: (.+)", read("ARCHITECTURE.md"))
    return re.split(r", | over ", words)


@then("the worker registry is what ARCHITECTURE.md says")
def registry_as_documented(home: Home, hive: Hive) -> None:
    on_disk = [name for name in databases(home) if name != "models.db"]
    after_restart = hive.client.list_workers()
    facts = ["on disk" if on_disk else "in memory", "persistent" if after_restart else "ephemeral"]
    assert drawn("worker registry") == facts


@then("the model catalog is what ARCHITECTURE.md says")
def catalog_as_documented(home: Home) -> None:
    [file] = databases(home)
    lifetime = "persistent" if catalogued(home) else "ephemeral"
    assert drawn("model catalog")[:2] == ["SQLite", f"{lifetime} ({file})"]


@then("the processes are those that ARCHITECTURE.md draws")
def processes_as_documented(hive: Hive, model: str, backend: str) -> None:
    hive.client.spawn(wire.SpawnRequest(model_ref=model, backend=backend))
    started = re.findall(r"──starts──>\s+([\w-]+)", read("ARCHITECTURE.md"))
    names = [p.name().split()[0] for p in psutil.Process(hive.pid).children()]
    assert sorted(names) == sorted(started)


# docs/mvp-flow.md


def phases_told(ephemeral: bool) -> dict[str, str]:
    """Return what the flow document says of each phase, by its number."""
    return {row[0]: row[2 if ephemeral else 3] for row in table("docs/mvp-flow.md", "Phases")}


def phases_shown(result: Result) -> set[str]:
    numbers: set[int] = set()
    for first, last in re.findall(r"^\[Phase (\d)(?:-(\d))?\]", result.stderr, re.MULTILINE):
        numbers |= set(range(int(first), int(last or first) + 1))
    return {str(number) for number in numbers}


@then("the phases are those that the flow document tells of a hive that runs")
def phases_persistent(asking: Asking, result: Result) -> None:
    assert phases_shown(result) == phases_told(ephemeral=False).keys()
    [target] = re.findall(r"if there is one, goes to (\d)", phases_told(ephemeral=False)["1"])
    assert phases_shown(asking.run()) == {"1", target}


@then("the phases without a hive are those that the flow document tells")
def phases_ephemeral(asking: Asking, hive: Hive) -> None:
    hive.stop()
    result = asking.run()
    assert phases_shown(result) == phases_told(ephemeral=True).keys()
    told = phases_told(ephemeral=True)["1"].partition(":")[0].capitalize()
    assert f"[Phase 1] {told} (ephemeral mode)\n" in result.stderr


def session_shown() -> tuple[str, list[str], str]:
    """Return the command that the flow document shows, its lines on stderr, and its text."""
    [session] = re.findall(r"```console\n\$ (.*?)```", read("docs/mvp-flow.md"), re.DOTALL)
    command, *lines = session.splitlines()
    return command, lines, lines.pop(lines.index("Tokens:") + 1)


@when("the command that the flow document shows is run", target_fixture="result")
def run_flow_command(home: Home) -> Result:
    return home.start(*shlex.split(session_shown()[0])).finish()


@then("it shows what the flow document shows, line by line")
def lines_as_documented(result: Result) -> None:
    _, lines, text = session_shown()
    shown = result.stderr.splitlines()
    for line, wanted in zip(shown, lines, strict=False):
        assert re.fullmatch(f"{pattern(wanted)}(?:, .*)?", line), (line, wanted)
    assert len(shown) >= len(lines)
    assert not any(line.startswith("[Phase") for line in shown[len(lines) :])
    assert text not in lines


def pattern(line: str) -> str:
    """Return what fits a line of the flow document, whatever varies in it."""
    parts = re.split("|".join(f"({what})" for what, _ in VARIES), line)
    step = len(VARIES) + 1
    texts, varying = parts[::step], [parts[at + 1 : at + step] for at in range(0, len(parts) - 1, step)]
    found = [next(fits for part, (_, fits) in zip(row, VARIES, strict=True) if part is not None) for row in varying]
    return "".join(re.escape(text) + fits for text, fits in zip(texts, [*found, ""], strict=True))


@then("the hive answers every request that the flow document names")
def requests_as_documented(home: Home) -> None:
    named = REQUEST.findall(read("docs/mvp-flow.md"))
    hive = home.start_hive()
    assert len(named) >= 5
    assert [request for request in named if not knows(hive, *request)] == []


@then("registry and catalog are where the flow document says")
def registry_and_catalog_as_documented(home: Home) -> None:
    text = " ".join(read("docs/mvp-flow.md").split())
    [absent] = re.findall(r"worker registry is in memory and ephemeral: it ends with the hive, and no `(.+?)`", text)
    [present] = re.findall(r"catalog is SQLite and persistent: `(.+?)` in RBEE_HOME", text)
    assert not list(home.folder.rglob(absent))
    assert databases(home) == [present]
    assert catalogued(home)


@given("another program on the port that the flow document gives to hives", target_fixture="port")
def documented_port(home: Home) -> int:
    port = int(port_of("hive, persistent"))
    with contextlib.suppress(OSError):  # then another program is already what this one would have been
        home.cleanup.enter_context(socket.create_server(("127.0.0.1", port)))
    return port


def port_of(who: str) -> str:
    [told] = [row[1] for row in table("docs/mvp-flow.md", "Ports") if row[0] == who]
    return re.split(r"[,;]", told)[0]


@when("a hive is started without a port", target_fixture="result")
def hive_without_port(home: Home) -> Result:
    return home.start("rbee-hive", "daemon").finish()


@then("it names that port")
def names_port(result: Result, port: int) -> None:
    assert re.search(rf"\b{port}\b", result.stderr)


@then("what the flow document leaves to the kernel is chosen by it")
def ports_of_the_kernel(home: Home, model: str, backend: str, port: int) -> None:
    assert port_of("hive, ephemeral") == port_of("worker") == "chosen by the kernel"
    hive = home.start_hive()
    answer = hive.client.spawn(wire.SpawnRequest(model_ref=model, backend=backend))
    host, _, worker_port = answer.url.removeprefix("http://").partition(":")
    assert host == "127.0.0.1"
    assert len({hive.port, int(worker_port), port, 0}) == 4


@when("a text is asked for and it is written", target_fixture="result")
def asked_and_written(asking: Asking) -> Result:
    return asking.run()


@when("a text is asked for and the model is not there", target_fixture="result")
def asked_without_model(asking: Asking, tmp_path: Path) -> Result:
    return asking.run("--model", str(tmp_path / "no-such.gguf"))


@when("a text is asked for and an option cannot be", target_fixture="result")
def asked_with_bad_option(asking: Asking) -> Result:
    return asking.run("--temperature", "9")


@when(parsers.re(r"a text is asked for and it is (?P<how>interrupted|terminated)"), target_fixture="result")
def asked_and_stopped(asking: Asking, how: str) -> Result:
    program = asking.start("--max-tokens", "4000")
    eventually(lambda: program.stdout, 20, what="the first word")
    program.signal({"interrupted": signal.SIGINT, "terminated": signal.SIGTERM}[how])
    return program.finish()


@then(parsers.parse('the flow document explains its exit code with "{words}"'))
def exit_code_explained(result: Result, words: str) -> None:
    text = "; ".join(f"{code} {meaning}" for code, meaning in table("docs/mvp-flow.md", "Ends"))
    explained = re.findall(r"(?:^|; )(\d+) (?:after )?([^;]+)", text)
    assert [code for code, meaning in explained if meaning == words] == [str(result.exit_code)]


# docs/reference/http.md


def knows(hive: Hive, method: str, path: str) -> bool:
    """Whether the hive has this route: it answers, and not that there is no such path or method."""
    url = f"http://127.0.0.1:{hive.port}" + PLACEHOLDER.sub("x", path)
    request = urllib.request.Request(url, method=method, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status < 400
    except urllib.error.HTTPError as error:
        with error:
            return error.code != 405 and f"There is no {method} ".encode() not in error.read()


def documented_routes() -> Iterator[tuple[str, str]]:
    for cell, *_ in table("docs/reference/http.md", "Hive"):
        yield from REQUEST.findall(cell)


@when("every route of the reference is asked", target_fixture="unknown_routes")
def ask_routes(hive: Hive) -> list[tuple[str, str]]:
    # Last what ends the hive.
    routes = sorted(documented_routes(), key=lambda route: "shutdown" in route[1])
    assert len(routes) > 10
    return [route for route in routes if not knows(hive, *route)]


@then("the hive knows each of them")
def knows_each(unknown_routes: list[tuple[str, str]]) -> None:
    assert unknown_routes == []


@then("the hive does not know a route that the reference does not name")
def knows_no_other(home: Home, hive: Hive) -> None:
    hive.program.finish()
    assert not knows(home.start_hive(), "GET", "/v1/no-such-route")


# The scripts


@given("an environment that is set up", target_fixture="environment")
def environment(tmp_path: Path) -> Path:
    """An environment as `make` leaves it: its programs, and the stamp that says so."""
    folder = tmp_path / "environment"
    folder.mkdir()
    (folder / "bin").symlink_to(BIN)
    (folder / ".ready-infer").touch()
    return folder


@when('"make infer" is run in it', target_fixture="result")
def make_infer(home: Home, environment: Path) -> Result:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    return home.start(make, "--no-print-directory", "-C", str(ROOT), "infer", f"VENV={environment}").finish()


@then("every command, extra, session and file that the scripts name is there")
def scripts_are_right(home: Home, environment: Path) -> None:
    text = read("Makefile") + read(".ci/run")
    for target in re.findall(r"\bmake (\w+)", text):
        assert re.search(rf"^{target}:", text, re.MULTILINE), target
    for extras in re.findall(r"--extras (\S+)", text):
        assert set(extras.split(",")) <= set(importlib.metadata.metadata("rbee").get_all("Provides-Extra") or [])
    sessions = home.start(sys.executable, "-m", "nox", "--list", "-f", str(ROOT / "noxfile.py")).finish().stdout
    for session in re.findall(r"--session (\w+)", text):
        assert re.search(rf"^[*-] {session}\b", sessions, re.MULTILINE), sessions
    for name in re.findall(r"\b[\w/]+\.(?:py|toml)\b", text):
        assert (ROOT / name).is_file(), name


@when("the set-up is run on a machine without compilers", target_fixture="result")
def set_up_without_compilers(home: Home, tmp_path: Path) -> Result:
    home.environment["PATH"] = os.fspath(tmp_path)
    script = str(ROOT / "scripts" / "setup.py")
    return home.start(sys.executable, script, "--venv", str(tmp_path / "venv"), "--extras", "llamacpp").finish()
