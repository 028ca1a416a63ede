"""Reads a model folder's configuration and tensor headers, so that mlx-lm meets only folders that were checked.

Owns what a folder may contain: whole safetensors files, and no code. Reads no weights and imports no engine.
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from rbee_core.backend import LocalModel
from rbee_core.backend.files import CONFIGS, code_named_in
from rbee_core.errors import ModelLoadFailed, shorten

MAX_JSON_BYTES = 64 * 1024 * 1024  # an index of many shards, a vocabulary beside it
MAX_HEADER_BYTES = 100_000_000  # the format's own limit

_GLOB_CHARACTERS = frozenset("*?[")
_DTYPE_BYTES: Mapping[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_HALF_TYPES = frozenset({"F16", "BF16"})


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A checked folder. `tensor_bytes` counts all tensors, `half_bytes` those of 16-bit floats among them."""

    config: Mapping[str, Any]
    tensor_bytes: int
    half_bytes: int

    @property
    def architecture(self) -> str:
        """The model's family, such as ``llama``."""
        return str(self.config["model_type"])

    def number(self, key: str) -> int:
        """Return a whole number of the configuration, or of its part about text; 0 if there is none."""
        nested: Any = self.config.get("text_config")
        places = [self.config, cast("Mapping[str, Any]", nested)] if isinstance(nested, dict) else [self.config]
        return next((v for place in places if isinstance(v := place.get(key), int) and v > 0), 0)


def read_folder(model: LocalModel) -> ModelFolder:
    """Return the checked folder of `model`. Raises `ModelLoadFailed`."""
    path = model.path
    if _GLOB_CHARACTERS & set(str(path)):
        hint = "move it to a folder without them; mlx-lm looks for weights by pattern"
        raise ModelLoadFailed(reference=model.reference, why="its path has one of the characters * ? [", hint=hint)
    try:
        configs = {name: _read_json(path / name, model) for name in CONFIGS if (path / name).exists()}
        for name, content in configs.items():
            _refuse_code(content, name, model)
        config = configs.get("config.json", {})
        if not isinstance(config.get("model_type"), str):
            _fail(model, "its config.json does not name a model_type")
        weights = sorted(path.glob("model*.safetensors"))
        if not weights:
            _fail(model, "the folder has no model*.safetensors")
        sizes = [_tensor_sizes(file, model) for file in weights]
    except OSError as error:
        raise ModelLoadFailed(reference=model.reference, why=f"{error.strerror}: {error.filename}") from error
    return ModelFolder(config, sum(s[0] for s in sizes), sum(s[1] for s in sizes))


def _fail(model: LocalModel, why: str) -> NoReturn:
    raise ModelLoadFailed(reference=model.reference, why=why)


def _read_json(path: Path, model: LocalModel) -> dict[str, Any]:
    info = path.stat()
    if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_JSON_BYTES:
        _fail(model, f"its {path.name} is no small file")
    return _object(path.read_bytes(), f"its {path.name}", model)


def _object(data: bytes, what: str, model: LocalModel) -> dict[str, Any]:
    try:
        value: Any = json.loads(data)
    except (ValueError, RecursionError):
        _fail(model, f"{what} is no JSON")
    if not isinstance(value, dict):
        _fail(model, f"{what} holds no JSON object")
    return cast("dict[str, Any]", value)


def _refuse_code(content: Mapping[str, Any], file: str, model: LocalModel) -> None:
    if key := code_named_in(content):
        raise ModelLoadFailed(
            reference=model.reference,
            why=f"it brings its own code ({key} in {file}), and rbee runs no code from models",
            hint="use a GGUF version of it, or one that a library supports by itself",
        )


def _tensor_sizes(path: Path, model: LocalModel) -> tuple[int, int]:
    """Return the bytes of all tensors of one file, and of those that are 16-bit floats."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a named pipe must not make us wait for its writer
    with os.fdopen(os.open(path, flags), "rb") as file:
        info = os.fstat(file.fileno())
        length = int.from_bytes(file.read(8), "little") if stat.S_ISREG(info.st_mode) else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, info.st_size - 8):
            _fail(model, f"{path.name} is no safetensors file, or it is truncated")
        header = _object(file.read(length), f"the header of {path.name}", model)
    room, total, half = info.st_size - 8 - length, 0, 0
    for name, entry in header.items():
        if name != "__metadata__":
            dtype, size = _tensor(name, entry, room, path, model)
            total += size
            half += size if dtype in _HALF_TYPES else 0
    return total, half


def _tensor(name: str, entry: Any, room: int, path: Path, model: LocalModel) -> tuple[str, int]:
    label = f"tensor {shorten(name, 60)} of {path.name}"
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        wanted = _DTYPE_BYTES[dtype] * math.prod(shape)
        sound = all(n >= 0 for n in shape) and 0 <= start <= end and end - start == wanted
    except (KeyError, TypeError, ValueError):
        sound, dtype, end, wanted = False, "", 0, 0
    if not sound:
        _fail(model, f"{label} has a damaged entry")
    if end > room:
        _fail(model, f"the file is truncated: {label} ends at byte {end} of {room}")
    return dtype, wanted
