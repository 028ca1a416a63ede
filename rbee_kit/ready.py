"""A model that stays loaded from one scenario to the next.

Most scenarios only ask for text, and loading takes longer than that. Those that say "the model is ready" share a hive
and a worker for as long as they want the same; each has connections and programs of its own there. After one that
failed, everything is started anew. A scenario that loads, stops or kills anything has a hive to itself.
"""

import dataclasses
import re
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import pytest

from rbee_kit import gherkin, oracle
from rbee_kit.loaded import Loaded, load
from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually

SENTENCE = re.compile(
    r"the model is ready"
    r"(?: for (?P<slots>\d+) texts? at a time)?"
    r"(?: with a context of (?P<context>\d+) tokens)?"
)
ENDING_S = 2.0
FAILED = pytest.StashKey[bool]()


@dataclass
class Kept:
    """A home that several scenarios share, and what runs in it once the first of them has asked for it."""

    wanted: str
    home: Home
    loaded: Loaded | None = None


class Shelf:
    """Keeps one loaded model at most, as there may be no memory for two."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._kept: Kept | None = None

    def visit(self, wanted: str) -> Home:
        """Return a home for one scenario, to be closed at its end: what it shares with others stays."""
        if self._kept is None or self._kept.wanted != wanted:
            self.clear()
            self._kept = Kept(wanted, Home(self._folders.mktemp("ready"), str(uuid.uuid4())))
        shared = self._kept.home
        visitor = Home(shared.folder, shared.tag)
        visitor.environment = shared.environment
        visitor.pass_over_logs()
        return visitor

    def loaded(self, visitor: Home, model: str, backend: str) -> Loaded:
        """Return the model, loaded and idle, for the scenario that has `visitor`."""
        kept = self._kept
        assert kept is not None, "nobody visits"
        if kept.loaded is None:
            wanted = SENTENCE.fullmatch(kept.wanted)
            assert wanted is not None
            if wanted["slots"]:
                kept.home.environment["RBEE_SLOTS_PER_WORKER"] = wanted["slots"]
            context = int(wanted["context"]) if wanted["context"] else None
            kept.loaded = load(kept.home.start_hive(), model, backend, context)
        loaded = dataclasses.replace(kept.loaded, hive=Hive(visitor, kept.loaded.hive.program))
        loaded.settle()
        return loaded

    def clear(self) -> None:
        """End what is kept; fail if something of it does not end."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        kept.home.close()
        try:
            eventually(lambda: not kept.home.processes(), ENDING_S, what="nothing of earlier scenarios is left running")
        finally:
            oracle.kill(kept.home.tag)


def wanted_by(item: pytest.Item) -> str:
    """Return the words with which a scenario asks for a model that is ready, "" for one that does not."""
    return next((name for name in gherkin.steps_of(item) if SENTENCE.fullmatch(name)), "")


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """What scenarios share."""
    shelf = Shelf(tmp_path_factory)
    yield shelf
    shelf.clear()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run scenarios that share something one after another, whatever their order is otherwise."""
    items.sort(key=wanted_by)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Take note of a scenario that failed: who knows what it has left behind."""
    report = yield
    if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        item.stash[FAILED] = True
    return report
