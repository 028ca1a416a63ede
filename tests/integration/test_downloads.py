"""A hive that fetches models from a hub: what goes right, what goes wrong, and that the next try works."""

import hashlib
import random
import resource
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import psutil
import pytest

from rbee_core import wire
from rbee_core.client import HiveClient
from rbee_core.errors import RemoteError
from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually
from tests.support.hub import Hub, HubFile

GGUF = b"GGUF" + random.Random(3).randbytes(3_000_000)
FILE = "m-Q4_K_M.gguf"


@dataclass
class Place:
    """A hub, a hive that knows it, and a repository of this test's own."""

    hub: Hub
    home: Home
    hive: Hive
    repo: str

    @property
    def client(self) -> HiveClient:
        return self.hive.client

    @property
    def reference(self) -> str:
        return f"hf:{self.repo}"

    def publish(self, data: bytes = GGUF, name: str = FILE, *, lfs: bool = True, **knobs: object) -> HubFile:
        return self.hub.add(f"{self.repo}/{name}", data, lfs=lfs, **knobs)

    def ask(self) -> wire.DownloadProgress:
        return self.client.download(wire.DownloadRequest(model_ref=self.reference))

    def pull(self) -> wire.DownloadProgress:
        first = self.ask()
        return list(self.client.follow(first.id))[-1] if first.state == "running" else first

    def failure(self) -> wire.ErrorObject:
        """Pull, and return why it failed, whether at once or later."""
        try:
            progress = self.pull()
        except RemoteError as error:
            return wire.ErrorObject.of(error)
        assert progress.error is not None, progress
        return progress.error

    def row(self) -> wire.ModelInfo | None:
        return next((m for m in self.client.models() if m.reference == self.reference), None)

    def files(self) -> list[str]:
        folder = self.home.path / "models" / "huggingface" / self.repo
        return sorted(p.name for p in folder.rglob("*") if p.is_file())


@contextmanager
def hub_and_hive(folder: Path) -> Iterator[tuple[Hub, Home, Hive]]:
    with Hub() as hub:
        home = Home(folder, str(uuid.uuid4()))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
            home.environment.pop(name, None)
        home.environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf")}
        hive = home.start_hive()
        yield hub, home, hive
        assert hive.stop().exit_code == 0
        home.close()
        assert "Traceback" not in home.log("hive")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Home, Hive]]:
    with hub_and_hive(tmp_path_factory.mktemp("downloads")) as found:
        yield found


@pytest.fixture
def place(running: tuple[Hub, Home, Hive]) -> Place:
    return Place(*running, f"org/r{uuid.uuid4().hex[:8]}")


@pytest.fixture
def own_place(tmp_path: Path) -> Iterator[Place]:
    """Where many connections are opened, which must be closed by the test's end."""
    with hub_and_hive(tmp_path) as found:
        yield Place(*found, "org/repo")


def test_model_arrives_whole_and_is_listed_then(place: Place) -> None:
    place.publish(bytes_per_s=6_000_000)
    first = place.ask()

    assert (first.state, first.total_bytes, first.note) == ("running", len(GGUF), "Q4_K_M")
    assert place.row() is None
    seen = list(place.client.follow(first.id))

    assert seen[-1].state == "done"
    assert [p.done_bytes for p in seen] == sorted(p.done_bytes for p in seen)
    row = place.row()
    assert row is not None
    assert row.status == "ok"
    assert hashlib.sha256(Path(row.local_path).read_bytes()).digest() == hashlib.sha256(GGUF).digest()


def test_second_pull_asks_nobody(place: Place) -> None:
    place.publish()
    place.pull()
    before = len(place.hub.requests)

    again = place.pull()

    assert (again.state, again.id, again.total_bytes) == ("done", "", len(GGUF))
    assert len(place.hub.requests) == before


def test_one_transfer_however_many_ask_and_one_leaves(own_place: Place) -> None:
    place = own_place
    file = place.publish(bytes_per_s=3_000_000)
    ends: list[str] = []

    def ask(leaves: bool) -> None:
        client = place.hive.connect()
        progress = client.download(wire.DownloadRequest(model_ref=place.reference))
        follow = client.follow(progress.id)
        last = next(follow) if leaves else list(follow)[-1]
        ends.append(last.state)
        client.close()

    askers = [threading.Thread(target=ask, args=(n == 0,)) for n in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(30)

    assert sorted(ends) == ["done", "done", "done", "running"]
    assert file.served == 1
    assert len(place.hub.gets()) == 1


def test_files_gone_behind_the_back_are_shown_and_fetched_again(place: Place) -> None:
    place.publish()
    place.pull()
    row = place.row()
    assert row is not None
    Path(row.local_path).unlink()

    missing = place.row()
    assert missing is not None
    assert missing.status == "missing"
    assert place.pull().state == "done"
    assert Path(row.local_path).read_bytes() == GGUF


def test_what_is_being_fetched_cannot_be_removed(place: Place) -> None:
    place.publish(bytes_per_s=6_000_000)
    first = place.ask()

    with pytest.raises(RemoteError) as caught:
        place.client.remove_model(place.reference)

    assert caught.value.code == "MODEL_IN_USE"
    assert list(place.client.follow(first.id))[-1].state == "done"


def test_removal_frees_what_was_fetched_and_only_that(place: Place, tmp_path: Path) -> None:
    place.publish()
    place.pull()
    other = tmp_path / "my own %20 model#1?.gguf"
    other.write_bytes(GGUF)
    place.client.download(wire.DownloadRequest(model_ref=f"file:{other}"))

    assert place.client.remove_model(place.reference).freed_bytes == len(GGUF)
    assert place.client.remove_model(f"file:{other}").freed_bytes == 0

    assert place.row() is None
    assert place.files() == []
    assert other.read_bytes() == GGUF
    assert f"file:{other}" not in [m.reference for m in place.client.models()]


def lying(place: Place) -> HubFile:
    return place.publish(extra_bytes=7)


def short(place: Place) -> HubFile:
    return place.publish(extra_bytes=-7)


def changed(place: Place) -> HubFile:
    return place.publish(wrong_bytes_times=-1)


def bomb(place: Place) -> HubFile:
    return place.publish(gzip_bomb=True)


def redirected(place: Place) -> HubFile:
    return place.publish(redirect="http://10.0.0.1/m.gguf")


def to_metadata_service(place: Place) -> HubFile:
    return place.publish(redirect="http://169.254.169.254/latest")


def absent(place: Place) -> None:
    """Publish nothing."""


def without_model(place: Place) -> None:
    place.publish(b"x", "README.md", lfs=False)
    place.publish(b"x", "pytorch_model.bin")


def gated(place: Place) -> None:
    place.publish()
    place.hub.repo_status[place.repo] = 403


def needs_token(place: Place) -> None:
    place.publish()
    place.hub.repo_status[place.repo] = 401


def gated_file(place: Place) -> None:
    place.publish()
    place.hub.gated.add(place.repo)


@pytest.mark.parametrize(
    ("prepare", "code", "words", "hint"),
    [
        (absent, "MODEL_NOT_FOUND", "has no such model", "spelling"),
        (without_model, "MODEL_NOT_FOUND", "it has README.md, pytorch_model.bin", ""),
        (gated, "ACCESS_DENIED", "refuses", "HF_TOKEN"),
        (needs_token, "ACCESS_DENIED", "refuses", "HF_TOKEN"),
        (gated_file, "ACCESS_DENIED", "refuses", "HF_TOKEN"),
        (lying, "CHECKSUM_MISMATCH", "arrived twice", "later"),
        (short, "CHECKSUM_MISMATCH", "arrived twice", "later"),
        (changed, "CHECKSUM_MISMATCH", "arrived twice", "later"),
        (bomb, "DOWNLOAD_FAILED", "'gzip'", "proxy"),
        (redirected, "DOWNLOAD_FAILED", "10.0.0.1", "HF_ENDPOINT"),
        (to_metadata_service, "DOWNLOAD_FAILED", "169.254.169.254", "HF_ENDPOINT"),
    ],
)
def test_bad_hub_is_one_sentence_and_the_next_try_works(
    place: Place, prepare: Callable[[Place], object], code: str, words: str, hint: str
) -> None:
    prepare(place)

    error = place.failure()

    assert_told(error, code, words, hint)
    assert place.row() is None
    assert not [name for name in place.files() if not name.endswith((".part", ".part.json"))]
    assert place.client.health().status == "alive"

    place.hub.repo_status.pop(place.repo, None)
    place.hub.gated.discard(place.repo)
    place.publish()
    assert place.pull().state == "done"
    assert place.row() is not None


def assert_told(error: wire.ErrorObject, code: str, words: str, hint: str) -> None:
    assert error.code == code, error
    assert words in error.message
    assert "\n" not in error.message
    assert "Traceback" not in error.message
    assert hint in str(error.details.get("hint"))


def test_file_that_changes_in_the_middle_is_never_mixed(place: Place) -> None:
    place.publish(cut_at=1_500_000, etag_changes=True)

    assert place.pull().state == "done"
    row = place.row()
    assert row is not None
    assert Path(row.local_path).read_bytes() == GGUF


@pytest.mark.parametrize(
    "text",
    [
        *("hf:../etc", "hf:o/../r", "hf:/o/r", "hf:o/r/../../x.gguf", "hf:o/%2e%2e", "o%2er/..%2f", "pkg:../x"),
        *(
            "hf:o/r\x00",
            "hf:o/r:../x",
            "hf:o/r/\u202egguf.x",
            f"hf:o/{'r' * 4000}",
            "x" * 4096,
            "hf:",
            "",
            "nope:thing",
        ),
    ],
)
def test_malformed_reference_is_refused_before_anybody_is_asked(place: Place, text: str) -> None:
    before = len(place.hub.requests)

    with pytest.raises(RemoteError) as caught:
        place.client.download(wire.DownloadRequest(model_ref=text))

    assert caught.value.code == "INVALID_REQUEST"
    assert len(caught.value.message) < 400
    assert caught.value.message.isprintable()
    assert len(place.hub.requests) == before


@contextmanager
def full_disk(hive: Hive, limit_bytes: int) -> Iterator[None]:
    """Let no file of the hive's grow beyond a limit: the same to a program as a disk that is full."""
    process = psutil.Process(hive.pid)
    before = cast("tuple[int, int]", process.rlimit(resource.RLIMIT_FSIZE))
    process.rlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        process.rlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="needs prlimit")
def test_full_disk_is_told_and_its_space_given_back(place: Place) -> None:
    place.publish()
    with full_disk(place.hive, 2_000_000):
        error = place.failure()

    assert_told(error, "INSUFFICIENT_DISK", "Insufficient disk", "free some space")
    assert place.files() == []
    assert place.row() is None
    assert place.pull().state == "done"


def test_read_only_home_is_told(place: Place) -> None:
    place.publish()
    folder = place.home.path / "models" / "huggingface" / "org"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o500)
    try:
        error = place.failure()
    finally:
        folder.chmod(0o700)

    assert_told(error, "HOME_UNUSABLE", "RBEE_HOME", "permissions")
    assert place.client.health().status == "alive"
    assert place.pull().state == "done"


def test_pull_goes_on_while_nobody_follows(place: Place) -> None:
    place.publish(bytes_per_s=6_000_000)
    first = place.ask()

    eventually(place.row, 10, what="the model is listed")

    assert [p.state for p in place.client.follow(first.id)] == ["done"]


def test_unknown_download_is_not_found(place: Place) -> None:
    with pytest.raises(RemoteError) as caught:
        list(place.client.follow("download-nope"))

    assert caught.value.code == "NOT_FOUND"


def test_memory_estimate_is_refused_for_a_model_that_is_not_here(place: Place) -> None:
    place.publish()

    with pytest.raises(RemoteError, match="it is not on this node") as caught:
        place.client.show_model(place.reference)

    assert "rbee models pull" in caught.value.hint
