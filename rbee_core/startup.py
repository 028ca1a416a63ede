"""What every program of rbee does while it imports."""

import gc
from collections.abc import Generator
from contextlib import contextmanager

_OBJECTS = 20_000  # between two looks at the youngest; Python's own number is 700


@contextmanager
def quick_imports() -> Generator[None]:
    """Let the garbage collector look less often within the block.

    Imports make a hundred thousand objects that all stay: looking for garbage among them is a twentieth of a start.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
