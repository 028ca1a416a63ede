"""Turns a conversation into the prompt text that a model was trained on, with the template from its files.

A template is a stranger's program. It runs in Jinja's sandbox, and that in a process of its own, which the system ends
when it takes too long or too much: in a thread nothing could end it, and while it writes one number of a thousand
million digits, no other thread of Python would get on.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from rbee_core.backend.generation import CancelToken
from rbee_core.backend.talk import Message, Style, Tool, gentler, offers, style_of, turns
from rbee_core.backend.template_program import LENGTH_BYTES, TEXT
from rbee_core.errors import InvalidRequest, Overloaded, ShuttingDown, shorten
from rbee_core.titles import named

SECONDS = 2.0
"""Of computing, for one text, and for making the template ready."""
PATIENCE_S = 30.0
"""For an answer, whatever else runs on the machine; what is limited in the process is its own computing."""
_LOOK_S = 0.1
_EXIT_S = 5.0  # for a process that has closed its pipe
_PROGRAM = Path(__file__).with_name("template_program.py")

_NONE = "send a plain prompt, or use a model that was trained for conversations"
_TURNS = "many templates want user and assistant in turns, and some no system message; `--raw` needs none"
_DAMAGED = "`--raw` needs no template; or get the model from somewhere else"


class ChatTemplate:
    """A model's chat template, "" if it has none. Any thread may call it; texts are made one after another.

    Its process is started at once, and anew when it had to be ended.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._turn = threading.Lock()
        self._closed = False
        self._program: _Program | None = None
        if source:
            with suppress(OSError):  # who asks is told
                self._program = _Program(source)

    def style(self, prompt: str, tools: Sequence[Tool]) -> Style:
        """Return how the answer to a `prompt` that was rendered here will be written."""
        return style_of(self._source, prompt, tools=bool(tools))

    def render(
        self,
        messages: Sequence[Message],
        variables: Mapping[str, Any],
        cancel: CancelToken,
        *,
        tools: Sequence[Tool] = (),
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the prompt for `messages`, ending where the assistant begins to speak; "" once cancelled.

        `variables` are what the template finds beside them, such as ``bos_token``, and `arguments` what the request
        wants it to find. A template that refuses the messages is told the same in gentler ways. Raises `InvalidRequest`
        if the model has no template, and if that refuses all of them, takes too long or too much;
        `ShuttingDown` once it is closed.
        """
        if not self._source:
            raise InvalidRequest("This model has no chat template, so it cannot answer messages", hint=_NONE)
        given: dict[str, Any] = {
            **(arguments or {}),
            "add_generation_prompt": True,
            "tools": offers(tools),  # templates ask `is not none`, which what is missing is not
            "documents": None,
            **variables,
        }
        told, refusal = turns(messages, tools, self._source), ""
        for way in chain([told], gentler(told)):
            with self._has_turn(cancel) as has_it:
                answer = self._asked(_request({**given, "messages": way}), cancel) if has_it else b""
            text = answer[1:].decode(errors="replace")
            if answer[:1] in (TEXT, b""):
                return text
            refusal = refusal or text
        raise InvalidRequest(f"The model's chat template refused the messages: {shorten(refusal)}", hint=_TURNS)

    def close(self) -> None:
        """End its process at once, whatever it is at; who waits for a text is told. Harmless when done twice."""
        self._closed = True  # from now on nobody starts one that is not ended below
        if program := self._program:
            program.kill()
        with self._turn:
            self._end(0.0)

    @contextmanager
    def _has_turn(self, cancel: CancelToken) -> Generator[bool]:
        """Wait for the process as long as somebody waits for what comes of it; whether it is ours."""
        has_it = False
        while not (has_it or cancel.is_set()):
            has_it = self._turn.acquire(timeout=_LOOK_S)
        try:
            yield has_it
        finally:
            if has_it:
                self._turn.release()

    def _asked(self, request: bytes, cancel: CancelToken) -> bytes:
        """Return the answer to `request`; nothing once cancelled."""
        try:
            program = self._program = self._program or _Program(self._source)
            answer = b"" if self._closed else program.ask(request, cancel)
        except OSError as error:
            raise Overloaded.by_system(error) from error
        if answer:
            return answer
        if self._closed:
            self._end(0.0)
            raise ShuttingDown(who="worker")
        how = self._end(_EXIT_S if answer == b"" else 0.0)
        if cancel.is_set():
            return b""
        why = f"its process ended with {how}"
        if answer is None or how == -signal.SIGPROF:
            limit = f"{PATIENCE_S:g} s" if answer is None else f"{SECONDS:g} s of computing"
            why = f"it did not come to an end within {limit}"
        raise InvalidRequest(f"The model's chat template was given up: {why}", hint=_DAMAGED)

    def _end(self, patience_s: float) -> int:
        """End the process, if there is one, which may take so long to end by itself; return its exit code."""
        program, self._program = self._program, None
        return program.end(patience_s) if program else 0


class _Program:
    """The process. One thread at a time."""

    def __init__(self, source: str) -> None:
        argv = [sys.executable, *named("llm-template-rbee"), "-I", "-S", str(_PROGRAM)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._finalizer = weakref.finalize(self, _end, self._process)  # however it is let go of
        pipes = self._process.stdin, self._process.stdout
        self._to, self._from = (pipe.fileno() for pipe in pipes if pipe)
        os.set_blocking(self._to, False)
        start = {"path": [place for place in sys.path if place], "template": source, "seconds": SECONDS}
        self._unsent = b""
        self._send(json.dumps(start).encode())

    def ask(self, request: bytes, cancel: CancelToken) -> bytes | None:
        """Return the answer; nothing from a process that ended, None if it takes too long or nobody waits any more."""
        self._send(request)
        answer, until = bytearray(), time.monotonic() + PATIENCE_S
        ready = select.poll()
        ready.register(self._from, select.POLLIN)
        ready.register(self._to, select.POLLOUT)
        while not _is_whole(answer):
            if cancel.is_set() or time.monotonic() > until:
                return None
            for pipe, _ in ready.poll(_LOOK_S * 1000):
                if pipe == self._to:
                    self._send(b"")
                    if not self._unsent:
                        ready.unregister(pipe)
                elif part := os.read(pipe, 1 << 20):
                    answer += part
                else:
                    return b""
        return bytes(answer[LENGTH_BYTES:])

    def kill(self) -> None:
        """Make its process end, from any thread: who asks it finds its pipe closed."""
        self._process.kill()

    def end(self, patience_s: float) -> int:
        """End the process, which may take so long to end by itself; return its exit code."""
        self._finalizer.detach()
        return _end(self._process, patience_s)

    def _send(self, message: bytes) -> None:
        """Send `message`, if it is one, behind what could not be sent so far; as much as there is room for."""
        frame = len(message).to_bytes(LENGTH_BYTES, "little") + message if message else b""
        self._unsent += frame
        try:
            self._unsent = self._unsent[os.write(self._to, self._unsent) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it ended, which is seen when its answer is read
            self._unsent = b""


def _request(given: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(given).encode()
    except RecursionError:
        raise InvalidRequest("The messages are nested too deep for a chat template") from None


def _is_whole(answer: bytearray) -> bool:
    return len(answer) >= LENGTH_BYTES + int.from_bytes(answer[:LENGTH_BYTES], "little")


def _end(process: "subprocess.Popen[bytes]", patience_s: float = 0.0) -> int:
    try:
        return process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
