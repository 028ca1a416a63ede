"""The transfer against a hub of our own, with everything that goes wrong on real networks."""

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rbee_core.backend import http_stream
from rbee_core.backend.base import RemoteFile
from rbee_core.errors import (
    AccessDenied,
    ChecksumMismatch,
    DownloadFailed,
    HomeUnusable,
    InsufficientDisk,
    ModelNotFound,
    RbeeError,
    RequestCanceled,
)
from rbee_core.models import lanes, partial, transfer
from rbee_core.models.transfer import fetch
from rbee_core.models.transfer_rules import TransferOptions
from tests.support.hub import Hub, HubFile

DATA = os.urandom(2_000_003)
HALF = len(DATA) // 2
QUICK = TransferOptions(first_delay_s=0.005, max_delay_s=0.02, stall_timeout_s=0.4, connect_timeout_s=2)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "a.gguf"


def remote(hub: Hub, file: HubFile, *, token: str = "", **changes: object) -> RemoteFile:
    given: dict[str, object] = {
        "name": "a.gguf",
        "url": f"{hub.url}/o/r/resolve/main/a.gguf",
        "size_bytes": len(file.data),
        "sha256": file.sha256,
        "headers": {"Authorization": f"Bearer {token}"} if token else {},
    }
    return RemoteFile(**{**given, **changes})


def ranges(hub: Hub) -> list[str | None]:
    return [r.headers.get("range") for r in hub.gets()]


def fails(error: type[RbeeError], file: RemoteFile, target: Path, options: TransferOptions = QUICK) -> RbeeError:
    """Fetch in vain, and check that nothing appeared."""
    with pytest.raises(error) as caught:
        fetch(file, target, options=options)
    assert not target.exists()
    assert caught.value.message
    assert caught.value.hint
    return caught.value


def test_a_file_arrives_once_and_whole(hub: Hub, target: Path) -> None:
    seen: list[tuple[int, int]] = []
    file = remote(hub, hub.add("o/r/a.gguf", DATA))
    fetch(file, target, progress=lambda done, total: seen.append((done, total)))
    fetch(file, target)
    assert target.read_bytes() == DATA
    assert [p.name for p in target.parent.iterdir()] == ["a.gguf"]
    assert len(hub.requests) == 1
    assert hub.requests[0].headers["accept-encoding"] == "identity"
    assert seen[-1] == (len(DATA), len(DATA))


def test_git_blob_hash_stands_in_for_small_files(hub: Hub, target: Path) -> None:
    published = hub.add("o/r/a.gguf", b"{}", lfs=False)
    fetch(remote(hub, published, sha256=None, git_sha1=published.git_sha1), target)
    assert target.read_bytes() == b"{}"
    target.unlink()
    fails(ChecksumMismatch, remote(hub, published, sha256=None, git_sha1="0" * 40), target)


def test_empty_files_arrive_too(hub: Hub, target: Path) -> None:
    fetch(remote(hub, hub.add("o/r/a.gguf", b"")), target)
    assert target.read_bytes() == b""


def test_nothing_is_fetched_without_a_checksum(hub: Hub, target: Path) -> None:
    fails(DownloadFailed, remote(hub, hub.add("o/r/a.gguf", DATA), sha256=None), target)
    assert not hub.requests


def test_a_cut_is_resumed_where_it_happened(hub: Hub, target: Path) -> None:
    fetch(remote(hub, hub.add("o/r/a.gguf", DATA, cut_at=HALF)), target, options=QUICK)
    assert target.read_bytes() == DATA
    assert ranges(hub) == [None, f"bytes={HALF}-"]
    assert hub.requests[1].headers["if-range"].startswith('"')
    assert hub.served_bytes <= len(DATA) + 10 * 2**20


def test_six_attempts_that_bring_nothing_are_enough(hub: Hub, target: Path) -> None:
    published = hub.add("o/r/a.gguf", DATA, cut_at=HALF, cut_times=-1)
    error = fails(DownloadFailed, remote(hub, published), target)
    assert "6 attempts" in error.message
    assert len(hub.requests) == 6
    published.knobs.cut_at = None
    fetch(remote(hub, published), target, options=QUICK)
    assert ranges(hub)[-1] == f"bytes={HALF}-"
    assert hub.served_bytes == len(DATA)


def test_a_stall_is_cut_short_and_resumed(hub: Hub, target: Path) -> None:
    started = time.monotonic()
    fetch(remote(hub, hub.add("o/r/a.gguf", DATA, stall_at=HALF, stall_times=1)), target, options=QUICK)
    assert target.read_bytes() == DATA
    assert ranges(hub) == [None, f"bytes={HALF}-"]
    assert time.monotonic() - started < 30  # and not after a minute


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_a_flapping_hub_is_asked_again(hub: Hub, target: Path, status: int) -> None:
    fetch(remote(hub, hub.add("o/r/a.gguf", DATA, flap_times=3, flap_status=status)), target, options=QUICK)
    assert target.read_bytes() == DATA
    assert len(hub.requests) == 4


def test_the_servers_retry_after_is_honoured(hub: Hub, target: Path) -> None:
    started = time.monotonic()
    fetch(remote(hub, hub.add("o/r/a.gguf", DATA, flap_times=1, retry_after="1")), target, options=QUICK)
    assert time.monotonic() - started >= 1


def test_wrong_bytes_of_the_right_size_are_fetched_once_more(hub: Hub, target: Path) -> None:
    published = hub.add("o/r/a.gguf", DATA, wrong_bytes_times=1)
    fetch(remote(hub, published), target, options=QUICK)
    assert target.read_bytes() == DATA
    assert ranges(hub) == [None, None]


def test_wrong_bytes_twice_are_a_checksum_mismatch(hub: Hub, target: Path) -> None:
    published = hub.add("o/r/a.gguf", DATA, wrong_bytes_times=-1)
    fails(ChecksumMismatch, remote(hub, published), target)
    assert len(hub.requests) == 2
    assert [p.stat().st_size for p in target.parent.iterdir()] == [0]
    published.knobs.wrong_bytes_times = 0
    fetch(remote(hub, published), target, options=QUICK)
    assert target.read_bytes() == DATA


def test_the_final_path_never_shows_wrong_bytes(hub: Hub, target: Path) -> None:
    published = hub.add("o/r/a.gguf", DATA, wrong_bytes_times=1, bytes_per_s=8_000_000)
    puller = threading.Thread(target=fetch, args=(remote(hub, published), target), kwargs={"options": QUICK})
    puller.start()
    while puller.is_alive():
        with contextlib.suppress(FileNotFoundError):
            assert target.read_bytes() == DATA
        puller.join(0.002)
    assert target.read_bytes() == DATA


def test_versions_are_never_mixed_when_the_etag_changes(hub: Hub, target: Path) -> None:
    fetch(remote(hub, hub.add("o/r/a.gguf", DATA, cut_at=HALF, etag_changes=True)), target, options=QUICK)
    assert target.read_bytes() == DATA
    assert [r.served_bytes for r in hub.gets()] == [HALF, len(DATA)]


def test_versions_are_never_mixed_by_a_server_that_ignores_if_range(hub: Hub, target: Path) -> None:
    published = hub.add("o/r/a.gguf", DATA, cut_at=HALF, etag_changes=True, ignores_if_range=True)
    fetch(remote(hub, published), target, options=QUICK)
    assert target.read_bytes() == DATA
    assert ranges(hub) == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize("knobs", [{"ranges": False}, {"etag": ""}, {"etag": 'W/"weak"'}])
def test_without_ranges_or_strong_etag_the_file_starts_over(hub: Hub, target: Path, knobs: dict[str, object]) -> None:
    fetch(remote(hub, hub.add("o/r/a.gguf", DATA, cut_at=HALF, **knobs)), target, options=QUICK)
    assert target.read_bytes() == DATA
    assert [r.served_bytes for r in hub.gets()] == [HALF, len(DATA)]


@pytest.mark.parametrize("extra_bytes", [1, 5_000_000, -1, -HALF])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_lying_size_is_found_out(hub: Hub, target: Path, extra_bytes: int, chunked: bool) -> None:
    published = hub.add("o/r/a.gguf", DATA, extra_bytes=extra_bytes, chunked=chunked)
    fails(DownloadFailed if chunked and extra_bytes < 0 else ChecksumMismatch, remote(hub, published), target)
    assert sum(p.stat().st_size for p in target.parent.iterdir()) <= len(DATA) + 4096


def test_encoded_bodies_are_refused(hub: Hub, target: Path) -> None:
    fails(DownloadFailed, remote(hub, hub.add("o/r/a.gguf", DATA, gzip_bomb=True)), target)
    assert sum(p.stat().st_size for p in target.parent.iterdir()) == 0


@pytest.mark.parametrize(
    ("status", "error"), [(401, AccessDenied), (403, AccessDenied), (404, ModelNotFound), (451, DownloadFailed)]
)
def test_refusals_are_not_repeated(hub: Hub, target: Path, status: int, error: type[RbeeError]) -> None:
    fails(error, remote(hub, hub.add("o/r/a.gguf", DATA, status=status)), target)
    assert len(hub.requests) == 1


def test_a_required_token_is_sent(hub: Hub, target: Path) -> None:
    hub.token = "hf_secret"
    published = hub.add("o/r/a.gguf", DATA)
    assert "HF_TOKEN" in fails(AccessDenied, remote(hub, published), target).hint
    fetch(remote(hub, published, token="hf_secret"), target)
    assert target.read_bytes() == DATA
    assert "hf_secret" not in repr(remote(hub, published, token="hf_secret"))


def test_the_token_stays_at_its_origin(hub: Hub, target: Path) -> None:
    with Hub() as storage:
        storage.add("o/r/blob", DATA)
        published = hub.add("o/r/a.gguf", DATA, redirect=f"{storage.url}/o/r/resolve/main/blob")
        fetch(remote(hub, published, token="hf_secret"), target)
        assert target.read_bytes() == DATA
        assert hub.requests[0].authorized
        assert not any(r.authorized for r in storage.requests)


def test_relative_redirects_keep_the_token(hub: Hub, target: Path) -> None:
    hub.token = "hf_secret"
    hub.add("o/r/blob", DATA)
    published = hub.add("o/r/a.gguf", DATA, redirect="blob")
    fetch(remote(hub, published, token="hf_secret"), target)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/x",
        "https://192.168.0.1/x",
        "http://8.8.8.8/x",
        "http://0.0.0.0:1/x",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "javascript:alert(1)",
        "http://[::1",
    ],
)
def test_redirects_elsewhere_are_not_followed(
    hub: Hub, target: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[object] = []
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda to, *a, **k: reached.append(to) or connect(to, *a, **k))
    fails(DownloadFailed, remote(hub, hub.add("o/r/a.gguf", DATA, redirect=location), token="t"), target)
    assert reached == [("127.0.0.1", hub.port)]


def test_redirect_loops_end(hub: Hub, target: Path) -> None:
    fails(DownloadFailed, remote(hub, hub.add("o/r/a.gguf", DATA, redirect="a.gguf")), target)
    assert len(hub.requests) == http_stream.MAX_REDIRECTS + 1


def test_a_403_behind_a_redirect_is_an_expired_link(hub: Hub, target: Path) -> None:
    with Hub() as storage:
        storage.add("o/r/blob", DATA, flap_times=1, flap_status=403)
        published = hub.add("o/r/a.gguf", DATA, redirect=f"{storage.url}/o/r/resolve/main/blob")
        fetch(remote(hub, published), target, options=QUICK)
    assert target.read_bytes() == DATA
    assert len(hub.requests) == 2


def test_a_hub_that_is_gone_is_said_so(target: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        file = RemoteFile("a", f"http://127.0.0.1:{taken.getsockname()[1]}/a", 5, sha256="0" * 64)
        assert "refused" in fails(DownloadFailed, file, target).message


def test_a_bad_header_does_not_print_the_token(hub: Hub, target: Path) -> None:
    error = fails(DownloadFailed, remote(hub, hub.add("o/r/a.gguf", DATA), token="hf_secret\nX: y"), target)
    assert "hf_secret" not in error.message


def test_a_full_disk_is_seen_first(hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(target.parents[1])
    published = hub.add("o/r/a.gguf", DATA)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(DATA)))
    error = fails(InsufficientDisk, remote(hub, published), target)
    assert error.details["need_bytes"] == len(DATA) * 105 // 100
    assert not hub.requests
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    fetch(remote(hub, published), target)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_given_its_space_back(
    hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    published = hub.add("o/r/a.gguf", DATA)
    real = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if offset + len(data) > HALF:
            raise OSError(code, os.strerror(code))
        return real(fd, data, offset)

    monkeypatch.setattr(partial.os, "pwrite", full)
    fails(InsufficientDisk, remote(hub, published), target)
    assert list(target.parent.iterdir()) == []
    monkeypatch.setattr(partial.os, "pwrite", real)
    fetch(remote(hub, published), target)
    assert target.read_bytes() == DATA


def test_a_read_only_home_is_said_so(hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(partial.os, "open", read_only)
    fails(HomeUnusable, remote(hub, hub.add("o/r/a.gguf", DATA)), target)


def test_a_link_in_the_parts_place_is_not_written_through(hub: Hub, target: Path, tmp_path: Path) -> None:
    target.parent.mkdir()
    (tmp_path / "canary").write_text("x")
    (target.parent / "a.gguf.part").symlink_to(tmp_path / "canary")
    fails(DownloadFailed, remote(hub, hub.add("o/r/a.gguf", DATA)), target)
    assert (tmp_path / "canary").read_text() == "x"


def test_cancelling_keeps_what_was_fetched(hub: Hub, target: Path) -> None:
    published = hub.add("o/r/a.gguf", DATA, stall_at=HALF, stall_times=1)
    cancel = threading.Event()
    timer = threading.Timer(0.3, cancel.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(RequestCanceled):
        fetch(remote(hub, published), target, cancel=cancel)
    assert time.monotonic() - started < 30  # half of what counts as a stall
    timer.join()
    fetch(remote(hub, published), target)
    assert ranges(hub) == [None, f"bytes={HALF}-"]
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("damage", ["sidecar gone", "sidecar garbage", "other file", "too long", "bytes changed"])
def test_a_part_is_not_trusted(hub: Hub, target: Path, damage: str) -> None:
    published = hub.add("o/r/a.gguf", DATA, cut_at=HALF, cut_times=-1)
    fails(DownloadFailed, remote(hub, published), target, TransferOptions(attempts=1))
    published.knobs.cut_at = None
    part, sidecar = (target.with_name(f"a.gguf.part{end}") for end in ("", ".json"))
    match damage:
        case "sidecar gone":
            sidecar.unlink()
        case "sidecar garbage":
            sidecar.write_bytes(b"[" * 100_000)
        case "other file":
            sidecar.write_bytes(sidecar.read_bytes().replace(published.sha256.encode(), b"0" * 64))
        case "too long":
            part.write_bytes(bytes(len(DATA) + 1))
        case _:
            part.write_bytes(bytes(HALF))
    fetch(remote(hub, published), target, options=QUICK)
    assert target.read_bytes() == DATA
    assert sorted(p.name for p in target.parent.iterdir()) == ["a.gguf"]


def test_a_finished_part_needs_no_network(hub: Hub, target: Path) -> None:
    published = hub.add("o/r/a.gguf", DATA, cut_at=HALF, cut_times=-1)
    fails(DownloadFailed, remote(hub, published), target, TransferOptions(attempts=1))
    target.with_name("a.gguf.part").write_bytes(DATA)
    fetch(remote(hub, published), target)
    assert len(hub.requests) == 1
    assert target.read_bytes() == DATA


def test_a_damaged_final_file_is_replaced(hub: Hub, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(bytes(len(DATA)))
    fetch(remote(hub, hub.add("o/r/a.gguf", DATA)), target)
    assert target.read_bytes() == DATA


def _fetch_together(file: RemoteFile, target: Path, count: int) -> None:
    errors: list[RbeeError] = []

    def one() -> None:
        try:
            fetch(file, target, options=QUICK)
        except RbeeError as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads)
    assert target.read_bytes() == DATA
    assert [p.name for p in target.parent.iterdir()] == ["a.gguf"]


def test_four_at_once_fetch_once(hub: Hub, target: Path) -> None:
    _fetch_together(remote(hub, hub.add("o/r/a.gguf", DATA, bytes_per_s=8_000_000)), target, 4)
    assert len(hub.requests) == 1


@pytest.mark.parametrize("outcome", [None, errno.ENOLCK])
def test_where_locks_exclude_nobody_the_file_is_right_all_the_same(
    hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch, outcome: int | None
) -> None:
    def no_lock(*_: object) -> None:
        if outcome:
            raise OSError(outcome, os.strerror(outcome))

    monkeypatch.setattr(fcntl, "flock", no_lock)
    _fetch_together(remote(hub, hub.add("o/r/a.gguf", DATA, bytes_per_s=8_000_000)), target, 3)


# Connections of this hub that are slow, and a file that is long for such a trial.
LANES = replace(QUICK, trial_bytes=200_000)
SLOW = 1_500_000


def pieces(hub: Hub) -> list[str]:
    return [r for r in ranges(hub) if r and not r.endswith("-")]


def transfer_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("transfer")]


def test_slow_connections_are_joined_by_others(hub: Hub, target: Path) -> None:
    hub.token = "hf_secret"
    seen: list[int] = []
    published = hub.add("o/r/a.gguf", DATA, bytes_per_s=SLOW)
    fetch(remote(hub, published, token="hf_secret"), target, options=LANES, progress=lambda done, _: seen.append(done))
    assert target.read_bytes() == DATA
    assert len(pieces(hub)) > 60
    assert {r.headers["if-range"] for r in hub.gets()[1:]} == {f'"{published.sha256}"'}
    assert hub.served_bytes <= len(DATA) + LANES.trial_bytes * 5
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)
    assert transfer_threads() == []


def test_lanes_go_where_the_hub_sends_them_without_the_token(hub: Hub, target: Path) -> None:
    with Hub() as storage:
        storage.add("o/r/blob", DATA, bytes_per_s=SLOW)
        published = hub.add("o/r/a.gguf", DATA, redirect=f"{storage.url}/o/r/resolve/main/blob")
        fetch(remote(hub, published, token="hf_secret"), target, options=LANES)
        assert target.read_bytes() == DATA
        assert len(hub.requests) == 1
        assert len(pieces(storage)) > 60
        assert not any(r.authorized for r in storage.requests)


def test_a_line_that_one_connection_fills_is_left_to_it(hub: Hub, target: Path) -> None:
    slower = replace(LANES, trial_bytes=380_000)  # a moment's pause of this machine must not look like a gain
    fetch(remote(hub, hub.add("o/r/a.gguf", DATA, bytes_per_s=700_000, one_line=True)), target, options=slower)
    assert target.read_bytes() == DATA
    assert 8 <= len(pieces(hub)) <= 28
    assert len(ranges(hub)) - len(pieces(hub)) == 2


@pytest.mark.parametrize(
    "trouble",
    [
        {"cut_at": HALF},
        {"cut_at": HALF, "cut_times": 3},
        {"stall_at": HALF, "stall_times": 1},
        {"ranges": False},
        {"etag": ""},
    ],
    ids=str,
)
def test_whatever_happens_to_a_lane_the_file_arrives_whole(hub: Hub, target: Path, trouble: dict[str, object]) -> None:
    fetch(remote(hub, hub.add("o/r/a.gguf", DATA, bytes_per_s=SLOW, **trouble)), target, options=LANES)
    assert target.read_bytes() == DATA
    assert sorted(p.name for p in target.parent.iterdir()) == ["a.gguf"]
    assert transfer_threads() == []


@pytest.mark.parametrize(
    "trouble",
    [{"etag": '"other"'}, {"ranges": False}, {"flap_times": 1}, {"flap_times": 5}, {"gzip_bomb": True}],
    ids=str,
)
def test_a_hub_that_changes_under_the_lanes_is_found_out(hub: Hub, target: Path, trouble: dict[str, object]) -> None:
    published = hub.add("o/r/a.gguf", DATA, bytes_per_s=SLOW)

    def change(done: int, _: int) -> None:
        if done > HALF and trouble:
            published.knobs = replace(published.knobs, **trouble)
            trouble.clear()

    if "gzip_bomb" in trouble:
        with pytest.raises(DownloadFailed):
            fetch(remote(hub, published), target, options=LANES, progress=change)
        published.knobs.gzip_bomb = False
    fetch(remote(hub, published), target, options=LANES, progress=change)
    assert target.read_bytes() == DATA
    assert len(pieces(hub)) > 30


def test_wrong_bytes_of_a_lane_are_fetched_once_more(hub: Hub, target: Path) -> None:
    published = hub.add("o/r/a.gguf", DATA, bytes_per_s=SLOW)
    seen = [0]

    def damage(done: int, _: int) -> None:
        """Damage what the lanes bring, until the file starts over."""
        starts_over = sorted(seen) != seen or done < seen[-1]
        published.knobs.wrong_bytes_times = -1 if done > HALF // 2 and not starts_over else 0
        seen.append(done)

    fetch(remote(hub, published), target, options=LANES, progress=damage)
    assert target.read_bytes() == DATA
    assert ranges(hub).count(None) == 2


def test_cancelling_ends_the_lanes_and_keeps_what_they_brought(hub: Hub, target: Path) -> None:
    published = hub.add("o/r/a.gguf", DATA, bytes_per_s=SLOW)
    cancel, cancelled = threading.Event(), []

    def stop() -> None:
        cancelled.append(time.monotonic())
        cancel.set()

    timer = threading.Timer(0.3, stop)

    def progress(done: int, _: int) -> None:
        if done > HALF and published.knobs.bytes_per_s == SLOW:
            published.knobs.bytes_per_s = 1  # the lanes are waiting when the timer ends
            timer.start()

    with pytest.raises(RequestCanceled):
        fetch(
            remote(hub, published), target, options=replace(LANES, stall_timeout_s=60), cancel=cancel, progress=progress
        )
    assert time.monotonic() - cancelled[0] < 30  # half of what counts as a stall
    timer.join()
    assert transfer_threads() == []
    assert target.with_name("a.gguf.part").stat().st_size > HALF


def test_a_disk_that_fills_up_ends_the_lanes(hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if offset > HALF:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data, offset)

    monkeypatch.setattr(partial.os, "pwrite", full)
    fails(InsufficientDisk, remote(hub, hub.add("o/r/a.gguf", DATA, bytes_per_s=SLOW)), target, LANES)
    assert transfer_threads() == []


def test_outages_do_not_add_up_over_a_long_file(hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that ends inside the lanes raises nothing; it brought enough to start counting again."""
    attempt, turns = transfer._attempt, iter(range(100))

    def flaky(*job: object) -> None:
        if next(turns) % 2 == 0:
            raise transfer._TryAgainError("an outage")
        attempt(*job)

    def lanes_end_early(source: lanes.Location, start: int, piece_bytes: int, _: object) -> Iterator[bytes]:
        yield from (DATA[at : at + piece_bytes] for at in range(start, start + 400_000, piece_bytes))

    monkeypatch.setattr(transfer, "_attempt", flaky)
    monkeypatch.setattr(lanes, "pieces", lanes_end_early)
    options = replace(LANES, attempts=2, trial_bytes=100_000)
    fetch(remote(hub, hub.add("o/r/a.gguf", DATA, bytes_per_s=4_000_000)), target, options=options)
    assert target.read_bytes() == DATA
    assert next(turns) >= 6
