"""Manifests, verifying and pruning, on real files in a temporary folder."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rbee_core.errors import CatalogUnusable
from rbee_core.models import maintenance, store
from rbee_core.models.catalog import Catalog, CatalogRow, inspect, row_of

DATA = b"GGUF" + bytes(5000)
REF = "hf:org/repo"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path


@pytest.fixture
def catalog(home: Path) -> Iterator[Catalog]:
    opened = Catalog(home / "models.db", home / "models")
    yield opened
    opened.close()


def fetched(home: Path, *, revision: str = "c1", name: str = "sub/m.gguf", at_unix: int = 100) -> CatalogRow:
    """Lay a fetched model out the way a download does."""
    folder = home / "models" / "huggingface" / "org" / "repo" / revision
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(DATA)
    file = store.ManifestFile(name, len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
    manifest = store.Manifest(REF, "huggingface", revision, "gguf", name, at_unix, [file])
    store.write_manifest(folder, manifest)
    return row_of(folder, manifest)


def verify(catalog: Catalog, home: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    found = maintenance.verify(catalog, home / "models", lambda _: None)
    return [(f.reference, f.status, f.files) for f in found]


def test_whole_model_is_ok_and_every_byte_is_read(catalog: Catalog, home: Path) -> None:
    catalog.add(fetched(home))
    read: list[int] = []

    found = list(maintenance.verify(catalog, home / "models", read.append))

    assert [(f.status, f.wrong) for f in found] == [("ok", False)]
    assert sum(read) == maintenance.bytes_to_verify(home / "models") == len(DATA)


@pytest.mark.parametrize(
    ("harm", "status"),
    [
        (lambda p: p.unlink(), "missing"),
        (lambda p: p.write_bytes(DATA[:-1]), "missing"),
        (lambda p: p.write_bytes(b"X" + DATA[1:]), "damaged"),
    ],
)
def test_harm_is_found_and_nothing_deleted(catalog: Catalog, home: Path, harm, status: str) -> None:
    row = fetched(home)
    catalog.add(row)
    harm(Path(row.local_path))

    assert verify(catalog, home) == [(REF, status, ("sub/m.gguf",))]
    assert catalog.rows() == [row]
    assert catalog.is_missing(row) is (status == "missing")


def test_row_without_any_file_is_missing(catalog: Catalog, home: Path) -> None:
    row = fetched(home)
    catalog.add(row)
    for path in (home / "models").rglob("*.rbee.json"):
        path.unlink()

    assert verify(catalog, home) == [(REF, "missing", ())]


def test_whole_model_without_row_is_entered(catalog: Catalog, home: Path) -> None:
    row = fetched(home)

    assert verify(catalog, home) == [(REF, "unlisted", ())]
    assert catalog.rows() == [row]
    assert verify(catalog, home) == [(REF, "ok", ())]


def test_row_that_leads_elsewhere_is_mended(catalog: Catalog, home: Path) -> None:
    """RBEE_HOME was moved."""
    row = fetched(home)
    catalog.add(CatalogRow(**{**_fields(row), "local_path": "/old/home/m.gguf"}))

    assert verify(catalog, home) == [(REF, "unlisted", ())]
    assert catalog.rows() == [row]


def _fields(row: CatalogRow) -> dict:
    return {name: getattr(row, name) for name in CatalogRow.__dataclass_fields__}


def test_files_of_others_are_looked_at_but_not_read(catalog: Catalog, home: Path) -> None:
    own = home / "own.gguf"
    own.write_bytes(DATA)
    row = CatalogRow(
        reference=f"file:{own}", provider="file", local_path=str(own), size_bytes=1, downloaded_at_unix=1, format="gguf"
    )
    catalog.add(row)

    assert verify(catalog, home) == [(row.reference, "in place", ())]
    own.unlink()
    assert verify(catalog, home) == [(row.reference, "missing", ())]


def test_only_the_named_models_are_verified(catalog: Catalog, home: Path) -> None:
    catalog.add(fetched(home))

    assert list(maintenance.verify(catalog, home / "models", lambda _: None, {"hf:a/b"})) == []
    assert maintenance.bytes_to_verify(home / "models", {"hf:a/b"}) == 0


def test_newer_of_two_revisions_is_entered_in_a_new_catalog(home: Path) -> None:
    newer = fetched(home, revision="c0", at_unix=200)
    fetched(home, revision="c1", at_unix=100)
    rebuilt = Catalog(home / "models.db", home / "models")

    assert rebuilt.rows() == [newer]
    rebuilt.close()


def test_manifest_is_found_from_the_models_path(home: Path) -> None:
    row = fetched(home)

    found = store.manifest_of(home / "models", REF, Path(row.local_path))

    assert found is not None
    assert found[1].revision == "c1"
    assert store.manifest_of(home / "models", "hf:org/other", Path(row.local_path)) is None
    assert store.manifest_of(home / "models", REF, Path("/elsewhere/m.gguf")) is None


def test_prune_takes_old_parts_with_their_sidecars(home: Path) -> None:
    row = fetched(home)
    folder = Path(row.local_path).parent
    old, young, used = (folder / f"{name}.gguf.part" for name in ("old", "young", "used"))
    for part, age_s in ((old, 1000), (young, 10), (used, 1000)):
        for path in (part, part.with_name(f"{part.name}.json"), part.with_name(f"{part.name}.json.12ab")):
            path.write_bytes(b"xyz")
            os.utime(path, (5000 - age_s, 5000 - age_s))
    stray = folder / "gone.gguf.part.json"
    stray.write_bytes(b"")
    os.utime(stray, (0, 0))

    with used.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        freed = maintenance.prune(home / "models", older_than_s=500, now_unix=5000)

    assert sorted(path.name for path, _ in freed) == sorted(
        ["old.gguf.part", "old.gguf.part.json", "old.gguf.part.json.12ab", "gone.gguf.part.json"]
    )
    assert sum(size for _, size in freed) == 9
    assert young.exists()
    assert used.exists()
    assert Path(row.local_path).read_bytes() == DATA


def test_prune_of_a_home_without_models(tmp_path: Path) -> None:
    assert maintenance.prune(tmp_path / "models", older_than_s=0, now_unix=0) == []


def test_catalog_is_inspected_without_being_touched(catalog: Catalog, home: Path) -> None:
    catalog.add(fetched(home))
    assert inspect(home / "models.db") == 1
    catalog.close()
    before = sorted(p.name for p in home.iterdir())
    assert inspect(home / "models.db") == 1
    assert sorted(p.name for p in home.iterdir()) == before
    assert inspect(home / "none.db") is None
    (home / "bad.db").write_bytes(b"rubbish" * 100)
    with pytest.raises(CatalogUnusable, match="is damaged"):
        inspect(home / "bad.db")
    assert (home / "bad.db").exists()
