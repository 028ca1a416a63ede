"""Makes models that no backend may load, out of one that it can."""

import os
import shutil
from pathlib import Path

KEPT_BYTES = 64
RUBBISH_BYTES = 100_000


def damaged(sound: Path, folder: Path, how: str) -> Path:
    """Return a copy of the model `sound` in `folder` that is empty, random, or damaged after its beginning.

    A model that is a folder becomes an empty folder, or one whose weights are damaged: its largest file.
    """
    folder.mkdir(parents=True)
    bad = folder / sound.name
    if sound.is_file():
        bad.write_bytes(_bytes(sound, how))
        return bad
    bad.mkdir()
    if how != "empty":
        files = [path for path in sound.iterdir() if path.is_file()]
        weights = max(files, key=lambda path: path.stat().st_size)
        for path in files:
            if path == weights:
                (bad / path.name).write_bytes(_bytes(path, how))
            else:
                shutil.copyfile(path, bad / path.name)
    return bad


def _bytes(sound: Path, how: str) -> bytes:
    if how == "empty":
        return b""
    with sound.open("rb") as file:
        beginning = file.read(KEPT_BYTES if how == "damaged" else 0)
    return beginning + os.urandom(RUBBISH_BYTES)
