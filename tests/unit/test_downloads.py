"""A download that several wait for."""

import asyncio
from pathlib import Path

from rbee_core.backend import RemoteModel
from rbee_core.errors import DownloadFailed, RbeeError
from rbee_core.models.downloads import Download


def test_each_of_several_waiters_gets_a_failure_of_its_own(tmp_path: Path) -> None:
    model = RemoteModel(
        reference="hf:org/model", provider="huggingface", revision="1", format="gguf", entry="m.gguf", files=()
    )

    async def wait_twice() -> list[RbeeError]:
        download = Download(model, tmp_path)

        async def failure() -> RbeeError:
            try:
                await download.result()
            except RbeeError as error:
                return error
            raise AssertionError("it did not fail")

        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(failure()) for _ in range(2)]
            download.error = DownloadFailed("The hub hung up")
            download.wake()
        return [task.result() for task in waiting]

    first, second = asyncio.run(wait_twice())
    assert (first.code, first.message) == (second.code, second.message) == ("DOWNLOAD_FAILED", "The hub hung up")
    assert first is not second
    assert first.__traceback__ is not second.__traceback__
