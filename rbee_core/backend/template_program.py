"""The program that renders chat templates: a stranger's code, in a process which the system ends if it takes too long.

Reads a template from stdin, then requests, and writes an answer to each request to stdout; all of them a length and
then as many bytes. It ends with its stdin. It is run as a file, imports nothing of rbee, and finds Jinja where its
starter does.
"""

import contextlib
import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, BinaryIO, NoReturn

MEMORY_BYTES = 256 << 20
MOST_CHARACTERS = 8 << 20

JINJA = ("jinja2", "jinja2.ext", "jinja2.sandbox")
LENGTH_BYTES = 8
TEXT, REFUSED = b"T", b"R"
_NICENESS = 10  # the texts that are being generated come first


def main() -> NoReturn:
    """Answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the hive's to handle
    if not (first := _read(sys.stdin.buffer)):
        os._exit(0)
    start = json.loads(first)
    sys.path[:] = start["path"]
    gc.disable()
    for name in JINJA:  # before anything is limited
        import_module(name)
    gc.enable()
    with contextlib.suppress(OSError, ValueError):  # not every system counts it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.nice(_NICENESS)
    seconds = start["seconds"]
    template = ready(start["template"], seconds)
    while request := _read(sys.stdin.buffer):
        answer = answer_to(request, template, seconds)
        sys.stdout.buffer.write(len(answer).to_bytes(LENGTH_BYTES, "little") + answer)
        sys.stdout.buffer.flush()
    os._exit(0)


def ready(source: str, seconds: float) -> Any:
    """Return the template, or in words why it is none."""
    return _within_limits(lambda: _compiled(source), seconds)


def answer_to(request: bytes, template: Any, seconds: float) -> bytes:
    """Return a text or a refusal, with its mark in front."""
    text = template if isinstance(template, str) else _within_limits(lambda: _text(template, request), seconds)
    return text if isinstance(text, bytes) else REFUSED + text.encode(errors="replace")


def _read(stream: BinaryIO) -> bytes:
    """Return the next request, or nothing at the end."""
    length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
    return stream.read(length)


def _within_limits(work: Callable[[], Any], seconds: float) -> Any:
    """Return what `work` does, or in words why not. Where it computes for longer, the system ends the process."""
    signal.setitimer(signal.ITIMER_PROF, seconds)  # nobody handles its signal
    try:
        return work()
    except MemoryError:
        return f"it takes more than {MEMORY_BYTES >> 20} MiB of memory"
    except BaseException as error:  # noqa: BLE001  # a template may raise whatever it likes
        return str(error) or type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def _text(template: Any, request: bytes) -> bytes:
    parts, room = [TEXT], MOST_CHARACTERS
    for part in template.generate(**json.loads(request)):
        room -= len(part)
        if room < 0:
            raise ValueError(f"it writes more than {MOST_CHARACTERS} characters")
        parts.append(part.encode(errors="replace"))
    return b"".join(parts)


def _compiled(source: str) -> Any:
    """Return a template that finds what Hugging Face's own renderer offers: templates are written for that."""
    jinja, extensions, sandbox = (import_module(name) for name in JINJA)
    extension: Any = extensions.Extension

    class GenerationBlock(extension):
        """``{% generation %}`` marks for training what the assistant says; here it only has to be let through."""

        tags = {"generation"}  # noqa: RUF012  # Jinja's own way

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(why: str) -> NoReturn:
        raise jinja.TemplateError(why)

    environment: Any = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationBlock]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": time.strftime}
    return environment.from_string(source)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Not Jinja's own filter, which escapes for HTML. Only what templates use: other options of json call code."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


if __name__ == "__main__":
    main()
