"""A row of logits as numbers to calculate with. Apart from the rest as it needs numpy."""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1, bitorder="little")
_ADDED = np.where(_BITS, 0, -np.inf).astype(np.float32)
"""What a byte of a mask adds to the logits of its eight tokens."""

_BLOCKS = 512


def view(address: int, size: int) -> Logits:
    """Return the logits that llama.cpp holds there: what is changed is changed for its samplers too."""
    return np.ctypeslib.as_array((ctypes.c_float * size).from_address(address))


def keep_only(logits: Logits, mask: Any) -> None:
    """Make impossible every token whose bit in `mask`, bytes with the lowest bit first, is not set.

    Everybody waits for it, so it takes the same short time however many tokens those are.
    """
    logits += _ADDED.take(np.frombuffer(mask, dtype=np.uint8), axis=0).reshape(-1)[: len(logits)]


def likely(logits: Logits, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the log probability of `token`, and of the `top` likeliest tokens with their numbers, likeliest first."""
    most = logits.max()
    whole = float(most) + float(np.log(np.exp(logits - most).sum(dtype=np.float64)))
    return float(logits[token]) - whole, [(one, float(logits[one]) - whole) for one in _likeliest(logits, top)]


def _likeliest(logits: Logits, top: int) -> list[int]:
    """Return the `top` likeliest tokens, of equal ones the first, without putting all others into an order.

    As many blocks of tokens have one that is at least as likely as the last of their best `top`.
    """
    if not top:
        return []
    best = np.maximum.reduceat(logits, np.arange(0, len(logits), max(1, len(logits) // _BLOCKS)))
    least = np.partition(best, -top)[-top] if top <= len(best) else -np.inf
    found = np.flatnonzero(logits >= least)
    return found[np.lexsort((found, -logits[found]))[:top]].tolist()
