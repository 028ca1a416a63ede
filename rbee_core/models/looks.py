"""What a look at a model's files found, kept for as long as one decision takes.

A command of a person's is several requests to a hive, each of which needs the same model: the first one looks, and the
others take its word while the files are still the same. Not for longer: their owner may have a newer version by then.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rbee_core.backend import LocalModel
from rbee_core.domain.worker import Identity
from rbee_core.models import store

_PART = re.compile(r"(.*)-\d{5}-of-(\d{5}\.gguf)", re.IGNORECASE | re.DOTALL)
FRESH_S = 10.0
KEPT = 64


def identity_of(path: Path) -> Identity:
    """Return which version of a file, of all parts of a split one, or of a folder's files lies at `path`.

    Told without reading; empty for none.
    """
    try:
        info = path.stat()
        part = _PART.fullmatch(path.name)
        if not stat.S_ISDIR(info.st_mode) and part is None:
            return (_version("", info),)  # a link to it may have any name
        with os.scandir(path.parent if part else path) as entries:
            mine = [e for e in entries if _belongs(e.name, part)]
            return tuple(sorted(_version(entry.name, entry.stat()) for entry in mine))
    except OSError:
        return ()


def _belongs(name: str, part: re.Match[str] | None) -> bool:
    """Whether a file beside or in a model is one of it: another part, or not a note of ours."""
    if part is None:
        return not name.endswith((store.SUFFIX, ".new", ".part", ".part.json"))
    other = _PART.fullmatch(name)
    return other is not None and other.group(1, 2) == part.group(1, 2)


def _version(name: str, info: os.stat_result) -> tuple[str, int, int, int, int]:
    return name, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


@dataclass(frozen=True, slots=True)
class _Look:
    model: LocalModel
    identity: Identity
    at_s: float


class Looks:
    """The last looks of one node, by reference and wanted formats. Methods may be called in any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: dict[tuple[str, tuple[str, ...]], _Look] = {}

    def find(self, reference: str, formats: Sequence[str]) -> LocalModel | None:
        """Return what was found a moment ago, if its files are the same now."""
        look = self._looks.get((reference, tuple(formats)))
        if look is None or self._clock() - look.at_s > FRESH_S or identity_of(look.model.path) != look.identity:
            return None
        return look.model

    def keep(self, formats: Sequence[str], model: LocalModel) -> None:
        """Remember that `model` was found for its reference."""
        if identity := identity_of(model.path):
            self._looks[model.reference, tuple(formats)] = _Look(model, identity, self._clock())
        for oldest in list(self._looks)[:-KEPT]:
            self._looks.pop(oldest, None)
