"""What kind of model a path on this disk is, told from its first bytes and its file names.

Looks, and reads four bytes and small JSON files; whether a GGUF file is sound is for the backend to say.
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from rbee_core.backend import LocalModel
from rbee_core.backend.files import CONFIGS, code_named_in
from rbee_core.errors import InvalidRequest, ModelNotFound, shorten

MAX_JSON_BYTES = 4 * 1024 * 1024
_MAX_PARTS = 999
_MOST_NAMED = 5
_NO_MODEL = re.compile(r"(?:^|[-._/])(?:mmproj|imatrix)(?:[-._]|$)", re.IGNORECASE)
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE | re.DOTALL)


def split_parts(name: str) -> list[str]:
    """Return the names of all parts of a split GGUF file that `name` is one of; `name` alone if it is not split.

    Empty for numbers that make no sense: a name from a hub must not make this node count to a hundred thousand.
    """
    match = _SPLIT.fullmatch(name)
    if not match:
        return [name]
    if not 1 <= int(match[2]) <= int(match[3]) <= _MAX_PARTS:
        return []
    extension = name[-5:]
    return [f"{match[1]}-{n:05d}-of-{match[3]}{extension}" for n in range(1, int(match[3]) + 1)]


def whole_ggufs(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the complete GGUF models among `names`: first part to all parts."""
    present = {n for n in names if n.lower().endswith(".gguf") and not _NO_MODEL.search(n)}
    groups = [tuple(split_parts(name)) for name in sorted(present)]
    return {parts[0]: parts for parts in groups if parts and present.issuperset(parts)}


def describe(path: Path, reference: str) -> LocalModel:
    """Return the model at `path`, used in place. Raises `ModelNotFound` or `InvalidRequest`, in one sentence."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _describe_folder(path, reference)
        if not stat.S_ISREG(mode):
            raise InvalidRequest.bad_reference(reference, "it is neither a file nor a folder")
        return _describe_gguf(path, reference)
    except FileNotFoundError:
        raise ModelNotFound(reference=reference, why=f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no usable path"
        raise ModelNotFound(reference=reference, why=f"cannot read {path}: {why.lower()}") from error


def _describe_gguf(path: Path, reference: str) -> LocalModel:
    if _magic(path) != b"GGUF":
        hint = "give a .gguf file, or a folder with config.json and *.safetensors"
        raise ModelNotFound(reference=reference, why=f"{path} is no GGUF file", hint=hint)
    parts = [path.with_name(name) for name in split_parts(path.name) or [path.name]]
    missing = next((part.name for part in parts if not part.is_file()), None)
    if missing:
        raise ModelNotFound(reference=reference, why=f"its part {missing} is missing in {path.parent}")
    return LocalModel(reference, parts[0], "gguf", sum(part.stat().st_size for part in parts))


def _magic(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(fd, 4) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)


def _describe_folder(path: Path, reference: str) -> LocalModel:
    names = sorted(entry.name for entry in path.iterdir())
    if missing := missing_from_folder(path, names):
        ggufs = [] if any(n.endswith(".safetensors") for n in names) else list(whole_ggufs(names))
        if len(ggufs) == 1:
            return _describe_gguf(path / ggufs[0], reference)
        # What else lies there is not told: the answer may go to another machine than the folder's.
        found = "" if names else "; it is empty"
        if ggufs:
            raise ModelNotFound(reference=reference, why=_several(path, ggufs), hint="name one of them by its path")
        raise ModelNotFound(reference=reference, why=f"{path} has no {missing}{found}")
    refuse_code_in(path, reference)
    size = sum((path / name).stat().st_size for name in names if (path / name).is_file())
    return LocalModel(reference, path, "mlx", size)


def _several(path: Path, ggufs: Sequence[str]) -> str:
    named = ", ".join(map(shorten, ggufs[:_MOST_NAMED]))
    more = f" and {len(ggufs) - _MOST_NAMED} more" if len(ggufs) > _MOST_NAMED else ""
    return f"{path} holds several: {named}{more}"


def missing_from_folder(path: Path, names: Sequence[str]) -> str:
    """Return what a model folder lacks, "" for nothing: an interrupted download leaves a folder half full."""
    if "config.json" not in names:
        return "config.json"
    weights = [n for n in names if n.endswith(".safetensors")]
    if not weights:
        return "*.safetensors"
    index = read_json(path / "model.safetensors.index.json").get("weight_map")
    wanted = cast("dict[str, Any]", index).values() if isinstance(index, dict) else _shards(weights)
    return next((str(n) for n in sorted(set(map(str, wanted))) if n not in names), "")


def _shards(weights: Iterable[str]) -> Iterable[str]:
    for name in weights:
        match = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})\.safetensors", name)
        count = int(match[2]) if match else 0
        if match and 0 < count <= _MAX_PARTS:
            yield from (f"{match[1]}-{n:05d}-of-{match[2]}.safetensors" for n in range(1, count + 1))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a small JSON file; empty for anything else."""
    try:
        if not path.is_file() or path.stat().st_size > 16 * MAX_JSON_BYTES:
            return {}
        return parse_object(path.read_bytes())
    except OSError:
        return {}


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`; empty for anything else, however deep or broken."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def refuse_code_in(folder: Path, reference: str) -> None:
    """Raise `InvalidRequest` if a configuration in `folder` names code to run."""
    for name in CONFIGS:
        refuse_code(read_json(folder / name), reference=reference, file=name)


def refuse_code(config: Mapping[str, Any], *, reference: str = "", file: str = "config.json") -> None:
    """Raise `InvalidRequest` if `config` names Python code that a loader would run."""
    if key := code_named_in(config):
        raise InvalidRequest(
            f"Model {reference} brings its own code ({key} in {file}), and rbee runs no code from models",
            hint="use a GGUF version of it",
            reference=reference,
        )
