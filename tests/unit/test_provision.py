"""From a reference to a model on this node: one name, one look, and nobody removes what another begins to use."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rbee_core import aio
from rbee_core.backend import LocalModel, ModelRef, ModelSource, RemoteModel
from rbee_core.errors import DownloadFailed, InvalidRequest, ModelInUse, ModelNotFound
from rbee_core.models import downloads, provision, store
from rbee_core.models.catalog import Catalog, CatalogRow, row_of
from rbee_core.models.looks import FRESH_S, KEPT, Looks, identity_of
from rbee_core.models.provision import Provisioner
from rbee_core.models.references import References
from rbee_core.models.transfer_rules import TransferOptions

REF = "hf:org/repo"
LONG_S = 30.0


class Hub(ModelSource):
    """Finds one file, in place, when it is let."""

    schemes = frozenset({"hf"})

    def __init__(self, folder: Path) -> None:
        self.path = folder / "m.gguf"
        self.path.write_bytes(b"GGUF")
        self.asked: list[str] = []
        self.open = threading.Event()
        self.open.set()

    def canonical(self, reference: ModelRef) -> str:
        return str(reference).lower()

    def resolve(self, reference: ModelRef, formats: Sequence[str]) -> LocalModel | RemoteModel:
        self.asked.append(str(reference))
        assert self.open.wait(LONG_S)
        return LocalModel(str(reference), self.path, "gguf", 4)


class Node:
    """A node's provisioning with everything it is made of."""

    def __init__(self, provisioner: Provisioner, catalog: Catalog, hub: Hub) -> None:
        self.provisioner = provisioner
        self.catalog = catalog
        self.hub = hub

    async def is_asked(self, times: int = 1) -> None:
        while len(self.hub.asked) < times:
            await aio.sleep(0.01)


@asynccontextmanager
async def node(folder: Path, **aliases: str) -> AsyncGenerator[Node]:
    models = folder / "models"
    models.mkdir()
    catalog, hub = Catalog(folder / "models.db", models), Hub(folder)
    try:
        async with downloads.running(catalog, models, TransferOptions(), 1) as running:
            yield Node(Provisioner(catalog, References({"hf": hub}, aliases), running, models), catalog, hub)
    finally:
        hub.open.set()
        catalog.close()


def within(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LONG_S):
            await work()

    asyncio.run(bounded())


def fetched(catalog: Catalog, folder: Path) -> CatalogRow:
    at = folder / "models" / "huggingface" / "org" / "repo" / "c1"
    at.mkdir(parents=True)
    (at / "m.gguf").write_bytes(b"GGUF")
    manifest = store.Manifest(REF, "huggingface", "c1", "gguf", "m.gguf", 1, [store.ManifestFile("m.gguf", 4)])
    store.write_manifest(at, manifest)
    catalog.add(row_of(at, manifest))
    return row_of(at, manifest)


def test_aliases_are_replaced_once_and_a_canonical_reference_is_none() -> None:
    references = References({"hf": Hub.__new__(Hub)}, {"mine": "Org/Repo", "hf:org/repo": "hf:other/repo"})

    assert references.canonical("mine") == REF
    assert references.source_of(REF)[1] == ModelRef("hf", owner="org", name="repo")


def test_scheme_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no plugin knows ftp"):
        References({}, {}).canonical("ftp:x")


def test_what_rbee_fetched_is_had_without_asking_anybody(tmp_path: Path) -> None:
    async def work() -> None:
        async with node(tmp_path) as here:
            row = fetched(here.catalog, tmp_path)
            assert row.fetched

            assert await here.provisioner.provide(REF, ["gguf"]) == row.model
            assert here.hub.asked == []
            await here.provisioner.provide(REF, ["mlx"])
            assert here.hub.asked == [REF]

    within(work)


def test_file_in_place_is_looked_up_once_and_noted(tmp_path: Path) -> None:
    async def work() -> None:
        async with node(tmp_path) as here:
            model = await here.provisioner.provide(REF, ["gguf"])

            row = here.catalog.find(REF)
            assert row is not None
            assert (row.model, row.fetched, row.provider) == (model, False, "hf")
            assert here.hub.asked == [REF]

    within(work)


def test_requests_of_one_command_look_once_and_a_changed_file_is_looked_at_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with node(tmp_path) as here:
            await here.provisioner.look(REF, ["gguf"])
            assert here.catalog.find(REF) is None
            await here.provisioner.begin(REF, ["gguf"])
            await here.provisioner.provide(REF, ["gguf"])
            assert here.hub.asked == [REF]
            assert here.catalog.find(REF) is not None

            here.hub.path.write_bytes(b"GGUF and more")
            await here.provisioner.provide(REF, ["gguf"])
            await here.provisioner.provide(REF, ["mlx"])
            assert here.hub.asked == [REF] * 3

    within(work)


def test_what_was_seen_is_not_believed_for_long(tmp_path: Path) -> None:
    now = 100.0
    seen = Looks(lambda: now)
    model = Hub(tmp_path).resolve(ModelRef("hf", owner="org", name="repo"), ())
    assert isinstance(model, LocalModel)
    seen.keep(["gguf"], model)

    assert seen.find(REF, ["gguf"]) is model
    assert seen.find(REF, ["mlx"]) is None
    now += FRESH_S + 1
    assert seen.find(REF, ["gguf"]) is None


def test_so_many_looks_are_kept(tmp_path: Path) -> None:
    seen, hub = Looks(), Hub(tmp_path)
    for n in range(KEPT + 5):
        seen.keep(["gguf"], LocalModel(f"hf:o/r{n}", hub.path, "gguf", 4))

    assert [seen.find(f"hf:o/r{n}", ["gguf"]) is None for n in (4, 5)] == [True, False]


def test_folder_is_another_one_when_any_file_in_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    before = identity_of(tmp_path)
    (tmp_path / "config.json").write_bytes(b"{ }")

    assert before
    assert identity_of(tmp_path) != before
    assert identity_of(tmp_path / "none") == ()


def test_source_that_hangs_is_said_and_keeps_nobody_from_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provision, "ANSWER_S", 0.05)

    async def work() -> None:
        async with node(tmp_path) as here:
            row = fetched(here.catalog, tmp_path)
            here.hub.open.clear()
            for _ in range(provision.ASKED_AT_ONCE + 2):
                with pytest.raises(DownloadFailed, match="source of hf: did not answer within"):
                    await here.provisioner.look(REF, ["mlx"])

            assert await here.provisioner.look(REF, ["gguf"]) == row.model

    within(work)


def test_model_that_is_being_looked_up_is_not_removed(tmp_path: Path) -> None:
    async def work() -> None:
        async with node(tmp_path) as here:
            await here.provisioner.provide(REF, ["gguf"])
            here.hub.open.clear()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(here.provisioner.provide(REF, ["mlx"]))
                await here.is_asked(2)

                with pytest.raises(ModelInUse):
                    await here.provisioner.remove(REF)

                here.hub.open.set()
            assert (await here.provisioner.remove(REF)).freed_bytes == 0
            with pytest.raises(ModelNotFound):
                await here.provisioner.remove(REF)

    within(work)


def test_who_comes_while_a_model_is_removed_waits_and_finds_it_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on, remove = threading.Event(), threading.Event(), store.remove

    def slow(*which: Any) -> int:
        began.set()
        assert go_on.wait(LONG_S)
        return remove(*which)

    monkeypatch.setattr(store, "remove", slow)

    async def work() -> None:
        async with node(tmp_path) as here:
            fetched(here.catalog, tmp_path)
            async with asyncio.TaskGroup() as tasks:
                removal = tasks.create_task(here.provisioner.remove(REF))
                while not began.is_set():
                    await aio.sleep(0.01)
                spawn = tasks.create_task(here.provisioner.provide(REF, ["gguf"]))
                with pytest.raises(ModelInUse):
                    await here.provisioner.remove(REF)
                assert here.hub.asked == []
                go_on.set()

            assert removal.result().freed_bytes == 4
            assert spawn.result().path == here.hub.path

    within(work)
