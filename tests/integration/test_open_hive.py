"""A hive in this very process: on which terms it is there, and that nothing of it is left after its block."""

import asyncio
import dataclasses
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import aiohttp
import psutil
import pytest
from aiohttp import web

from rbee_core import aio, wire
from rbee_core.client import ClientTerms, HiveClient
from rbee_core.errors import HiveAlreadyRunning, InvalidRequest, RbeeError
from rbee_core.hive import daemon
from rbee_core.hive.daemon import open_hive
from rbee_core.hive.processes.guard import Guard
from rbee_core.hive.supervisor import Supervisor
from rbee_core.hive.terms import EPHEMERAL, PERSISTENT, LoadDefaults, Tenure
from rbee_core.home import HiveNote, Home, read_note, write_note
from rbee_core.http.listen import Limits, serving
from rbee_core.settings import Settings

T = TypeVar("T")

PRIVATE = Tenure(lock=False, note=False, lifeline=False, private_port=True, spare=False)
SPARE = dataclasses.replace(PRIVATE, spare=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", port=0)


async def ask(note: HiveNote, settings: Settings, question: Callable[[HiveClient], T]) -> T:
    def asked() -> T:
        with HiveClient(note.host, note.port, ClientTerms.of(settings)) as client:
            return question(client)

    return await aio.off_loop(asked)


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_a_hive_answers_within_its_block_and_is_gone_after_it(settings: Settings) -> None:
    async def scenario() -> None:
        async with open_hive(settings, PERSISTENT) as hive:
            assert (await ask(hive.note, settings, HiveClient.health)).status == "alive"
            assert read_note(place.hive_note_path, HiveNote) == hive.note
            assert hive.note.pid == os.getpid()
        assert await hive.ended() == []

    place = Home(settings.home)
    asyncio.run(scenario())

    assert not place.run_dir.exists()
    assert children() == []
    with place.exclusive():
        pass


def test_each_term_stands_for_itself(settings: Settings) -> None:
    async def scenario() -> None:
        noted = dataclasses.replace(PRIVATE, note=True)
        async with open_hive(settings, dataclasses.replace(PRIVATE, lock=True)), open_hive(settings, noted) as hive:
            assert read_note(Home(settings.home).hive_note_path, HiveNote) == hive.note
            with pytest.raises(HiveAlreadyRunning):
                async with open_hive(settings, dataclasses.replace(PRIVATE, lock=True)):
                    pass

    asyncio.run(scenario())


def test_a_private_port_is_on_the_loopback_whatever_the_settings_say(settings: Settings) -> None:
    async def scenario() -> None:
        public = dataclasses.replace(settings, host="0.0.0.0")
        async with open_hive(public, PRIVATE) as hive:
            assert hive.note.host == "127.0.0.1"
        with pytest.raises(InvalidRequest, match="without an API key"):
            async with open_hive(public, dataclasses.replace(PRIVATE, private_port=False)):
                pass

    asyncio.run(scenario())


def test_the_hive_stops_when_it_is_asked_to(settings: Settings) -> None:
    async def scenario() -> None:
        async with open_hive(settings, PRIVATE) as hive:
            await ask(hive.note, settings, HiveClient.shutdown)
            assert await hive.ended() == []

    asyncio.run(scenario())


def test_an_error_in_the_block_comes_out_as_it_is(settings: Settings) -> None:
    async def scenario() -> None:
        async with open_hive(settings, SPARE):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(scenario())
    assert children() == []


def test_b11_a_refusal_of_the_system_while_it_opens_comes_out_as_it_is(settings: Settings) -> None:
    (settings.home / "run" / "hive.new").mkdir(parents=True)

    async def scenario() -> None:
        async with open_hive(settings, PERSISTENT):
            pass

    with pytest.raises(IsADirectoryError):
        asyncio.run(scenario())
    assert children() == []


def test_whoever_is_there_first_meets_a_pool_that_runs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may know the port and ask before the hive says that it listens."""
    codes: list[str] = []

    @asynccontextmanager
    async def served(
        app: web.Application, sock: socket.socket, limits: Limits, *besides: object
    ) -> AsyncGenerator[None]:
        async with serving(app, sock, limits):
            host, port = sock.getsockname()[:2]
            note = HiveNote(pid=1, start_time=0, host=host, port=port)
            with pytest.raises(RbeeError) as refused:
                await ask(note, settings, lambda client: client.spawn(wire.SpawnRequest(model_ref="/no/such.gguf")))
            codes.append(refused.value.code)
            yield

    async def scenario() -> None:
        async with open_hive(settings, PRIVATE):
            pass

    monkeypatch.setattr(daemon, "serving", served)
    asyncio.run(scenario())

    assert codes == ["MODEL_NOT_FOUND"]


def test_it_answers_until_the_pool_is_quiet(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[str] = []
    really = Supervisor.run

    async def run(self: Supervisor, stop_wanted: asyncio.Event, force: asyncio.Event) -> list[str]:
        stopped = await really(self, stop_wanted, force)
        answers.append((await ask(notes[0], settings, HiveClient.health)).status)
        return stopped

    async def scenario() -> None:
        async with open_hive(settings, PRIVATE) as hive:
            notes.append(hive.note)

    notes: list[HiveNote] = []
    monkeypatch.setattr(Supervisor, "run", run)
    asyncio.run(scenario())

    assert answers == ["alive"]


def test_a_cancelled_block_leaves_nothing(settings: Settings) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(None) as limit, open_hive(settings, SPARE) as hive:
            limit.reschedule(0)
            await hive.ended()

    with pytest.raises(TimeoutError):
        asyncio.run(scenario())
    assert children() == []


def test_the_guardian_is_let_go_when_no_process_is_left(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pipe's end means that the hive is dead: it would kill the spare worker instead of letting it be ended."""
    left: list[list[str]] = []
    release = Guard.release

    async def looking(guard: Guard) -> None:
        left.append([p.name() for p in children() if p.pid != guard.pid])
        await release(guard)

    async def scenario() -> None:
        async with open_hive(settings, SPARE):
            assert len(children()) == 2

    monkeypatch.setattr(Guard, "release", looking)
    asyncio.run(scenario())

    assert left == [[]]


def test_the_two_usual_sets_of_terms_differ_in_all() -> None:
    both = dataclasses.asdict(PERSISTENT), dataclasses.asdict(EPHEMERAL)
    assert all(both[0][term] != both[1][term] for term in both[0])


@pytest.mark.parametrize("term", [{}, {"dialects": False}])
def test_a_hive_speaks_other_dialects_where_its_terms_say_so(settings: Settings, term: dict[str, bool]) -> None:
    async def scenario() -> int:
        async with open_hive(settings, dataclasses.replace(PRIVATE, **term)) as hive:
            return await version_at(hive.note.port)

    assert asyncio.run(scenario()) == (404 if term else 200)


async def version_at(port: int) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/api/version") as answer:
        return answer.status


def test_rule_15_it_listens_where_clients_of_ollama_look_if_that_port_is_free(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings = dataclasses.replace(settings, ollama_port=port)
    other = dataclasses.replace(settings, home=settings.home / "other")

    async def scenario() -> None:
        async with open_hive(settings, PRIVATE):
            assert await version_at(port) == 200
            async with open_hive(other, PRIVATE) as second:
                assert await version_at(second.note.port) == 200
            assert await version_at(port) == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await version_at(port)

    asyncio.run(scenario())
    told = [record.message for record in caplog.records if "clients of Ollama" in record.message]
    assert told[0] == f"listening on 127.0.0.1:{port} too, for clients of Ollama"
    assert told[1].startswith("not listening for clients of Ollama: ")
    assert "the port is in use" in told[1]


@pytest.mark.parametrize(("said", "slots"), [(0, 1), (3, 3)])
def test_its_workers_serve_as_many_at_a_time_as_its_terms_say_where_nobody_else_does(
    settings: Settings, said: int, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, of = list[int](), LoadDefaults.of

    def looking(settings: Settings) -> LoadDefaults:
        cut.append(settings.slots_per_worker)
        return of(settings)

    async def scenario() -> None:
        async with open_hive(
            dataclasses.replace(settings, slots_per_worker=said), dataclasses.replace(PRIVATE, slots=1)
        ):
            pass

    monkeypatch.setattr(LoadDefaults, "of", looking)
    asyncio.run(scenario())
    assert cut == [slots]


def test_a_signal_as_soon_as_it_can_be_found_stops_it_politely(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(path: Path, note: HiveNote) -> None:
        write_note(path, note)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(daemon, "write_note", noted)
    assert asyncio.run(daemon.run(settings, PERSISTENT, lambda _: None)) == []
    assert children() == []
