"""What llama.cpp's backend refuses by a file's header and size, before anything is loaded."""

from pathlib import Path

import pytest

from rbee_core.backend import LocalModel
from rbee_core.errors import ModelLoadFailed
from rbee_plugins.llamacpp.backend import checked_header
from tests.support.gguf_files import Gguf


def test_c13_a_sparse_file_that_its_header_does_not_account_for_is_refused(tmp_path: Path) -> None:
    path = Gguf().write(tmp_path)
    model = LocalModel("file:model", path, "gguf", path.stat().st_size)
    checked_header(model)
    with path.open("r+b") as file:
        file.truncate(1 << 36)  # 64 GiB of nothing
    with pytest.raises(ModelLoadFailed, match="its header accounts for"):
        checked_header(model)
