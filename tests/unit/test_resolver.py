"""From a demand to a recipe: a driver is opened once for it, and what was found is carried, not asked for again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from rbee_core.backend import Availability, Backend, LocalModel, Tuning
from rbee_core.backend.gguf import GgufHeader
from rbee_core.backend.manager import PluginHost
from rbee_core.domain.tuning import Adapter
from rbee_core.domain.worker import HOST, Demand, Need
from rbee_core.errors import BackendNotAvailable, InvalidRequest, ModelNotFound, NotSupported, PluginTimeout
from rbee_core.hive import resolver
from rbee_core.hive.plugin_calls import PluginCalls
from rbee_core.hive.resolver import Resolution, Resolver
from rbee_core.hive.terms import LoadDefaults
from rbee_core.settings import Settings
from rbee_plugins import nvml
from rbee_plugins.llamacpp import backend as llamacpp
from rbee_plugins.llamacpp import builds
from tests.support.gguf_files import Gguf

GB = 1 << 30


class Cards:
    """A driver with two cards, which counts how often it is opened."""

    def __init__(self) -> None:
        self.opened = 0

    def __call__(self) -> Sequence[nvml.Gpu]:
        self.opened += 1
        return [nvml.Gpu(n, f"GPU-{n}", f"card {n}", 24 * GB, (24 - n) * GB) for n in range(2)]


class Files:
    """Provides one file, as the provisioner does."""

    def __init__(self, path: Path, format: str = "gguf") -> None:  # noqa: A002  # the field's name
        self._model = LocalModel("file:m", path, format, path.stat().st_size)

    async def provide(self, reference: str, formats: Sequence[str]) -> LocalModel:
        assert formats
        return self._model


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "availability", lambda *_: Availability(usable=True))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def resolve(path: Path, backends: Sequence[Backend], demand: Demand, *, format: str = "gguf") -> Resolution:  # noqa: A002
    async def main() -> Resolution:
        calls = PluginCalls(PluginHost({}, []), 30.0)
        files = cast("Any", Files(path, format))
        return await Resolver(LoadDefaults.of(Settings(home=path.parent)), backends, calls, files).resolve(demand)

    return asyncio.run(main())


def test_a_spawn_opens_the_driver_once(tmp_path: Path) -> None:
    cards = Cards()
    backends = [llamacpp.LlamaCppCpu(), llamacpp.LlamaCppCuda(cards)]
    found = resolve(Gguf().write(tmp_path), backends, Demand("file:m", device=1))
    assert cards.opened == 1
    (spot,) = found.spots
    recipe = spot.recipe
    assert (recipe.backend, recipe.device, recipe.device_index, recipe.memory) == (
        "llamacpp-cuda",
        "cuda:1",
        1,
        "cuda:1",
    )
    assert recipe.environment["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert recipe.need == Need(0, found.estimate.total_bytes), "a card's memory is nobody else's"
    assert spot.available_bytes == 23 * GB


def test_m4_a_demand_that_names_no_device_leaves_all_open(tmp_path: Path) -> None:
    cards = Cards()
    found = resolve(Gguf().write(tmp_path), [llamacpp.LlamaCppCuda(cards)], Demand("file:m"))
    assert cards.opened == 1
    open_to = [(s.recipe.device_index, s.recipe.device, s.available_bytes) for s in found.spots]
    assert open_to == [(0, "cuda:0", 24 * GB), (1, "cuda:1", 23 * GB)]
    assert [s.recipe.environment["CUDA_VISIBLE_DEVICES"] for s in found.spots] == ["GPU-0", "GPU-1"]


def test_the_header_is_read_once_for_all_that_a_command_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = Gguf().write(tmp_path), llamacpp.read_header
    paths: list[Path] = []

    def counted(path: Path, reference: str) -> GgufHeader:
        paths.append(path)
        return read(path, reference)

    monkeypatch.setattr(llamacpp, "read_header", counted)

    async def main() -> None:
        calls, files = PluginCalls(PluginHost({}, []), 30.0), cast("Any", Files(path))
        asked = Resolver(LoadDefaults.of(Settings(home=tmp_path)), [llamacpp.LlamaCppCpu()], calls, files)
        first = await asked.resolve(Demand("file:m"))
        assert (await asked.resolve(Demand("file:m"))).best.recipe == first.best.recipe
        assert paths == [path]

        await asked.resolve(Demand("file:m", context_tokens=7))
        path.write_bytes(path.read_bytes() + b"more")
        await asked.resolve(Demand("file:m"))
        assert paths == [path] * 3

    asyncio.run(main())


def test_another_backend_asks_no_driver_of_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver.hardware, "available_memory_bytes", lambda: 5 * GB)
    cards = Cards()
    backends = [llamacpp.LlamaCppCpu(), llamacpp.LlamaCppCuda(cards)]
    found = resolve(Gguf().write(tmp_path), backends, Demand("file:m", backend="cpu"))
    assert cards.opened == 0
    best = found.best
    assert (best.recipe.backend, best.recipe.memory, best.available_bytes) == ("llamacpp-cpu", HOST, 5 * GB)
    assert best.recipe.need.mapped_bytes == found.estimate.weights_bytes


def test_a_refusal_says_what_there_is_instead(tmp_path: Path) -> None:
    def no_driver() -> Sequence[nvml.Gpu]:
        raise nvml.NvmlUnusable("the CUDA driver cannot be used", "install it")

    backends = [llamacpp.LlamaCppCpu(), llamacpp.LlamaCppCuda(no_driver)]
    path = Gguf().write(tmp_path)
    with pytest.raises(BackendNotAvailable) as caught:
        resolve(path, backends, Demand("file:m", backend="cuda"))
    assert caught.value.details["available"] == ["llamacpp-cpu"]
    with pytest.raises(InvalidRequest, match="reads gguf, the model is mlx"):
        resolve(path, backends, Demand("file:m", backend="cpu"), format="mlx")
    with pytest.raises(InvalidRequest, match="Device 2 not available"):
        resolve(path, [llamacpp.LlamaCppCuda(Cards())], Demand("file:m", device=2))


def test_one_that_might_be_better_and_does_not_answer_is_not_passed_over() -> None:
    from rbee_core.backend.choice import Candidate, choose, too_late

    late = PluginTimeout(plugin="llamacpp-cuda", what="availability and devices", waited_s=10)
    cuda, cpu = too_late(llamacpp.LlamaCppCuda(), late), Candidate(llamacpp.LlamaCppCpu(), Availability(usable=True))
    with pytest.raises(PluginTimeout):
        choose([cuda, cpu], None, "gguf")
    assert choose([cuda, cpu], "cpu", "gguf") is cpu
    with pytest.raises(BackendNotAvailable):
        choose([cuda, cpu], None, "mlx")


class OneByOne(llamacpp.LlamaCppCpu):
    capabilities = frozenset({"stream", "cancel"})


def test_n31_slots_that_a_backend_cannot_give_are_refused_and_not_ignored(tmp_path: Path) -> None:
    path, one = Gguf().write(tmp_path), [OneByOne()]
    with pytest.raises(InvalidRequest, match="4 slots were asked for, and llamacpp-cpu computes one request at a time"):
        resolve(path, one, Demand("file:m", slots=4))
    slots = {
        "left to a backend that computes one at a time": resolve(path, one, Demand("file:m")),
        "left to one that batches": resolve(path, [llamacpp.LlamaCppCpu()], Demand("file:m")),
        "asked of one that batches": resolve(path, [llamacpp.LlamaCppCpu()], Demand("file:m", slots=4)),
    }
    assert [found.spots[0].recipe.slots for found in slots.values()] == [1, 0, 4]


class Quick(llamacpp.LlamaCppCpu):
    """Better than the others, and knows less."""

    name, priority = "quick", 1000
    capabilities = frozenset({"stream", "cancel"})


class QuickWithFolders(Quick):
    formats = frozenset({"mlx"})


def test_what_a_request_needs_is_a_part_of_the_choice(tmp_path: Path) -> None:
    path, both = Gguf().write(tmp_path), [Quick(), llamacpp.LlamaCppCpu()]

    def chosen(**wanted: Any) -> str:
        return resolve(path, both, Demand("file:m", **wanted)).best.recipe.backend

    assert chosen() == "quick"
    assert chosen(needs=frozenset({"grammar"})) == "llamacpp-cpu"
    assert chosen(tuning=Tuning(flash_attention=True)) == "llamacpp-cpu"


def test_what_none_can_do_that_could_serve_the_model_is_refused_by_name(tmp_path: Path) -> None:
    path, grammar = Gguf().write(tmp_path), frozenset({"grammar"})
    lora, cpu = Tuning(lora=(Adapter("/a.gguf"),)), llamacpp.LlamaCppCpu()
    with pytest.raises(
        NotSupported, match=r"Backend quick does not know grammar, tuning\.lora: that needs grammar and"
    ):
        resolve(path, [Quick(), cpu], Demand("file:m", "quick", needs=grammar, tuning=lora))
    with pytest.raises(NotSupported, match="Backend quick does not know grammar"):
        resolve(path, [QuickWithFolders(), cpu], Demand("file:m", needs=grammar), format="mlx")


def test_a_model_that_only_others_read_is_refused_for_what_they_cannot_do(tmp_path: Path) -> None:
    class Hub(Files):
        async def provide(self, reference: str, formats: Sequence[str]) -> LocalModel:
            found = await super().provide(reference, formats)
            if found.format not in formats:
                raise ModelNotFound(reference=reference, why=f"it has none of {formats}")
            return found

        look = provide

    calls, both = PluginCalls(PluginHost({}, []), 30.0), [QuickWithFolders(), llamacpp.LlamaCppCpu()]
    files = cast("Any", Hub(Gguf().write(tmp_path), "mlx"))
    asked = Resolver(LoadDefaults.of(Settings(home=tmp_path)), both, calls, files)
    with pytest.raises(NotSupported, match="Backend quick does not know regex"):
        asyncio.run(asked.resolve(Demand("hf:some/folder", needs=frozenset({"regex"}))))
