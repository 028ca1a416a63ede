"""RBEE_HOME/config.toml as it lies there: its values, and where in it each of them stands."""

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from rbee_core import small_files
from rbee_core.errors import HomeUnusable, InvalidRequest

NAME = "config.toml"
OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The file's text and values; both are empty where there is no file."""

    text: str = field(default="", repr=False)
    values: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def place(self, *keys: str) -> str:
        """Return how a value of the file is named to people, such as ``config.toml line 7: [model.ada] slots``."""
        line = self._line(keys)
        at = f"{NAME} line {line}" if line else NAME
        *tables, name = keys
        return f"{at}: [{'.'.join(tables)}] {name}" if tables else f"{at}: {name}"

    def _line(self, keys: Sequence[str]) -> int:
        """Return the number of the line on which a value begins, 0 for what is not found.

        It is the first one that names it, with which the text holds the value and without which it does not: no parser
        of TOML that Python has tells lines.
        """
        lines = self.text.splitlines(keepends=True)
        for number, line in enumerate(lines):
            if keys[-1] not in line or (before := _parsed(lines[:number])) is None or _holds(before, keys):
                continue
            whole = (v for v in map(_parsed, _longer(lines, number + 1)) if v is not None)
            if _holds(next(whole, None), keys):
                return number + 1
        return 0


def read(home: Path, *, forgiving: bool = False) -> ConfigFile:
    """Return the file of this home; with `forgiving`, one that is no TOML counts as empty.

    Raises `HomeUnusable` for one that cannot be read, `InvalidRequest` for one that is no TOML, or that holds the key
    and is open to others.
    """
    path = home / NAME
    try:
        data, seen = small_files.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return ConfigFile()
    except OSError as error:
        raise HomeUnusable(path=str(home), why=f"{NAME}: {error.strerror}") from error
    import tomllib  # most homes have no such file

    try:
        text = data.decode("utf-8")
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        if forgiving:
            return ConfigFile()
        # It is not TOML, not UTF-8, too deep, or has a number of thousands of digits.
        raise InvalidRequest(f"{path} is not valid TOML: {error}", hint="correct the line it names") from error
    if values.get("api_key") and stat.S_IMODE(seen.st_mode) & OTHERS:
        raise InvalidRequest(
            f"{path} holds the API key, and other users of this machine may read it", hint=f"chmod 600 {path}"
        )
    return ConfigFile(text, values)


def _longer(lines: Sequence[str], least: int) -> Iterator[Sequence[str]]:
    """Yield the first `least` lines and more and more of those that follow: a value may go on for some."""
    yield from (lines[:count] for count in range(least, len(lines) + 1))


def _parsed(lines: Sequence[str]) -> dict[str, Any] | None:
    """Return what these lines say, None where they stop within a value."""
    import tomllib

    try:
        return tomllib.loads("".join(lines))
    except (ValueError, RecursionError):
        return None


def _holds(values: object, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            return False
        values = cast("dict[str, object]", values)[key]
    return True
