"""What holds for a model's files wherever they are met: how to know their bytes, and that none of them is code.

Shared by the transfer, the store and the plugins, so that each rule stands once. Opens no file and no connection.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

# Small files that loaders read and that could name Python code, and the keys that do (mlx-lm: CVE-2026-5843).
CONFIGS = ("config.json", "tokenizer_config.json", "processor_config.json", "generation_config.json")
_CODE_KEYS = ("auto_map", "model_file")


class Announced(Protocol):
    """A file whose size and checksum are known before its bytes, such as `RemoteFile`."""

    @property
    def size_bytes(self) -> int:
        """How long it is."""
        ...

    @property
    def sha256(self) -> str | None:
        """Its SHA-256 in lower-case hex; empty where the hub has none."""
        ...

    @property
    def git_sha1(self) -> str | None:
        """The name of its git blob, which counts where there is no SHA-256."""
        ...


class Digest(Protocol):
    """A hash under way, as hashlib makes them."""

    def update(self, data: bytes, /) -> None:
        """Add the next bytes."""

    def hexdigest(self) -> str:
        """Return what the bytes so far amount to, in lower-case hex."""
        ...


def checksum_of(file: Announced) -> str:
    """Return the digest that `file` must have; "" when its source announced none."""
    return file.sha256 or file.git_sha1 or ""


def new_digest(file: Announced) -> Digest:
    """Return the hash that `checksum_of` is a result of: SHA-256, or SHA-1 the way git names a blob."""
    if file.sha256:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)


def code_named_in(config: Mapping[str, Any]) -> str:
    """Return the key under which `config` names Python code that a loader would run, at any depth; "" for none."""
    pending: list[Any] = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            mapping = cast("Mapping[str, Any]", value)
            if key := next((k for k in _CODE_KEYS if mapping.get(k)), None):
                return key
            pending.extend(mapping.values())
        elif isinstance(value, list):
            pending.extend(cast("list[Any]", value))
    return ""
