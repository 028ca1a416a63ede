"""`rbee embed`: texts in, a vector for each out."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, get_args

import click

from rbee_core import start, wire
from rbee_core.domain.tuning import Pooling
from rbee_core.errors import InvalidRequest, PayloadTooLarge, shorten
from rbee_core.keeper.fetching import provision
from rbee_core.keeper.hives.open import Mode, open_hive
from rbee_core.keeper.infer_options import FLAGS, check_backend, check_timeout, model_for, proper_text
from rbee_core.keeper.interrupt import deadline, interrupts
from rbee_core.keeper.options import in_sections, json_option, node_option
from rbee_core.keeper.screen.render import screen_for
from rbee_core.keeper.screen.show import show_json
from rbee_core.keeper.tuning_options import lora_option, tuning
from rbee_core.settings import DEFAULT_MODEL, Settings, load

AT_ONCE = 256
"""Texts in one request: of a long file, the first vectors are there while the last texts wait."""

SECTIONS = {
    "Texts": ("file",),
    "Vectors": ("pooling", "own_length"),
    "Where": ("node", "model", "lora", "backend", "device", "context", "timeout"),
    "Output": ("as_json",),
}


@click.command("embed", cls=in_sections(SECTIONS))
@node_option("Where to run it.")
@click.option("--model", default=DEFAULT_MODEL, show_default=True, metavar="REF", help="Alias, path or reference.")
@click.argument("texts", metavar="[TEXT]...", nargs=-1, callback=proper_text)
@click.option("--file", metavar="PATH", help="Each line of this file is a text; - is stdin.")
@click.option(
    "--pooling",
    type=click.Choice(get_args(Pooling)),
    metavar="WORD",
    help="How a text's tokens become one vector: mean, cls or last; without it, as the model says.",
)
@click.option("--own-length", is_flag=True, help="Leave vectors as long as the model makes them, instead of 1.")
@lora_option
@click.option("--backend", metavar="NAME", callback=proper_text, help="Such as llamacpp-cpu, or cpu, cuda, metal.")
@click.option("--device", type=int, metavar="N", help="Index of the backend's device.")
@click.option("--context", type=int, metavar="N", help="Tokens of context for a new worker.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Give up when the command takes longer.")
@json_option
def embed(**options: Any) -> None:
    """Print a vector for each TEXT, or for each line of a file.

    Each is a line of JSON, in the order of the texts. A model that was not made for vectors refuses
    unless --pooling says how.
    """
    settings = load(os.environ)
    timeout_s = check_timeout(options)
    with interrupts() as signals, deadline(timeout_s, start.begun_at):
        requests = list(requests_for(options, settings))
        check = (lambda: check_backend(options["backend"])) if options["backend"] else None
        reference, vectors = requests[0].model_ref, list[list[float]]()
        with open_hive(options["node"], settings, signals, worker=not options["backend"], check=check) as hive:
            client, stays = hive.connect(), hive.mode is Mode.PERSISTENT
            wanted = wire.DownloadRequest(model_ref=reference, backend=options["backend"])
            screen = screen_for(json=options["as_json"], quiet=False)
            reference = provision(client, wanted, screen, goes_on=stays).reference
            for request in requests:
                came = client.embed(request)
                if options["as_json"]:
                    vectors += came
                else:
                    for vector in came:
                        show_json(vector)
    if options["as_json"]:
        show_json({"model": reference, "vectors": vectors})


def requests_for(options: Mapping[str, Any], settings: Settings) -> Iterator[wire.PoolEmbed]:
    """Yield the requests, checked, for `AT_ONCE` texts each."""
    texts = texts_of(options, settings.body_limit_bytes)
    for begin in range(0, len(texts), AT_ONCE):
        yield wire.build(
            wire.PoolEmbed,
            _option,
            texts=texts[begin : begin + AT_ONCE],
            pooling=options["pooling"],
            normalize=not options["own_length"],
            model_ref=model_for(options["model"], options["node"], settings),
            backend=options["backend"],
            device=options["device"],
            context_tokens=options["context"],
            timeout_s=options["timeout"],
            tuning=tuning(options),
        )


def texts_of(options: Mapping[str, Any], limit_bytes: int) -> Sequence[str]:
    """Return the texts, wherever they stand; a line that is empty is none.

    Raises `InvalidRequest`, and `PayloadTooLarge` for a file of more than so many bytes.
    """
    texts: list[str] = list(options["texts"])
    path: str | None = options["file"]
    if path is not None:
        texts += [line for line in _lines(path, limit_bytes) if line.strip()]
    if not texts:
        raise click.UsageError("There is no text: give one in quotes, or --file.")
    if not all(text.strip() for text in texts):
        raise InvalidRequest("A text is empty", hint="give at least one character")
    return texts


def _lines(path: str, limit_bytes: int) -> Sequence[str]:
    try:
        with _stdin() if path == "-" else Path(path).open("rb") as file:
            data = file.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise PayloadTooLarge(limit_bytes=limit_bytes)
        # Not str.splitlines: it would also cut a text at a form feed, or at Unicode's own ends of lines and paragraphs.
        return data.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"Invalid --file: {shorten(path)} is not UTF-8 at byte {error.start}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"Invalid --file: {shorten(path)} cannot be read: {why}") from None


def _stdin() -> contextlib.nullcontext[BinaryIO]:
    """Return what holds stdin; nothing stands there if it was closed."""
    return contextlib.nullcontext(sys.stdin.buffer if sys.stdin else io.BytesIO())


def _option(field: str) -> str:
    """Return what a field of the wire is called on the command line."""
    name = {"texts": "TEXT", "normalize": "own_length"}.get(field, FLAGS.get(field, field))
    return name if name.isupper() else f"--{name.replace('_', '-')}"
