"""`rbee workers list|retry|health|pin|unpin|shutdown`: the workers of a hive."""

import os
from typing import TYPE_CHECKING

import click

from rbee_core import wire
from rbee_core.errors import RbeeError
from rbee_core.keeper.hives.open import connect
from rbee_core.keeper.infer_options import proper_text
from rbee_core.keeper.options import json_option, node_option
from rbee_core.keeper.screen.show import count_workers, show_json, show_table, size_words
from rbee_core.settings import load

if TYPE_CHECKING:
    from rbee_core.client import HiveClient

ENDED_BADLY = ("crashed", "failed")
LIST_HEADERS = ("WORKER", "STATE", "MODEL", "BACKEND", "DEVICE", "SLOTS", "MEMORY", "IDLE")
HELD_HEADERS = ("HELD BACK", "BACKEND", "DEVICE", "FAILURES", "FOR", "LAST")
HEALTH_HEADERS = ("WORKER", "HEALTH", "STATE", "SLOTS", "IDLE", "DETAIL")

whose_option = node_option("Whose workers.")
models_argument = click.argument("models", nargs=-1, metavar="[MODEL]...", callback=proper_text)
workers_argument = click.argument(
    "worker_ids",
    nargs=-1,
    metavar="[WORKER]...",
    callback=proper_text,
)


@click.group("workers")
def workers() -> None:
    """List, check and shut down a hive's workers."""


@workers.command("list")
@whose_option
@json_option
def list_workers(node: str, as_json: bool) -> None:
    """List the live workers, and the models that are held back because their workers fail."""
    from rbee_core.client import calls

    with connect(node, load(os.environ)) as client:
        found = client.call(calls.list_workers())
    if as_json:
        show_json(found)
        return
    if found.workers:
        show_table(LIST_HEADERS, [_list_row(worker) for worker in found.workers])
        for worker in found.workers:
            if worker.detail and worker.state in ("idle", "busy"):
                click.echo(f"{worker.worker_id}: {worker.detail}", err=True)
            if worker.last_prompt:
                click.echo(f"{worker.worker_id}: {_cached_words(worker.last_prompt)}", err=True)
    else:
        click.echo("No workers are running")
    if found.held_back:
        click.echo()
        show_table(HELD_HEADERS, [_held_row(worker) for worker in found.held_back])


@workers.command("retry")
@models_argument
@whose_option
def retry(models: tuple[str, ...], node: str) -> None:
    """Try models again that are held back because their workers failed; without MODEL, all of them.

    Each is started when somebody next asks for it.
    """
    with connect(node, load(os.environ)) as client:
        tried = {model: client.retry(model) for model in models or _held_models(client)}
    for model, held in tried.items():
        click.echo(f"{model}: {'tried again when it is next asked for' if held else 'is not held back'}")
    if not tried:
        click.echo("No model is held back")


@workers.command("health")
@workers_argument
@whose_option
@json_option
def health(worker_ids: tuple[str, ...], node: str, as_json: bool) -> int:
    """Check the workers; exit code 1 if one of them crashed, failed or does not respond.

    Also those that crashed or failed, until a worker for the same model is well again.
    """
    with connect(node, load(os.environ)) as client:
        checked = [client.worker(worker_id) for worker_id in worker_ids] if worker_ids else _all_that_matter(client)
    if as_json:
        show_json({"workers": [{**wire.to_builtins(worker), "healthy": is_healthy(worker)} for worker in checked]})
    elif not checked:
        click.echo("No workers are running")
    else:
        show_table(HEALTH_HEADERS, [_health_row(worker) for worker in checked])
    return 0 if all(is_healthy(worker) for worker in checked) else 1


@workers.command("pin")
@workers_argument
@whose_option
def pin(worker_ids: tuple[str, ...], node: str) -> int:
    """Keep workers: they are stopped neither for room nor for being idle.

    That ends with the hive, and with a worker that is shut down or crashes.
    """
    return _pin(worker_ids, node, pinned=True)


@workers.command("unpin")
@workers_argument
@whose_option
def unpin(worker_ids: tuple[str, ...], node: str) -> int:
    """Keep workers no longer."""
    return _pin(worker_ids, node, pinned=False)


def _pin(worker_ids: tuple[str, ...], node: str, *, pinned: bool) -> int:
    from rbee_core.client import calls

    if not worker_ids:
        raise click.UsageError("Name workers; `rbee workers list` shows them.")
    code = 0
    with connect(node, load(os.environ)) as client:
        for worker_id in worker_ids:
            try:
                client.call(calls.pin(worker_id, pinned=pinned))
            except RbeeError as error:
                click.echo(f"error: {error.message}", err=True)
                code = error.exit_code
            else:
                click.echo(f"{worker_id} is kept" + ("" if pinned else " no longer"))
    return code


@workers.command("shutdown")
@workers_argument
@click.option("--all", "everyone", is_flag=True, help="All of them.")
@whose_option
def shutdown(worker_ids: tuple[str, ...], everyone: bool, node: str) -> int:
    """Shut down workers and free their memory; the hive goes on."""
    from rbee_core.client import calls

    if bool(worker_ids) == everyone:
        raise click.UsageError("Name workers, or give --all.")
    code = ended = 0
    with connect(node, load(os.environ)) as client:
        ids = worker_ids or tuple(worker.worker_id for worker in client.list_workers())
        click.echo(f"Shutting down {count_workers(len(ids))}", err=True)
        for worker_id in ids:
            try:
                killed = client.call(calls.stop_worker(worker_id)).killed.get(worker_id, "")
            except RbeeError as error:
                click.echo(f"error: {error.message}", err=True)
                code = error.exit_code
            else:
                ended += 1
                click.echo(f"Shut down {worker_id}" + (f" ({killed})" if killed else ""))
    click.echo(f"Shut down {count_workers(ended)}", err=True)
    return code


def _all_that_matter(client: "HiveClient") -> list[wire.WorkerInfo]:
    """Return the live workers, and the last one that ended badly of each model that none runs for since."""
    live = client.list_workers()
    well = {_purpose(worker) for worker in live if is_healthy(worker)}
    ended = [worker for state in ENDED_BADLY for worker in client.list_workers(state=state)]
    missing = {_purpose(worker): worker for worker in ended if _purpose(worker) not in well}
    return [*live, *missing.values()]


def _held_models(client: "HiveClient") -> list[str]:
    return list(dict.fromkeys(worker.model_ref for worker in client.held_back()))


def _purpose(worker: wire.WorkerInfo) -> tuple[str, str, str]:
    return worker.model_ref, worker.backend, worker.device


def is_healthy(worker: wire.WorkerInfo) -> bool:
    """Whether a worker is in order; one that was stopped on purpose is."""
    return worker.state not in ENDED_BADLY and worker.error is None


def _cached_words(last: wire.LastPrompt) -> str:
    words = f"{last.cached_tokens} of {last.prompt_tokens} tokens of its last prompt were cached"
    return f"{words} ({last.not_cached})" if last.not_cached else words


def _list_row(worker: wire.WorkerInfo) -> list[str]:
    return [
        worker.worker_id,
        worker.state,
        worker.model_ref,
        worker.backend,
        worker.device,
        f"{worker.active}/{worker.slots}",
        size_words(worker.reserved_bytes),
        f"{worker.idle_s:.0f} s" + (" (pinned)" if worker.pinned else ""),
    ]


def _held_row(worker: wire.WorkerInfo) -> list[str]:
    last = worker.error.message if worker.error else worker.reason
    held = f"{worker.held_back_s:.0f} s"
    return [worker.model_ref, worker.backend, worker.device, str(worker.failures), held, last]


def _health_row(worker: wire.WorkerInfo) -> list[str]:
    said = (worker.error.message if worker.error else "") or worker.reason or worker.detail
    verdict = "ok" if is_healthy(worker) else "ill"
    idle = f"{worker.idle_s:.0f} s"
    return [worker.worker_id, verdict, worker.state, f"{worker.active}/{worker.slots}", idle, said]
