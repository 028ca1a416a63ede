"""Paths made from words of others: repository names, file names of a hub, folders of the catalog.

The one place where such words become paths. What it lets through stays below its base, on every platform that may
read the folder later (S1 in the threat list: traversal in repository id, revision, file name, alias).
"""

import re
from pathlib import Path

from rbee_core.errors import InvalidRequest

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)


def is_safe_part(part: str) -> bool:
    """Return whether `part` may become one component of a path."""
    return bool(_PART.fullmatch(part)) and ".." not in part and not part.endswith(".") and not _DEVICES.fullmatch(part)


def safe_child(base: Path, *parts: str) -> Path:
    """Return the resolved path of `parts` below `base`, a symbolic link on the way included.

    Raises `InvalidRequest` for a part outside the allow-list, and where a link leads out of `base`.
    """
    bad = next((part for part in parts if not is_safe_part(part)), None)
    if not parts or bad is not None:
        raise InvalidRequest.bad_reference("/".join(parts), f"{(bad or '')[:100]!r} cannot be part of a path")
    root = base.resolve()
    path = root.joinpath(*parts).resolve()
    if path == root or not path.is_relative_to(root):
        raise InvalidRequest.bad_reference("/".join(parts), "it leads out of its folder")
    return path
