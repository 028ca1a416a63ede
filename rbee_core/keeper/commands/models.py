"""`rbee models`: bringing models to a node, looking at them, checking them, and removing them."""

import os
import time
from typing import TYPE_CHECKING, Any

import click

from rbee_core import wire
from rbee_core.errors import shorten
from rbee_core.keeper.commands import model_checks
from rbee_core.keeper.fetching import provision
from rbee_core.keeper.hives.local import NoHive
from rbee_core.keeper.hives.open import Mode, connect, hive_of, open_hive
from rbee_core.keeper.infer_options import model_for, proper_text
from rbee_core.keeper.interrupt import interrupts
from rbee_core.keeper.options import json_option, node_option
from rbee_core.keeper.screen.render import screen_for
from rbee_core.keeper.screen.show import date_words, show_json, show_table, size_words
from rbee_core.settings import DEFAULT_MODEL, Settings, load

if TYPE_CHECKING:
    from rbee_core.client import HiveClient

DOWNLOAD_HEADERS = ("REFERENCE", "DONE", "SIZE", "STATE")
HEADERS = ("REFERENCE", "ALIASES", "FORMAT", "SIZE", "PROVIDER", "SINCE", "STATUS", "PATH")

SHOWN_SHORT = ("chat_template", "embeddings")

whose_option = node_option("Whose models.")
backend_option = click.option(
    "--backend",
    metavar="NAME",
    callback=proper_text,
    help="The backend that is to run it.",
)


@click.group("models")
def models() -> None:
    """Fetch, list, check and remove models."""


models.add_command(model_checks.verify)
models.add_command(model_checks.prune)


@models.command("pull")
@click.argument("model", default=DEFAULT_MODEL, metavar="[MODEL]")
@backend_option
@whose_option
@json_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--cancel", is_flag=True, help="End the download of MODEL, whoever asked for it.")
def pull(model: str, backend: str | None, node: str, as_json: bool, quiet: bool, cancel: bool) -> None:
    """Have a model on the node; without MODEL, the test model.

    One that is there already is not fetched again. What an interrupted pull fetched is kept, and the next one goes
    on from there; a hive that runs in the background goes on by itself, until --cancel or its end.
    """
    settings = load(os.environ)
    if cancel:
        _cancel(model_for(model, node, settings), node, settings, as_json=as_json)
        return
    request = wire.build(wire.DownloadRequest, model_ref=model_for(model, node, settings), backend=backend)
    started = time.monotonic()
    with interrupts() as signals, open_hive(node, settings, signals, worker=False) as hive:
        client, stays = hive.connect(), hive.mode is Mode.PERSISTENT
        provided = provision(client, request, screen_for(json=as_json, quiet=quiet), goes_on=stays)
        path = _path_of(client, provided.reference)
    if as_json:
        facts = {"reference": provided.reference, "size_bytes": provided.size_bytes, "local_path": path}
        took = {
            "fetched": provided.fetched,
            "note": provided.note,
            "duration_ms": round((time.monotonic() - started) * 1000),
        }
        show_json(facts | took)
    else:
        click.echo(f"{provided.reference} is {'here now' if provided.fetched else 'here'}: {path}")


def _cancel(model: str, node: str, settings: Settings, *, as_json: bool) -> None:
    with connect(node, settings) as client:
        ended = client.cancel_download(model)
    if as_json:
        show_json(ended)
    else:
        click.echo(f"The download of {ended.reference} is ended; the {size_words(ended.done_bytes)} of it are kept")


@models.command("downloads")
@whose_option
@json_option
def downloads(node: str, as_json: bool) -> None:
    """List what the node is fetching, and what waits its turn."""
    try:
        with connect(node, load(os.environ)) as client:
            found = client.downloads()
    except NoHive:  # who fetches nothing
        found = []
    if as_json:
        show_json({"downloads": found})
    elif not found:
        click.echo("Nothing is being fetched")
    else:
        show_table(DOWNLOAD_HEADERS, [_download_row(download) for download in found])


def _download_row(download: wire.DownloadProgress) -> list[str]:
    share = download.done_bytes / download.total_bytes if download.total_bytes else 1.0
    waits = f"place {download.queue_position} in the queue" if download.queue_position else "fetching"
    size = f"{size_words(download.done_bytes)} of {size_words(download.total_bytes)}"
    return [download.reference, f"{share:.0%}", size, download.trouble or waits]


def _path_of(client: "HiveClient", reference: str) -> str:
    return next((row.local_path for row in client.models() if reference in (row.reference, *row.names)), "")


@models.command("list")
@whose_option
@json_option
def list_models(node: str, as_json: bool) -> None:
    """List the models that the node has."""
    with hive_of(node, load(os.environ)) as client:
        rows = client.models()
    if as_json:
        show_json({"models": rows})
    elif not rows:
        click.echo("No models yet: `rbee models pull` brings the test model")
    else:
        show_table(HEADERS, [_row(model) for model in rows])


def _row(model: wire.ModelInfo) -> list[str]:
    return [
        model.reference,
        ", ".join(model.aliases) or "-",
        model.format or "-",
        size_words(model.size_bytes),
        model.provider,
        date_words(model.downloaded_at_unix),
        model.status,
        model.local_path,
    ]


@models.command("show")
@click.argument("model", metavar="MODEL")
@backend_option
@click.option("--context", type=click.IntRange(1), metavar="N", help="Tokens of context to reckon with.")
@whose_option
@json_option
def show(model: str, backend: str | None, context: int | None, node: str, as_json: bool) -> None:
    """Show a model, the memory that a worker for it needs, and whether it fits."""
    settings = load(os.environ)
    reference = model_for(model, node, settings)
    with hive_of(node, settings) as client:
        details = client.show_model(reference, backend=backend, context_tokens=context)
    if as_json:
        show_json(details)
        return
    for name, value in _facts(details):
        click.echo(f"{name + ':':<17}{value}")


def _facts(model: wire.ModelDetails) -> list[tuple[str, Any]]:
    verdict = "✓ fits" if model.fits else "✗ does not fit: use a smaller quantisation or context, or stop a worker"
    return [
        ("Reference", model.reference),
        ("Path", model.local_path),
        ("Format", f"{model.format}, {size_words(model.size_bytes)} on disk"),
        ("Backend", f"{model.backend}, device {model.device}"),
        ("Context", f"{model.context_tokens} tokens"),
        ("Weights", size_words(model.weights_bytes)),
        ("KV cache", size_words(model.kv_cache_bytes)),
        ("Compute buffers", size_words(model.compute_bytes)),
        ("Memory needed", f"{size_words(model.total_bytes)} of {size_words(model.available_bytes)}: {verdict}"),
        *_settled(model),
    ]


def _settled(model: wire.ModelDetails) -> list[tuple[str, Any]]:
    """Return what the settings say of the model beside what was shown, and whose they are."""
    tuning = {name: getattr(model.tuning, name) for name, _ in model.tuning.said() if name not in SHOWN_SHORT}
    facts = {
        "slots": model.slots or None,
        **tuning,
        "idle_timeout_s": model.idle_timeout_s,
        "pinned": model.pinned or None,
        "max_tokens": model.max_tokens,
        **model.sampling,
        "chat_template": "its own" if model.tuning.chat_template else None,
        "system_prompt": model.system_prompt and shorten(model.system_prompt, 60),
    }
    said = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
    return [("Settings", f"{said} ([model.{model.section}])" if model.section else said)] if said else []


@models.command("rm")
@click.argument("references", nargs=-1, required=True, metavar="MODEL...")
@whose_option
@json_option
def remove(references: tuple[str, ...], node: str, as_json: bool) -> None:
    """Forget models, and delete the files that rbee fetched.

    Files of others (a path, a Python package, the Hugging Face cache) stay where they are.
    """
    settings = load(os.environ)
    canonical = [model_for(reference, node, settings) for reference in references]
    with hive_of(node, settings) as client:
        removed = [_remove(client, reference, quiet=as_json) for reference in canonical]
    if as_json:
        show_json({"removed": removed})


def _remove(client: "HiveClient", reference: str, *, quiet: bool) -> wire.RemovedModel:
    removed = client.remove_model(reference)
    if not quiet:
        click.echo(_removal_words(removed))
    return removed


def _removal_words(removed: wire.RemovedModel) -> str:
    if removed.freed_bytes:
        return f"Removed {removed.reference}: {size_words(removed.freed_bytes)} freed"
    if removed.kept_for:
        return f"Forgot the name {removed.reference}; the model stays for {', '.join(removed.kept_for)}"
    return f"Forgot {removed.reference}; its files are not rbee's and stay"
