"""Both transports of the client with a server that speaks TLS."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from rbee_core import wire
from rbee_core.client import ClientTerms, calls
from rbee_core.errors import HiveUntrusted, InvalidRequest
from rbee_core.keeper.hives.open import connect
from rbee_core.settings import Settings
from tests.support.certificates import self_signed
from tests.support.clients import TRANSPORTS, Client
from tests.support.http_server import served

DONE = b'data: {"done":true,"total_tokens":1,"duration_ms":7,"finish_reason":"stop"}\n\ndata: [DONE]\n\n'


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> type[Client]:
    return TRANSPORTS[request.param]


async def hive(request: web.Request) -> web.StreamResponse:
    if request.method == "GET":
        return web.json_response({"status": "alive", "version": "9", "api_version": "v1"})
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'data: {"token":"Hello","index":0}\n\n' + DONE)
    return response


@pytest.fixture
def certificate(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, int]]:
    """A hive under TLS: its certificate, and its port on 127.0.0.1."""
    path, context = self_signed(tmp_path, getattr(request, "param", "IP:127.0.0.1"))
    with served(hive, context) as port:
        yield path, port


def settings(ca_file: Path | None = None) -> Settings:
    return Settings(home=Path("/nowhere"), ca_file=str(ca_file or ""))


def terms(ca_file: Path | None = None) -> ClientTerms:
    return ClientTerms.of(settings(ca_file))


def test_a_hive_under_tls_is_spoken_to(transport: type[Client], certificate: tuple[Path, int]) -> None:
    path, port = certificate
    with transport("127.0.0.1", port, terms(path), https=True) as client:
        assert client.call(calls.health()).status == "alive"
        groups = client.infer_in_groups("worker-1", wire.InferenceRequest(prompt="Hi"))
        assert [event.token for group in groups for event in group] == ["Hello", None]


def test_the_systems_authorities_are_trusted_without_a_ca_file(
    transport: type[Client], certificate: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, port = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(path))  # which is where OpenSSL looks for the system's
    with transport("127.0.0.1", port, terms(), https=True) as client:
        assert client.call(calls.health()).status == "alive"


def test_a_certificate_of_nobody_known_is_refused_at_once(
    transport: type[Client], certificate: tuple[Path, int]
) -> None:
    _, port = certificate
    with transport("127.0.0.1", port, terms(), https=True) as client, pytest.raises(HiveUntrusted) as caught:
        client.call(calls.health())
    assert caught.value.message.startswith(f"Cannot trust 127.0.0.1:{port}: its certificate is refused (self")
    assert "RBEE_CA_FILE" in caught.value.hint


@pytest.mark.parametrize("certificate", ["DNS:other.example"], indirect=True)
def test_a_certificate_for_another_name_is_refused(transport: type[Client], certificate: tuple[Path, int]) -> None:
    path, port = certificate
    with transport("127.0.0.1", port, terms(path), https=True) as client, pytest.raises(HiveUntrusted) as caught:
        client.call(calls.spawn(wire.SpawnRequest(model_ref="m")))
    assert "127.0.0.1" in caught.value.message
    assert caught.value.hint == "call the hive by a name that its certificate is for"


def test_a_hive_that_speaks_no_tls_is_told_from_a_dead_one(transport: type[Client]) -> None:
    with (
        served(hive) as port,
        transport("127.0.0.1", port, terms(), https=True) as client,
        pytest.raises(HiveUntrusted) as caught,
    ):
        client.call(calls.health())
    assert caught.value.hint == "leave https:// out if the hive speaks plain HTTP"


@pytest.mark.parametrize("content", [None, "no certificate\n"])
def test_a_ca_file_without_certificates_is_named(transport: type[Client], tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with pytest.raises(InvalidRequest, match=str(path)), transport("127.0.0.1", 1, terms(path), https=True):
        pass


def test_the_keeper_speaks_to_a_node_under_tls(certificate: tuple[Path, int]) -> None:
    path, port = certificate
    with connect(f"https://127.0.0.1:{port}", settings(path)) as client:
        assert client.health().status == "alive"


CLIENT = """
import asyncio, sys
from rbee_core.imports import import_aiohttp
import_aiohttp()
import aiohttp

async def ask(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        print(answer.status)

asyncio.run(ask(sys.argv[1]))
"""


def test_whom_others_trust_in_our_processes_is_not_changed(
    certificate: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, port = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    done = subprocess.run(
        [sys.executable, "-P", "-c", CLIENT, f"https://127.0.0.1:{port}/"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("200\n", 0), done.stderr
