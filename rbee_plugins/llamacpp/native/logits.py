"""A row of logits as numbers to calculate with. Apart from the rest as it needs numpy."""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


def view(address: int, size: int) -> Logits:
    """Return the logits that llama.cpp holds there: what is changed is changed for its samplers too."""
    return np.ctypeslib.as_array((ctypes.c_float * size).from_address(address))


def keep_only(logits: Logits, mask: Any) -> None:
    """Make impossible every token whose bit in `mask`, bytes with the lowest bit first, is not set."""
    bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), count=len(logits), bitorder="little")
    logits[bits == 0] = -np.inf


def likely(logits: Logits, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the log probability of `token`, and of the `top` likeliest tokens with their numbers, likeliest first."""
    numbers = logits.astype(np.float64)
    numbers -= numbers.max()
    numbers -= np.log(np.exp(numbers).sum())
    first = np.argpartition(-numbers, min(top, len(numbers) - 1))[:top] if top else np.empty(0, dtype=np.int64)
    ordered = sorted(first.tolist(), key=lambda one: (-numbers[one], one))
    return float(numbers[token]), [(one, float(numbers[one])) for one in ordered]
