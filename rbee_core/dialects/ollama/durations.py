"""How long a model is to be kept, as this dialect's clients write it."""

import math
import re

from rbee_core.dialects.fields import wrong

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PIECE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_ALL = re.compile(rf"([+-]?)((?:{_PIECE.pattern})+)")


def seconds_of(said: float | str | None) -> float | None:
    """Return seconds; infinity for what is below zero, None for what was not said. Raises `InvalidRequest`.

    A number is seconds; a text is one as Go writes durations, such as ``5m`` or ``1h30m``, or a number.
    """
    if said is None or said == "":
        return None
    seconds = _read(said) if isinstance(said, str) else said
    return math.inf if seconds < 0 else float(seconds)


def _read(text: str) -> float:
    if found := _ALL.fullmatch(text):
        total = sum(float(number) * _UNITS[unit] for number, unit in _PIECE.findall(found[2]))
        return -total if found[1] == "-" else total
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        raise wrong("keep_alive", "it must be seconds or a duration such as 5m; below zero stands for always")
    return seconds
