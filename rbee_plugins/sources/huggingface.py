"""Models on Hugging Face, or on a hub that speaks its interface (``HF_ENDPOINT``).

The cache that huggingface_hub and others share is looked up first and used in place, and the token is found where
they keep it. Asking is our own, because a library's waits have no end that holds for all of them, and it may ask for
more than one thing. Settings are read from the environment at each call: the hive outlives them.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import msgspec

from rbee_core.backend import LocalModel, ModelRef, ModelSource, RemoteFile, RemoteModel
from rbee_core.backend.files import CONFIGS
from rbee_core.errors import AccessDenied, DownloadFailed, ModelNotFound, shorten
from rbee_plugins.sources import formats as on_disk
from rbee_plugins.sources.selection import Choice, choose, gguf_entries, quant_of
from rbee_plugins.sources.small_file import TOKEN_HINT, read_small

if TYPE_CHECKING:
    from rbee_plugins.sources.hub import Hub

_TRUE = frozenset({"1", "on", "yes", "true"})
_LIMIT_S = 30.0
_LONGEST_LIMIT_S = 45.0  # the hive waits a little longer for a source, and so hears why
_MAX_LISTING_BYTES = 8 * 1024 * 1024  # a repository of 25,000 files


class _Lfs(msgspec.Struct, frozen=True):
    sha256: str


class Sibling(msgspec.Struct, frozen=True, rename={"blob_id": "blobId"}):
    """One file of a repository, as a hub lists it; a small one has no `lfs`, and its `blob_id` is its checksum."""

    rfilename: str
    size: Annotated[int, msgspec.Meta(ge=0, lt=1 << 60)] | None = None
    blob_id: str | None = None
    lfs: _Lfs | None = None


class Repository(msgspec.Struct, frozen=True):
    """What a hub says of a repository: its newest commit and the files of it."""

    sha: str = ""
    siblings: list[Sibling] = []


@dataclass(frozen=True, slots=True)
class _Settings:
    endpoint: str
    cache: Path
    offline: bool
    limit_s: float
    token: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def _settings(environ: Mapping[str, str]) -> _Settings:
    base = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"
    home = Path(environ.get("HF_HOME") or base).expanduser()
    cache = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub"
    return _Settings(
        endpoint=(environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/"),
        cache=Path(cache).expanduser(),
        offline=environ.get("HF_HUB_OFFLINE", environ.get("TRANSFORMERS_OFFLINE", "")).lower() in _TRUE,
        limit_s=_limit_s(environ.get("HF_HUB_ETAG_TIMEOUT", "")),
        token=_token(environ, home),
    )


def _limit_s(text: str) -> float:
    """Return for how many seconds a hub may be asked; the variable's usual meaning, but for all that is asked."""
    try:
        wanted = float(text)
    except ValueError:
        return _LIMIT_S
    return min(wanted, _LONGEST_LIMIT_S) if wanted > 0 else _LIMIT_S


def _token(environ: Mapping[str, str], home: Path) -> str:
    if environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").lower() in _TRUE:
        return ""
    given = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN")
    if given is None:
        try:
            given = Path(environ.get("HF_TOKEN_PATH") or home / "token").expanduser().read_text("ascii")
        except (OSError, ValueError):
            return ""
    return "".join(given.split())


class HuggingFaceSource(ModelSource):
    """Resolves ``hf:org/repo``, ``hf:org/repo:QUANT`` and ``hf:org/repo/file.gguf``."""

    schemes = frozenset({"hf"})

    def resolve(self, reference: ModelRef, formats: Sequence[str]) -> LocalModel | RemoteModel:
        """Return the cached copy if there is one, else what to fetch, pinned to today's commit."""
        settings = _settings(os.environ)
        if cached := _cached(settings.cache, reference, formats):
            return cached
        if settings.offline:
            raise ModelNotFound(
                reference=str(reference),
                why="it is not in the Hugging Face cache, and HF_HUB_OFFLINE is set",
                hint="unset HF_HUB_OFFLINE, or give a path to a .gguf file",
            )
        return _remote(settings, reference, formats)


def _cached(cache: Path, reference: ModelRef, formats: Sequence[str]) -> LocalModel | None:
    folder = _snapshot(cache / f"models--{reference.owner}--{reference.name}")
    if not folder:
        return None
    names = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]
    choice = choose(names, formats, path=reference.path, quant=reference.quant)
    if not choice or (choice.format == "mlx" and on_disk.missing_from_folder(folder, names)):
        return None
    try:
        return on_disk.describe(folder / choice.entry, str(reference))
    except ModelNotFound:
        return None  # damaged in the cache: fetch a good one


def _snapshot(repo: Path) -> Path | None:
    """Return the folder of the commit that ``main`` last was, or the newest where only commits were fetched."""
    try:
        named = repo / "snapshots" / (repo / "refs" / "main").read_text("ascii").strip()
        if named.is_dir() and named.parent == repo / "snapshots":
            return named
    except (OSError, ValueError):
        pass
    try:
        return max((repo / "snapshots").iterdir(), key=lambda p: p.stat().st_mtime, default=None)
    except OSError:
        return None


def _remote(settings: _Settings, reference: ModelRef, formats: Sequence[str]) -> RemoteModel:
    from rbee_plugins.sources.hub import Hub  # brings an HTTP client, for which most hives have no use

    hub = Hub(settings.endpoint, settings.headers, time.monotonic() + settings.limit_s, settings.limit_s)
    repository = _repository(hub, reference)
    siblings = {s.rfilename: s for s in repository.siblings}
    choice = choose(list(siblings), formats, path=reference.path, quant=reference.quant)
    if not choice or not repository.sha:
        raise _nothing_loadable(reference, list(siblings))
    files = tuple(_remote_file(settings, reference, repository.sha, siblings[name]) for name in choice.files)
    if choice.format == "mlx":
        _refuse_code(hub, files, reference)
    return RemoteModel(
        reference=str(reference),
        provider="huggingface",
        revision=repository.sha,
        format=choice.format,
        files=files,
        entry=choice.entry,
        note=_note(choice),
    )


def _note(choice: Choice) -> str:
    if choice.note or choice.format != "gguf":
        return choice.note
    return f"{quant_of(choice.entry) or choice.entry}"


def _remote_file(settings: _Settings, reference: ModelRef, commit: str, sibling: Sibling) -> RemoteFile:
    path = f"{reference.owner}/{reference.name}/resolve/{quote(commit, safe='')}/{quote(sibling.rfilename)}"
    return RemoteFile(
        name=sibling.rfilename,
        url=f"{settings.endpoint}/{path}",
        size_bytes=sibling.size or 0,
        sha256=sibling.lfs.sha256.lower() if sibling.lfs else None,
        git_sha1=None if sibling.lfs else sibling.blob_id,
        headers=settings.headers,
    )


def _nothing_loadable(reference: ModelRef, names: Sequence[str]) -> ModelNotFound:
    if reference.path:
        why = f"the repository has no GGUF file {reference.path}"
    elif reference.quant:
        why = f"the repository has no {reference.quant}"
    else:
        why = "the repository has no file that rbee can load"
    models = list(gguf_entries(names)) or sorted(names)
    listed = ", ".join(models[:12]) + (f" and {len(models) - 12} more" if len(models) > 12 else "")
    return ModelNotFound(reference=str(reference), why=f"{why}; it has {listed or 'no files'}")


def _repository(hub: "Hub", reference: ModelRef) -> Repository:
    """Ask the hub what the repository holds today. Raises `ModelNotFound`, `AccessDenied`, `DownloadFailed`."""
    url = f"{hub.endpoint}/api/models/{reference.owner}/{reference.name}?blobs=true"
    answer = hub.ask(url, str(reference), limit_bytes=_MAX_LISTING_BYTES)
    status = answer.status
    unknown = status == 401 and answer.headers.get("x-error-code") == "RepoNotFound" and not hub.headers
    if status == 404 or unknown:  # the hub answers 401 for a repository that does not exist, unless one is logged in
        hint = "check the spelling; a private repository needs HF_TOKEN"
        raise ModelNotFound(reference=str(reference), why=f"{hub.endpoint} has no such model", hint=hint)
    if status in (401, 403):
        raise AccessDenied(f"The hub refuses {reference} ({status})", hint=TOKEN_HINT)
    if status != 200:
        why = f"Cannot ask {hub.endpoint} about {reference}: it answered {status}"
        raise DownloadFailed(why, hint="check the network, or try again later")
    try:
        return msgspec.json.decode(answer.body, type=Repository)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        why = f"{hub.endpoint} answered about {reference} what makes no sense: {shorten(str(error), 100)}"
        raise DownloadFailed(why, hint="is HF_ENDPOINT the address of a Hugging Face hub?") from error


def _refuse_code(hub: "Hub", files: Sequence[RemoteFile], reference: ModelRef) -> None:
    """Read the configurations before anything is fetched: what they name would run at the first load."""
    for file in files:
        if file.name in CONFIGS:
            config = on_disk.parse_object(read_small(hub, file, limit_bytes=on_disk.MAX_JSON_BYTES))
            on_disk.refuse_code(config, reference=str(reference), file=file.name)
