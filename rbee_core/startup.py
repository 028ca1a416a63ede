"""What every program of rbee does before it imports much."""

import gc

_OBJECTS = 20_000  # between two looks at the youngest; Python's own number is 700


def import_quickly() -> None:
    """Let the garbage collector look less often, in a process that is about to import a lot.

    Imports make a hundred thousand objects that all stay: looking for garbage among them is a twentieth of a start.
    """
    gc.set_threshold(_OBJECTS)
