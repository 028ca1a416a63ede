"""Which hive `--node` means.

`localhost` is this RBEE_HOME's hive, known by its run file. Any other node, or a port, is taken at its word.
"""

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rbee_core.errors import HiveUnreachable, HomeUnusable, InvalidRequest, RbeeError, shorten
from rbee_core.settings import DEFAULT_PORT, Settings

if TYPE_CHECKING:
    """Return a client of the hive at an address, without connecting yet."""
    from rbee_core.client import HiveClient

LOCALHOST = "localhost"
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where a hive may listen, never where one connects


@dataclass(frozen=True, slots=True)
class RunFile:
    """What a persistent hive notes about itself in `RBEE_HOME/run/hive.json`."""

    pid: int
    host: str
    port: int
    start_time: float


class NoHive(HiveUnreachable):
    """Raised when a command needs this machine's hive and none runs."""

    def __init__(self) -> None:
        RbeeError.__init__(self, "No hive is running on this RBEE_HOME", hint="start one with `rbee hive start`")


def parse(node: str) -> tuple[str, int | None]:
    """Split `host`, `host:port`, `[v6]:port` or a bare IPv6 address. Raises `InvalidRequest`."""
    host, port = node, ""
    if node.startswith("["):
        host, _, rest = node[1:].partition("]")
        if rest:
            colon, port = rest[0], rest[1:]
            host = host if colon == ":" and port else ""
    elif node.count(":") == 1:
        host, _, port = node.partition(":")
        host = host if port else ""
    valid_port = not port or (port.isascii() and port.isdigit() and 0 < int(port) < 65_536)
    if not host or not valid_port or any(c.isspace() or c in "/@?#" or not c.isprintable() for c in host):
        raise InvalidRequest(f"Invalid node: {shorten(node)!r}", hint="give a host, or host:port")
    return host, int(port) if port else None


def read_run_file(settings: Settings) -> RunFile | None:
    """Return this RBEE_HOME's run file if the process it names is alive."""
    path = settings.run_dir / "hive.json"
    try:
        noted: Any = json.loads(path.read_bytes())
        host = WILDCARDS.get(noted["host"], noted["host"])
        found = RunFile(int(noted["pid"]), str(host), int(noted["port"]), float(noted["start_time"]))
    except PermissionError as error:
        raise HomeUnusable(path=str(settings.home), why=f"{path.name}: {error.strerror}") from error
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return found if is_alive(found.pid) else None


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists, as far as one can tell for free."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def running(settings: Settings) -> "HiveClient | None":
    """Return a client of this RBEE_HOME's hive if one runs and answers."""
    noted = read_run_file(settings)
    if noted is None:
        return None
    client = client_of(noted.host, noted.port, settings)
    try:
        client.health(attempts=1, timeout_s=settings.connect_timeout_s)
    except RbeeError:
        client.close()
        return None
    return client


def is_local(node: str) -> bool:
    """Whether `node` means the hive of this RBEE_HOME, wherever that listens."""
    return parse(node) == (LOCALHOST, None)


def connect(node: str, settings: Settings) -> "HiveClient":
    """Return a client of the hive on `node`. Raises `NoHive` if that is this machine and none runs."""
    host, port = parse(node)
    if not is_local(node):
        return client_of(host, port or DEFAULT_PORT, settings)
    client = running(settings)
    if client is None:
        raise NoHive
    return client


def client_of(host: str, port: int, settings: Settings) -> "HiveClient":
    """Return a client of the hive at an address, without connecting yet."""
    from rbee_core.client import HiveClient  # see the package's docstring

    return HiveClient(host, port, settings)
