"""From the options of `rbee infer` to the two requests it makes, checked before anything starts."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click

from rbee_core import wire
from rbee_core.domain import model_ref
from rbee_core.errors import InvalidRequest, PayloadTooLarge, shorten
from rbee_core.keeper.choosing_options import choosing, spelled
from rbee_core.keeper.hives import address
from rbee_core.keeper.tuning_options import tuning
from rbee_core.settings import Settings

# Where a field of the wire has another name on the command line.
FLAGS = {
    "timeout_s": "timeout",
    "context_tokens": "context",
    "model_ref": "model",
    "messages": "prompt",
    "tuning": "lora",
}


def build_spawn(options: Mapping[str, Any], settings: Settings) -> wire.SpawnRequest:
    """Return the request for a worker."""
    return wire.build(
        wire.SpawnRequest,
        _option,
        model_ref=model_for(options["model"], options["node"], settings),
        backend=options["backend"],
        device=options["device"],
        context_tokens=options["context"],
        slots=options["slots"],
        tuning=tuning(options),
    )


def check_timeout(options: Mapping[str, Any]) -> float | None:
    """Return how many seconds the command may take, before anything is waited for."""
    return wire.build(wire.InferenceRequest, _option, prompt="x", timeout_s=options["timeout"]).timeout_s


def build_inference(options: Mapping[str, Any], settings: Settings) -> wire.InferenceRequest:
    """Return the request for its text, reading the prompt from stdin if that is where it is.

    A prompt is answered where the model has a chat template; ``--chat`` and a system message insist on one, and with
    ``--raw`` it is continued.
    """
    system: str | None = options["system"]
    insists = options["chat"] or system is not None
    if insists and options["raw"]:
        raise click.UsageError("--raw continues a text, which --chat and --system do not: give one of them.")
    text = check_text(_prompt(options, settings), "prompt")
    fields: dict[str, Any] = {"prompt": text}
    if insists:
        if not text.strip():
            raise InvalidRequest("Invalid request: the prompt is empty", hint="give --prompt TEXT")
        turns = [] if system is None else [{"role": "system", "content": check_text(system, "system")}]
        fields = {"messages": [*turns, {"role": "user", "content": text}]}
    fields["chat_template"] = "required" if insists else None if options["raw"] else "if_any"
    stops = [check_text(stop, "stop") for stop in options["stop"]]
    fields |= choosing(options)
    request = wire.build(wire.InferenceRequest, _option, **fields, stop=stops, timeout_s=options["timeout"])
    if request.logprobs is not None and not options["as_json"]:
        raise click.UsageError("--logprobs has no place in plain text: give --json too.")
    return request


def _prompt(options: Mapping[str, Any], settings: Settings) -> str:
    """Return the prompt, wherever it stands on the command line, or from stdin."""
    words: tuple[str, ...] = options["text"]
    if len(words) > 1:
        raise click.UsageError("A prompt of several words is one argument: put it in quotes.")
    given = [*words, *([] if options["prompt"] is None else [options["prompt"]])]
    if len(given) > 1:
        raise click.UsageError("There are two prompts: give one, with or without --prompt.")
    if given and given != ["-"]:
        return given[0]
    return read_prompt(sys.stdin.buffer if sys.stdin else None, settings.body_limit_bytes, forced=bool(given))


def model_for(text: str, node: str, settings: Settings) -> str:
    """Return the model as it is sent to the hive of `node`, which knows what it means: what was typed, aliases too.

    A path is made absolute here, where it means something. Raises `InvalidRequest` for one that would mean nothing on
    another machine, and for what can be no reference.
    """
    if check_text(text, "model") in settings.models:
        return text
    if not address.is_here(node):
        if model_ref.is_path(text) and not Path(text.removeprefix("file:")).is_absolute():
            hint = f"give the absolute path that it has on {node}"
            raise InvalidRequest(f"The path {shorten(text)} means nothing on {node}", hint=hint)
        return text  # it may be an alias of the node's
    reference = _reference(text)
    if reference.scheme != "file":
        return text
    try:
        path = Path(reference.path).expanduser()
    except RuntimeError as error:
        raise InvalidRequest.bad_reference(text, "there is no such home folder") from error
    return f"file:{os.path.abspath(path)}"  # noqa: PTH100  # keeps symbolic links


def _reference(text: str) -> model_ref.ModelRef:
    """Parse it. A word that means nothing else may be a folder's name: then nobody has to write ``./``."""
    try:
        return model_ref.parse(text)
    except InvalidRequest:
        if "/" in text or not os.path.isdir(text):  # noqa: PTH112  # False for what can be no path, too
            raise
        return model_ref.parse(f"./{text}")


def read_prompt(stream: BinaryIO | None, limit_bytes: int, *, forced: bool) -> str:
    """Read a prompt from stdin, unless a person sits there and did not ask for it."""
    if stream is None or (stream.isatty() and not forced):
        raise click.UsageError("There is no prompt: give one in quotes, or pipe one in.")
    data = stream.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise PayloadTooLarge(limit_bytes=limit_bytes)
    try:
        return data.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The prompt on stdin is not UTF-8: {error.reason} at byte {error.start}") from None


def check_backend(name: str) -> None:
    """Raise unless a backend of that name can run on this machine."""
    from rbee_core.backend.manager import PluginHost  # costs a start without --backend nothing

    PluginHost(os.environ).choose(name, None)


def check_text(text: str, option: str) -> str:
    """Return `text` if it is proper text: bytes of the command line that are no UTF-8 cannot travel."""
    try:
        (text or "").encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest(f"Invalid --{option}: it is not valid UTF-8") from None
    return text


def proper_text(_: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Return the text, or texts, of an option or argument unless one is no proper text. A callback of Click's."""
    texts: tuple[str, ...] = value if parameter.nargs != 1 else (value,)
    for text in texts:
        check_text(text, (parameter.name or "").removesuffix("_ids"))
    return value


def _option(field: str) -> str:
    """Return what a field of the wire is called on the command line."""
    return spelled(FLAGS.get(field, field))
