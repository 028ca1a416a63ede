"""A backend that does what its model's reference says: `scripted:tokens=20;token_ms=10;crash_at_token=5:SEGV`.

A plugin like anybody's, found through PYTHONPATH. Its worker is a real process that speaks the real protocol; only
the model is missing. Words are drawn from a seeded generator, so that the same seed gives the same text.
"""

import ctypes
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType

import psutil

from rbee_core.backend import (
    Backend,
    CancelToken,
    Device,
    Embedded,
    EmbedRequest,
    Engine,
    EngineEvent,
    EngineInfo,
    Estimate,
    Finished,
    GenerateRequest,
    LoadOptions,
    LocalModel,
    ModelRef,
    ModelSource,
    Progress,
    PromptDone,
    PromptProgress,
    Token,
    hookimpl,
)
from rbee_core.errors import InvalidRequest, ModelLoadFailed, PromptTooLong

WORDS = ("bee", "hive", "comb", "wax", "nectar", "pollen", "queen", "drone", "swarm", "honey", "clover", "meadow")
STEP_S = 0.02
FOREVER_S = 3600
CARDS = "SCRIPTED_CARDS"


@dataclass(frozen=True)
class Knobs:
    """How a scripted model behaves. A flag counts as set when its value is not 0.

    `crash_at_token` is N:SIGNAL. `fork` is child or setsid. `tokens` may be inf. `text` replaces the random words.
    `estimate_until` is a file: the memory is not known before it exists, and `<file>.asked` says that it is awaited.
    Of each `guesses` + 2 tokens so many are said to have been guessed, and one more guess to have been wrong.
    `hold_gil` is how many seconds the interpreter lock is held, before the first token. At
    `half_event_at_token` the worker dies within an event that its reader has received the beginning of.
    """

    load_s: float = 0.0
    load_progress: bool = False
    load_hang: bool = False
    load_error: str = ""
    load_abort: bool = False
    exit_before_ready: int = -1
    crash_at_token: str = ""
    hang_at_token: int = -1
    half_event_at_token: int = -1
    ignore_term: bool = False
    ignore_cancel: bool = False
    ignore_shutdown: bool = False
    prefill_s: float = 0.0
    prefill_progress: bool = False
    tokens: float = 20.0
    token_ms: float = 0.0
    text: str = ""
    bad_utf8: bool = False
    spam_stderr: int = 0
    huge_line: int = 0
    fork: str = ""
    guesses: int = 0
    hold_gil: int = 0
    rss_mb: int = 0
    slots: int = 0
    need_mb: float = 1.0
    estimate_until: str = ""
    context: int = 4096


def parse(path: str) -> Knobs:
    """Read the knobs of a reference. Raises `InvalidRequest` for one that does not exist."""
    kinds = {f.name: type(f.default) for f in fields(Knobs)}
    values: dict[str, object] = {}
    for part in filter(None, path.split(";")):
        name, _, value = part.partition("=")
        if name not in kinds:
            raise InvalidRequest(f"a scripted model has no knob {name}", hint=f"knobs are: {', '.join(kinds)}")
        values[name] = value not in ("", "0") if kinds[name] is bool else kinds[name](value)
    return Knobs(**values)  # pyright: ignore[reportArgumentType]


class ScriptedSource(ModelSource):
    """Resolves every `scripted:` reference; the knobs stay in the reference."""

    schemes = frozenset({"scripted"})

    def resolve(self, reference: ModelRef, formats: Sequence[str]) -> LocalModel:
        """Return this module as the model's file."""
        del formats
        parse(reference.path)
        return LocalModel(str(reference), Path(__file__), "scripted", Path(__file__).stat().st_size)


class ScriptedBackend(Backend):
    """Runs scripts."""

    name = "scripted"
    accelerator = "cpu"
    formats = frozenset({"scripted"})
    capabilities = frozenset({"stream", "cancel", "seed", "embeddings"})

    def devices(self) -> Sequence[Device]:
        """Return the one device, or the cards that the environment gives: SCRIPTED_CARDS=300,900 is free megabytes."""
        cards = [int(free) * 1_000_000 for free in filter(None, os.environ.get(CARDS, "").split(","))]
        made = [Device(f"card:{n}", "a card", free, free, shares_host_memory=False) for n, free in enumerate(cards)]
        return made or [Device("cpu", "a script")]

    def estimate(self, model: LocalModel, options: LoadOptions) -> Estimate:
        """Return what the script claims to need."""
        knobs = parse(model.reference.partition(":")[2])
        if knobs.estimate_until:
            wait_for(Path(knobs.estimate_until))
        size = int(knobs.need_mb * 1_000_000)  # as mapped as weights are: nothing really takes it
        return Estimate(size, 0, 0, options.context_tokens or knobs.context, mapped_bytes=size)

    def load(self, model: LocalModel, device: Device, options: LoadOptions, progress: Progress) -> Engine:
        """Do what the script says about loading."""
        del device
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        knobs = parse(model.reference.partition(":")[2])
        litter(knobs)
        if knobs.ignore_term:
            ctypes.CDLL(None).signal(signal.SIGTERM, signal.SIG_IGN.value)
        wait_for_load(knobs, progress)
        if knobs.exit_before_ready >= 0:
            os._exit(knobs.exit_before_ready)
        if knobs.load_abort:
            say("scripted: the load aborts")
            os.abort()
        if knobs.load_error:
            raise ModelLoadFailed(reference=model.reference, why=knobs.load_error)
        return ScriptedEngine(knobs, options)


def say(text: str) -> None:
    """Write a line to the worker's log."""
    os.write(2, f"{text}\n".encode())


def say_half_an_event() -> None:
    """Write the beginning of an event to whoever is connected, as a chunk of HTTP."""
    half = b'data: {"token": "hal'
    for connection in psutil.Process().net_connections():
        if connection.status == psutil.CONN_ESTABLISHED:
            os.write(connection.fd, b"%x\r\n%s\r\n" % (len(half), half))


def litter(knobs: Knobs) -> None:
    """Write to stderr and start processes as the script says."""
    if knobs.bad_utf8:
        os.write(2, b"scripted: \xff\xfe\xc3\x28 \x1b[31m no text\n")
    if knobs.huge_line:
        os.write(2, b"x" * knobs.huge_line + b"\n")
    for _ in range(knobs.spam_stderr // 64):
        os.write(2, b"s" * 63 + b"\n")
    if knobs.fork:
        subprocess.Popen(
            [sys.executable, "-S", "-c", f"import time; time.sleep({FOREVER_S})"],
            start_new_session=knobs.fork == "setsid",
        )


def wait_for(file: Path) -> None:
    """Say that `file` is awaited, and return once it is there."""
    file.with_suffix(".asked").touch()
    until = time.monotonic() + FOREVER_S
    while not file.exists() and time.monotonic() < until:
        time.sleep(STEP_S)


def wait_for_load(knobs: Knobs, progress: Progress) -> None:
    """Take the time that the script says, reporting progress if it says so."""
    started = time.monotonic()
    while knobs.load_hang or time.monotonic() - started < knobs.load_s:
        time.sleep(STEP_S)
        if knobs.load_progress:
            progress((time.monotonic() - started) / max(knobs.load_s, STEP_S), "scripted")


class ScriptedEngine(Engine):
    """Generates what the script says."""

    def __init__(self, knobs: Knobs, options: LoadOptions) -> None:
        self._knobs = knobs
        self._context = options.context_tokens or knobs.context
        self._slots = min(knobs.slots or options.slots, options.slots)
        self._memory = bytearray(os.urandom(1 << 20)) * knobs.rss_mb

    def info(self) -> EngineInfo:
        """Return what was loaded."""
        return EngineInfo(context_tokens=self._context, slots=self._slots, architecture="scripted", chat_template=False)

    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        """Yield words, with whatever faults the script asks for."""
        knobs = self._knobs
        prompt_tokens = len(request.text().split())
        if prompt_tokens >= self._context:
            raise PromptTooLong(prompt_tokens=prompt_tokens, context_tokens=self._context)
        yield from self._read_prompt(prompt_tokens, cancel)
        if cancel.is_set() and not knobs.ignore_cancel:
            return
        yield PromptDone(prompt_tokens)
        if knobs.hold_gil:
            ctypes.PyDLL(None).sleep(knobs.hold_gil)
        words = self._words(request.seed)
        index = 0
        while index < knobs.tokens:
            word = next(words, "")
            if not word or not self._pause(knobs.token_ms / 1000, cancel):
                break
            self._fault(index)
            place = index % (knobs.guesses + 2) if knobs.guesses else -1
            yield Token(word, guesses=knobs.guesses + 1 if not place else 0, guessed=0 <= place < knobs.guesses)
            index += 1
        if knobs.ignore_cancel or not cancel.is_set():
            yield Finished("stop")

    def embed(self, request: EmbedRequest, cancel: CancelToken) -> Iterator[Embedded]:
        """Yield the length of each text and of its longest word, the last text first, at the pace of tokens."""
        for index, text in reversed(list(enumerate(request.texts))):
            words = text.split()
            if not self._pause(self._knobs.token_ms / 1000, cancel):
                return
            self._fault(index)
            yield Embedded(index, [float(len(text)), float(max(map(len, words), default=0))], len(words))

    def _read_prompt(self, tokens: int, cancel: CancelToken) -> Iterator[EngineEvent]:
        """Take the time that the script says, telling how far it is if it says so."""
        parts = 20 if self._knobs.prefill_progress else 1
        for part in range(parts):
            if not self._pause(self._knobs.prefill_s / parts, cancel):
                return
            if self._knobs.prefill_progress:
                yield PromptProgress(tokens * (part + 1) // parts, tokens)

    def _words(self, seed: int | None) -> Iterator[str]:
        if self._knobs.text:
            yield from (f"{word} " for word in self._knobs.text.split())
            return
        chance = random.Random(seed)
        while True:
            yield f"{chance.choice(WORDS)} "

    def _fault(self, index: int) -> None:
        knobs = self._knobs
        at, _, name = knobs.crash_at_token.partition(":")
        if at and index == int(at):
            say(f"scripted: crashing with SIG{name or 'SEGV'} at token {index}")
            os.kill(os.getpid(), signal.Signals[f"SIG{name or 'SEGV'}"])
            time.sleep(FOREVER_S)
        if index == knobs.hang_at_token:
            time.sleep(FOREVER_S)
        if index == knobs.half_event_at_token:
            say_half_an_event()
            os.kill(os.getpid(), signal.SIGKILL)

    def _pause(self, seconds: float, cancel: CancelToken) -> bool:
        """Wait; return False once cancelled, unless the script ignores that."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if cancel.is_set() and not self._knobs.ignore_cancel:
                return False
            time.sleep(min(STEP_S, left))
        return self._knobs.ignore_cancel or not cancel.is_set()

    def close(self) -> None:
        """Let the worker end, or not."""
        say("scripted: asked to stop")
        if self._knobs.ignore_shutdown:
            signal.signal(signal.SIGTERM, self._terminated)
            while True:
                signal.pause()

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        say("scripted: told to terminate")
        if not self._knobs.ignore_term:
            os._exit(0)


@hookimpl
def rbee_register_backends(register):
    """Register the backend."""
    register(ScriptedBackend())


@hookimpl
def rbee_register_model_sources(register):
    """Register the source."""
    register(ScriptedSource())
