"""The model catalog: it persists, and the files are the truth when it is lost or damaged."""

import dataclasses
import fcntl
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from rbee_core.errors import CatalogUnusable, InsufficientDisk
from rbee_core.models import store
from rbee_core.models.catalog import APPLICATION_ID, SCHEMA_VERSION, Catalog, CatalogRow, row_of


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models.db"


@pytest.fixture
def open_catalog(path: Path, models_dir: Path) -> Iterator[Callable[[], Catalog]]:
    opened: list[Catalog] = []

    def open_one() -> Catalog:
        opened.append(Catalog(path, models_dir))
        return opened[-1]

    yield open_one
    for catalog in opened:
        catalog.close()


def downloaded(models_dir: Path, name: str, content: bytes = b"GGUF") -> CatalogRow:
    """Put a whole fetched model on the disk, with its manifest."""
    folder = models_dir / name
    folder.mkdir()
    (folder / "model.gguf").write_bytes(content)
    file = store.ManifestFile("model.gguf", len(content), sha256="0" * 64)
    manifest = store.Manifest(f"hf:org/{name}", "hf", "main", "gguf", file.name, 1_700_000_000, [file])
    store.write_manifest(folder, manifest)
    return row_of(folder, manifest)


def row(name: str = "m") -> CatalogRow:
    return CatalogRow(
        reference=f"file:/{name}", provider="file", local_path=f"/{name}", size_bytes=1, downloaded_at_unix=2
    )


def test_it_is_created_with_the_contract_s_table(path: Path, open_catalog: Callable[[], Catalog]) -> None:
    assert open_catalog().rows() == []
    with closing(sqlite3.connect(path)) as db:
        columns = [name for _, name, *_ in db.execute("PRAGMA table_info(models)")]
        assert columns[:5] == ["reference", "provider", "local_path", "size_bytes", "downloaded_at_unix"]
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_it_persists(path: Path, open_catalog: Callable[[], Catalog]) -> None:
    first = open_catalog()
    first.add(row("a"))
    first.add(row("b"))
    first.remove("file:/a")
    first.close()
    second = open_catalog()
    assert second.rows() == [row("b")]
    assert second.find("file:/b") == row("b")
    assert second.find("file:/a") is None
    assert [p.name for p in path.parent.glob("models.db.*")] == []


def test_the_same_reference_is_replaced(open_catalog: Callable[[], Catalog]) -> None:
    catalog = open_catalog()
    catalog.add(row())
    newer = dataclasses.replace(row(), size_bytes=9)
    catalog.add(newer)
    assert catalog.rows() == [newer]


def test_closing_leaves_one_file(path: Path, open_catalog: Callable[[], Catalog]) -> None:
    catalog = open_catalog()
    catalog.add(row())
    catalog.close()
    assert [p.name for p in path.parent.glob("models.db*")] == ["models.db"]


def test_a_missing_catalog_is_rebuilt_from_manifests(models_dir: Path, open_catalog: Callable[[], Catalog]) -> None:
    rows = [downloaded(models_dir, "a"), downloaded(models_dir, "b")]
    assert open_catalog().rows() == rows


def test_only_whole_files_with_a_readable_manifest_are_adopted(
    models_dir: Path, open_catalog: Callable[[], Catalog]
) -> None:
    whole = downloaded(models_dir, "whole")
    Path(downloaded(models_dir, "lost").local_path).unlink()
    Path(downloaded(models_dir, "cut", b"GGUFGGUF").local_path).write_bytes(b"GG")
    for name, content in (("garbled", b"{\xff"), ("strange", b'{"reference": "x"}')):
        reference = downloaded(models_dir, name).reference
        store.manifest_path(models_dir / name, reference).write_bytes(content)
    assert open_catalog().rows() == [whole]


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all " * 1000)


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def cut_in_the_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(50)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeroed_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))


def noisy_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(n * 37 % 251 for n in range(4096)))


def all_zeroes(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def somebody_else_s(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE models (x)")


def without_its_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE models")


def without_a_column(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE models DROP COLUMN format")


def of_wrong_types(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE models SET reference = x'ff00' WHERE rowid = 1")
        db.execute("UPDATE models SET size_bytes = 'many' WHERE rowid = 2")
        db.commit()


DAMAGES = [
    garbage, truncated, cut_in_the_header, empty, zeroed_page, noisy_page, all_zeroes, somebody_else_s,
    without_its_table, without_a_column, of_wrong_types,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_b8_a_damaged_catalog_is_kept_aside_and_rebuilt(
    damage: Callable[[Path], None], path: Path, models_dir: Path, open_catalog: Callable[[], Catalog]
) -> None:
    kept = downloaded(models_dir, "kept")
    catalog = open_catalog()
    for number in range(200):
        catalog.add(row(f"{number}-{'x' * 200}"))
    catalog.close()
    damage(path)
    damaged = path.read_bytes()

    assert open_catalog().rows() == [kept]
    aside = list(path.parent.glob("models.db.corrupt-*"))
    assert [p.read_bytes() for p in aside] == [damaged]


def test_b11_a_full_disk_is_said_to_be_full_and_what_is_there_is_found(
    monkeypatch: pytest.MonkeyPatch, open_catalog: Callable[[], Catalog]
) -> None:
    catalog = open_catalog()
    catalog.add(row("there"))
    catalog.close()

    def full(*_: object, **__: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Catalog, "_writable", full)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    catalog = open_catalog()
    assert [r.reference for r in catalog.rows()] == ["file:/there"]
    with pytest.raises(InsufficientDisk):
        catalog.add(row("new"))
    monkeypatch.undo()
    catalog.add(row("new"))  # there is room again, and no restart was needed
    assert [r.reference for r in catalog.rows()] == ["file:/new", "file:/there"]


def test_b7_a_lock_that_is_never_given_up_has_an_end(path: Path, models_dir: Path) -> None:
    holder = os.open(models_dir, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(CatalogUnusable, match="Another program holds"):
            Catalog(path, models_dir, lock_wait_s=0.1)
    finally:
        os.close(holder)


def test_a_newer_schema_is_refused_and_left_alone(path: Path, open_catalog: Callable[[], Catalog]) -> None:
    open_catalog().close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(CatalogUnusable, match="written by a newer rbee"):
        open_catalog()
    assert path.read_bytes() == before


def test_a_folder_that_cannot_hold_it_is_one_of_our_errors(tmp_path: Path, models_dir: Path) -> None:
    with pytest.raises(CatalogUnusable):
        Catalog(tmp_path / "nowhere" / "models.db", models_dir)


OPEN_AND_ADD = """
import sys
from pathlib import Path
from rbee_core.models.catalog import Catalog, CatalogRow
home, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
catalog = Catalog(home / "models.db", home / "models")
catalog.add(CatalogRow(reference=name, provider="t", local_path="/x", size_bytes=1, downloaded_at_unix=1))
catalog.close()
"""


def test_processes_that_create_it_at_once_lose_nothing(
    tmp_path: Path, models_dir: Path, open_catalog: Callable[[], Catalog]
) -> None:
    assert models_dir.is_dir()
    names = [f"t:{n}" for n in range(4)]
    command = [sys.executable, "-c", OPEN_AND_ADD, str(tmp_path)]
    started = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in names
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=30)
    assert [p.returncode for p in started] == [0] * 4
    assert [r.reference for r in open_catalog().rows()] == names
    assert list(tmp_path.glob("*corrupt*")) == []
