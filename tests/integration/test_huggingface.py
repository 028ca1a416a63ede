"""The Hugging Face source against a hub of our own: what is asked, what is chosen, what is refused."""

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rbee_core.backend import LocalModel, RemoteModel
from rbee_core.domain.model_ref import parse
from rbee_core.errors import AccessDenied, DownloadFailed, InvalidRequest, ModelNotFound, RbeeError
from rbee_core.models.transfer import fetch
from rbee_plugins.sources.huggingface import HuggingFaceSource
from tests.support.hub import COMMIT, Hub, Metadata

GGUF = b"GGUF" + bytes(1000)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with Hub() as running:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_ENDPOINT", running.url + "/")
        yield running


def resolve(text: str, formats: Sequence[str] = ("gguf", "mlx")) -> LocalModel | RemoteModel:
    return HuggingFaceSource().resolve(parse(text), formats)


def remote(text: str, formats: Sequence[str] = ("gguf", "mlx")) -> RemoteModel:
    model = resolve(text, formats)
    assert isinstance(model, RemoteModel)
    return model


def fails(error: type[RbeeError], text: str, formats: Sequence[str] = ("gguf", "mlx")) -> RbeeError:
    with pytest.raises(error) as caught:
        resolve(text, formats)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def publish_mlx(hub: Hub, config: dict[str, object] | None = None) -> None:
    hub.add("o/m/config.json", json.dumps(config or {"model_type": "llama"}).encode(), lfs=False)
    hub.add("o/m/tokenizer_config.json", b"{}", lfs=False)
    hub.add("o/m/model.safetensors", bytes(5000))
    hub.add("o/m/pytorch_model.bin", b"x")
    hub.add("o/m/modeling.py", b"x", lfs=False)


def cache(home: Path, commit: str = COMMIT, **files: bytes) -> Path:
    """Lay files into the shared cache the way huggingface_hub does."""
    repo = home / "hf" / "hub" / "models--o--r"
    folder = repo / "snapshots" / commit
    (repo / "refs").mkdir(parents=True, exist_ok=True)
    (repo / "blobs").mkdir(exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (repo / "refs" / "main").write_text(commit)
    for name, data in files.items():
        (repo / "blobs" / name).write_bytes(data)
        (folder / name.replace("__", ".")).symlink_to(repo / "blobs" / name)
    return folder


def test_a_model_is_found_chosen_pinned_and_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    hub.add("o/r/a.Q4_K_M.gguf", GGUF)
    hub.add("o/r/a.Q8_0.gguf", GGUF * 2)
    assert "HF_TOKEN" in fails(AccessDenied, "o/r").hint
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", " hf_secret\n")
        model = remote("o/r")
    assert (model.reference, model.provider, model.revision) == ("hf:o/r", "huggingface", COMMIT)
    assert (model.format, model.entry, model.note) == ("gguf", "a.Q4_K_M.gguf", "Q4_K_M")
    assert COMMIT in model.files[0].url
    fetch(model.files[0], tmp_path / "a.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == GGUF
    assert "hf_secret" not in repr(model)


def test_n9_a_quantisation_that_was_asked_for_is_found_or_refused(hub: Hub) -> None:
    hub.add("o/r/a.Q6_K.gguf", GGUF)
    assert remote("o/r").note == "no Q4_K_M in this repository: using Q6_K"
    assert remote("hf:o/r:q6_k").note == "Q6_K"
    refused = fails(ModelNotFound, "hf:o/r:Q8_0").message
    assert refused == "Model hf:o/r:Q8_0 not found: the repository has no Q8_0; it has a.Q6_K.gguf"
    assert "Q6_K" in fails(ModelNotFound, "hf:o/r:QUANTUM").message


def test_split_parts_come_together(hub: Hub) -> None:
    for n in (1, 2, 3):
        hub.add(f"o/r/q/a-Q4_K_M-0000{n}-of-00003.gguf", GGUF)
    model = remote("hf:o/r/q/a-Q4_K_M-00002-of-00003.gguf")
    assert len(model.files) == 3
    assert model.entry == "q/a-Q4_K_M-00001-of-00003.gguf"
    assert model.size_bytes == 3 * len(GGUF)


def test_a_folder_comes_without_its_code(hub: Hub, tmp_path: Path) -> None:
    publish_mlx(hub)
    model = remote("o/m", ["mlx"])
    assert (model.format, model.entry) == ("mlx", "")
    assert [f.name for f in model.files] == ["config.json", "tokenizer_config.json", "model.safetensors"]
    for file in model.files:
        fetch(file, tmp_path / "m" / file.name)
    assert (tmp_path / "m" / "config.json").read_bytes() == hub.files["o/m/config.json"].data


@pytest.mark.parametrize("config", [{"auto_map": {"AutoModel": "x.Y"}}, {"model_file": "evil.py"}])
def test_a_configuration_naming_code_is_refused_before_anything_is_fetched(hub: Hub, config: dict[str, object]) -> None:
    publish_mlx(hub, config)
    assert "code" in fails(InvalidRequest, "o/m", ["mlx"]).message
    assert {r.path.rsplit("/", 1)[1] for r in hub.gets()} == {"config.json"}


@pytest.mark.parametrize(
    ("knobs", "error"),
    [
        ({"wrong_bytes_times": 1}, DownloadFailed),
        ({"extra_bytes": 100_000}, DownloadFailed),
        ({"gzip_bomb": True}, DownloadFailed),
        ({"redirect": "http://169.254.169.254/x"}, DownloadFailed),
        ({"redirect": "https://127.0.0.1:1/x"}, DownloadFailed),
        ({"status": 403}, AccessDenied),
    ],
)
def test_a_configuration_that_cannot_be_trusted_is_not(
    hub: Hub, knobs: dict[str, object], error: type[RbeeError]
) -> None:
    publish_mlx(hub)
    for name, value in knobs.items():
        setattr(hub.files["o/m/config.json"].knobs, name, value)
    fails(error, "o/m", ["mlx"])


def test_nothing_loadable_names_what_is_there(hub: Hub) -> None:
    hub.add("o/r/pytorch_model.bin", b"x")
    hub.add("o/r/README.md", b"x", lfs=False)
    message = fails(ModelNotFound, "o/r").message
    assert "pytorch_model.bin" in message
    assert "README.md" in message


def test_a_repository_that_is_not_there(hub: Hub) -> None:
    assert "no such model" in fails(ModelNotFound, "o/none").message


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository(hub: Hub, status: int) -> None:
    hub.repo_status["o/r"] = status
    assert "HF_TOKEN" in fails(AccessDenied, "o/r").hint


def test_a_flapping_hub_is_asked_again(hub: Hub) -> None:
    hub.add("o/r/a.gguf", GGUF)
    hub.api_flap_times = 2
    remote("o/r")
    hub.api_flap_times = 99
    assert "503" in fails(DownloadFailed, "o/r").message


def test_a_hub_that_is_gone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    fails(DownloadFailed, "o/r")


def test_offline_asks_nobody(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/r/a.gguf", GGUF)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in fails(ModelNotFound, "o/r").message
    assert hub.requests == []


@pytest.mark.parametrize("text", ["o/r", "hf:o/r:Q8_0", "hf:o/r/a.Q8_0.gguf"])
def test_the_shared_cache_is_used_in_place(hub: Hub, tmp_path: Path, text: str) -> None:
    folder = cache(tmp_path, a__Q8_0__gguf=b"").parent / COMMIT
    (folder / "a.Q8_0.gguf").unlink()
    (folder / "a.Q8_0.gguf").write_bytes(GGUF)
    model = resolve(text)
    assert isinstance(model, LocalModel)
    assert model.path == folder / "a.Q8_0.gguf"
    assert hub.requests == []


@pytest.mark.parametrize("damage", ["other quantisation", "damaged", "no snapshot"])
def test_a_cache_without_the_model_is_passed_over(hub: Hub, tmp_path: Path, damage: str) -> None:
    hub.add("o/r/a.Q4_K_M.gguf", GGUF)
    match damage:
        case "other quantisation":
            (cache(tmp_path) / "a.Q8_0.gguf").write_bytes(GGUF)
        case "damaged":
            (cache(tmp_path) / "a.Q4_K_M.gguf").write_bytes(b"")
        case _:
            cache(tmp_path).rmdir()
    assert isinstance(resolve("hf:o/r:Q4_K_M"), RemoteModel)


def test_a_half_empty_folder_in_the_cache_is_passed_over(hub: Hub, tmp_path: Path) -> None:
    folder = cache(tmp_path)
    (folder / "config.json").write_text("{}")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"x")
    hub.add("o/r/a.gguf", GGUF)
    assert isinstance(resolve("o/r"), RemoteModel)
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"x")
    assert isinstance(resolve("o/r", ["mlx"]), LocalModel)


def test_what_huggingface_hub_fetched_is_found(hub: Hub, tmp_path: Path) -> None:
    hub.add("o/r/a.Q4_0.gguf", GGUF)
    # In a process of its own: the library reads its switches when it is imported, and another test may have set them.
    script = "import sys, huggingface_hub as h; print(h.hf_hub_download(*sys.argv[1:3], cache_dir=sys.argv[3]))"
    argv = [sys.executable, "-P", "-c", script, "o/r", "a.Q4_0.gguf", str(tmp_path / "hf" / "hub")]
    path = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=100).stdout.strip()
    asked = len(hub.requests)
    model = resolve("o/r")
    assert isinstance(model, LocalModel)
    assert str(model.path) == path
    assert len(hub.requests) == asked


def test_sources_are_asked_in_threads(hub: Hub) -> None:
    hub.add("o/r/a.gguf", GGUF)
    found: list[RemoteModel] = []
    threads = [threading.Thread(target=lambda: found.append(remote("o/r"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4


def test_c19_only_what_the_repository_holds_is_asked(hub: Hub) -> None:
    """M10: no library's telemetry, no question of its own."""
    hub.add("o/r/a.Q4_K_M.gguf", GGUF)
    remote("o/r")
    assert [r.path for r in hub.requests] == ["/api/models/o/r"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"sha": 5, "siblings": []}',
        b'{"sha": "abc", "siblings": 7}',
        b'{"sha": "abc", "siblings": [{"rfilename": 5}]}',
        b'{"sha": "abc", "siblings": [{"rfilename": "a.gguf", "size": "x"}]}',
        b'{"sha": "abc", "siblings": [{"rfilename": "a.gguf", "size": NaN}]}',
        b'{"sha": "abc", "siblings": [{"rfilename": "a.gguf", "size": 1e999}]}',
        b'{"sha": "abc", "siblings": [{"rfilename": "a.gguf", "size": -1}]}',
        b'{"sha": "abc", "siblings": [{"rfilename": "\\ud800.gguf"}]}',
        b'{"sha": "abc", "siblings": [{"rfilename": "a.gguf", "lfs": {"sha256": 1}}]}',
        b"[" * 100_000,
        b"<html>",
        b'{"sha": "\xff"}',
        b"[]",
        b"",
    ],
    ids=range(14),
)
def test_c12_an_answer_of_wrong_types_is_the_hubs_fault(hub: Hub, body: bytes) -> None:
    hub.metadata = Metadata(body)
    error = fails(DownloadFailed, "o/r")
    assert error.message.startswith(f"{hub.url} answered about hf:o/r what makes no sense")
    assert "HF_ENDPOINT" in error.hint


@pytest.mark.parametrize(
    "knobs",
    [
        Metadata(gzip.compress(b"[" + b" " * 50_000_000), {"Content-Encoding": "gzip"}),
        Metadata(b'{"sha": "a", "x": "' + b" " * 9_000_000 + b'"}'),
    ],
    ids=["encoded", "long"],
)
def test_b1_a_bomb_for_an_answer_is_refused(hub: Hub, knobs: Metadata) -> None:
    hub.metadata = knobs
    assert "hf:o/r" in fails(DownloadFailed, "o/r").message


@pytest.mark.parametrize(
    "target", ["http://10.1.2.3/api/models/o/r", "http://169.254.169.254/latest/meta-data", "file:///etc/passwd"]
)
def test_b3_a_listing_is_asked_for_where_a_file_is_and_nowhere_else(hub: Hub, target: str) -> None:
    hub.metadata = Metadata(redirect=target)
    assert "does not follow" in fails(DownloadFailed, "o/r").message


def test_b3_redirects_of_a_listing_have_an_end(hub: Hub) -> None:
    hub.metadata = Metadata(redirect="/api/models/o/r")
    assert "more than 5 times" in fails(DownloadFailed, "o/r").message


EVIL = "\x1b]0;PWNED\x07\x1b[2J\x1b[31mevil\r\nerror: fake \u202e\0line.bin"


def test_b2_names_from_a_hub_are_escaped(hub: Hub) -> None:
    hub.add(f"o/r/{EVIL}", b"x")
    message = fails(ModelNotFound, "o/r").message
    assert r"\x1b]0;PWNED\x07\x1b[2J\x1b[31mevil\r\nerror: fake \u202e\x00line.bin" in message
    assert message.isprintable()
