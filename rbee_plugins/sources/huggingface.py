"""Models on Hugging Face, or on a hub that speaks its interface (``HF_ENDPOINT``).

huggingface_hub gives metadata and the token; it is imported when a model is first asked for, never before. Its cache
is looked up first and used in place. Settings are read from the environment at each call: the hive outlives them.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rbee_core.backend import LocalModel, ModelRef, ModelSource, RemoteFile, RemoteModel
from rbee_core.backend.files import CONFIGS
from rbee_core.errors import AccessDenied, DownloadFailed, ModelNotFound, RbeeError
from rbee_plugins.sources import formats as on_disk
from rbee_plugins.sources.selection import Choice, choose, gguf_entries, quant_of
from rbee_plugins.sources.small_file import TOKEN_HINT, read_small

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_TRUE = frozenset({"1", "on", "yes", "true"})
_METADATA_TIMEOUT_S = 10.0
_METADATA_DELAYS_S = (0.1, 0.4)


@dataclass(frozen=True, slots=True)
class _Settings:
    endpoint: str
    cache: Path
    offline: bool
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
        token=_token(environ, home),
    )


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
    choice = choose(names, formats, path=reference.path, quant=reference.quant, exact=True)
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
    info = _model_info(settings, reference)
    siblings = {s.rfilename: s for s in info.siblings or []}
    choice = choose(list(siblings), formats, path=reference.path, quant=reference.quant)
    if not choice or not info.sha:
        raise _nothing_loadable(reference, list(siblings))
    files = tuple(_remote_file(settings, reference, info.sha, siblings[name]) for name in choice.files)
    if choice.format == "mlx":
        _refuse_code(files, reference)
    return RemoteModel(
        reference=str(reference),
        provider="huggingface",
        revision=info.sha,
        format=choice.format,
        files=files,
        entry=choice.entry,
        note=_note(choice),
    )


def _note(choice: Choice) -> str:
    if choice.note or choice.format != "gguf":
        return choice.note
    return f"{quant_of(choice.entry) or choice.entry}"


def _remote_file(settings: _Settings, reference: ModelRef, commit: str, sibling: Any) -> RemoteFile:
    path = f"{reference.owner}/{reference.name}/resolve/{quote(commit, safe='')}/{quote(sibling.rfilename)}"
    return RemoteFile(
        name=sibling.rfilename,
        url=f"{settings.endpoint}/{path}",
        size_bytes=int(sibling.size or 0),
        sha256=str(sibling.lfs.sha256).lower() if sibling.lfs else None,
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


def _model_info(settings: _Settings, reference: ModelRef) -> "ModelInfo":
    from huggingface_hub import HfApi  # 0.4 s that only a pull should cost

    api = HfApi(endpoint=settings.endpoint, token=settings.token or False)
    for delay_s in (*_METADATA_DELAYS_S, None):
        try:
            return api.model_info(
                f"{reference.owner}/{reference.name}", files_metadata=True, timeout=_METADATA_TIMEOUT_S
            )
        except Exception as error:  # its HTTP library, and so its errors, differ by version
            ours, transient = _translate(error, settings, reference)
            if delay_s is None or not transient:
                raise ours from error
            time.sleep(delay_s)
    raise AssertionError("the last round returns or raises")


def _translate(error: Exception, settings: _Settings, reference: ModelRef) -> tuple[RbeeError, bool]:
    """Return our error for one of huggingface_hub's, and whether it may pass."""
    response: Any = getattr(error, "response", None)
    status = int(getattr(response, "status_code", 0))
    unknown = status == 401 and response.headers.get("x-error-code") == "RepoNotFound" and not settings.token
    if status == 404 or unknown:  # the hub answers 401 for a repository that does not exist, unless one is logged in
        hint = "check the spelling; a private repository needs HF_TOKEN"
        return ModelNotFound(reference=str(reference), why=f"{settings.endpoint} has no such model", hint=hint), False
    if status in (401, 403):
        return AccessDenied(f"The hub refuses {reference} ({status})", hint=TOKEN_HINT), False
    why = f"it answered {status}" if status else type(error).__name__
    failed = DownloadFailed(
        f"Cannot ask {settings.endpoint} about {reference}: {why}", hint="check the network, or try again later"
    )
    return failed, status in (0, 408, 425, 429) or status >= 500


def _refuse_code(files: Sequence[RemoteFile], reference: ModelRef) -> None:
    """Read the configurations before anything is fetched: what they name would run at the first load."""
    for file in files:
        if file.name in CONFIGS:
            config = on_disk.parse_object(read_small(file, limit_bytes=on_disk.MAX_JSON_BYTES))
            on_disk.refuse_code(config, reference=str(reference), file=file.name)
