"""A backend that keeps the contract, and one for each way of breaking it: `words`, `words-ignores-cancel` …,
and for some ways together that do not touch each other.

A plugin like anybody's, found through PYTHONPATH. Its models are text files, named `words:/path`; it writes words out
of them. `FAULTS` says in words what each of the others does wrong.
"""

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rbee_core.backend import (
    Backend,
    CancelToken,
    Device,
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
    Token,
    hookimpl,
)
from rbee_core.errors import ModelLoadFailed, ModelNotFound, PromptTooLong

FAULTS = {
    "ignores-cancel": "goes on when nobody waits",
    "reads-on": "reads the prompt to its end, whoever has gone",
    "ignores-seed": "declares seed and draws as it likes",
    "shares-chance": "writes two texts at a time from one random state, which each seeds for itself",
    "leaks-a-child": "starts a process of its own session and forgets it",
    "dies-on-stop": "exits with 3 when it is stopped",
    "never-stops": "neither answers nor ends when it is stopped",
    "splits-characters": "yields bytes as they come, replaced where they are half a character",
    "yields-pairs": "puts two words into each token",
    "ends-early": "says that the length is reached one token before it is",
    "never-ready": "loads for ever, in silence",
    "swallows-errors": "loads whatever it is given",
    "falls-back": "is asked for CUDA and loads on the CPU",
    "needs-nothing": "says that no model takes any memory",
    "holds-back": "declares stream and yields everything at the end",
    "cuts-prompts": "reads as much of a prompt as fits, without a word",
    "forgets-seed-0": "takes seed 0 for none",
    "hashes-seeds": "draws from a number that each process makes anew out of the seed",
    "is-spoilt": "begins the text after a cancelled one where that one was",
    "is-moody": "draws at temperature 0 too",
    "ends-in-silence": "yields no Finished where the context is full",
    "stops-at-the-brim": "says stop where the context is full",
    "counts-three-more": "says that a prompt has three tokens more than it has",
    "counts-pieces": "says of each piece of a prompt how many tokens it has",
    "counts-nothing": "does not say how many tokens a prompt has",
    "swaps-numbers": "refuses a prompt with the two numbers the wrong way round",
    "stumbles": "raises an error of its own in the middle of a text",
    "fails-to-close": "raises an error when it is closed",
    "mixes-texts": "writes several texts at a time from one random state",
    "stops-all": "ends all texts when one is cancelled",
    "keeps-slots": "lets a cancelled text hold its slot",
    "reads-alone": "writes nothing while it reads a prompt",
    "is-modest": "keeps everything, and does not declare that it keeps seeds",
}
CONTEXT = 2048
BATCHING = frozenset({"shares-chance", "mixes-texts", "stops-all", "keeps-slots", "reads-alone"})
SOME_TOGETHER = (
    "mixes-texts--reads-alone",
    "forgets-seed-0--is-spoilt--ends-in-silence",
    "hashes-seeds--is-moody--stops-at-the-brim",
)
TOKEN_S = 0.01
PROMPT_WORD_S = 0.002
FOREVER_S = 3600


class WordsSource(ModelSource):
    """Resolves `words:/path`."""

    schemes = frozenset({"words"})

    def resolve(self, reference: ModelRef, formats: Sequence[str]) -> LocalModel:
        path = Path(reference.path)
        if not path.is_file():
            raise ModelNotFound(reference=str(reference), why=f"there is no file {path}")
        return LocalModel(str(reference), path, "words", path.stat().st_size)


class WordsBackend(Backend):
    """A backend with one fault, or with none."""

    formats = frozenset({"words"})

    def __init__(self, fault: str = "") -> None:
        self.faults = frozenset(fault.split("--"))
        self.name = f"words-{fault}" if fault else "words"
        self.accelerator = "cuda" if fault == "falls-back" else "cpu"
        self.capabilities = frozenset({"stream", "cancel"} if fault == "is-modest" else {"stream", "cancel", "seed"})
        if self.faults & BATCHING - {"shares-chance"}:
            self.capabilities |= {"batching"}

    def devices(self) -> Sequence[Device]:
        return [Device("cuda:0" if self.accelerator == "cuda" else "cpu", "a shelf")]

    def estimate(self, model: LocalModel, options: LoadOptions) -> Estimate:
        if "needs-nothing" in self.faults:
            return Estimate(0, 0, 0, options.context_tokens or CONTEXT)
        return super().estimate(model, options)

    def load(self, model: LocalModel, device: Device, options: LoadOptions, progress: Progress) -> Engine:
        if "never-ready" in self.faults:
            time.sleep(FOREVER_S)
        if "leaks-a-child" in self.faults:
            code = f"import time; time.sleep({FOREVER_S})"
            subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
        progress(0.5)
        return WordsEngine(self.faults, self.words(model), options.context_tokens or CONTEXT)

    def words(self, model: LocalModel) -> list[str]:
        try:
            if words := model.path.read_text(encoding="utf-8").split():
                return words
            why = "the file is empty"
        except ValueError:
            why = "the file is no text"
        if "swallows-errors" in self.faults:
            return ["nothing"]
        raise ModelLoadFailed(reference=model.reference, why=why)


class WordsEngine(Engine):
    """Writes words."""

    def __init__(self, faults: frozenset[str], words: list[str], context: int) -> None:
        self.faults, self.words, self.context = faults, words, context
        self.chance = random.Random()
        self.desk = threading.Lock()
        self.spoilt, self.stopped = False, threading.Event()

    def info(self) -> EngineInfo:
        return EngineInfo(context_tokens=self.context, slots=4 if self.faults & BATCHING else 1)

    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        prompt = request.text().split()
        if len(prompt) >= self.context:
            if "cuts-prompts" not in self.faults:
                raise self.too_long(len(prompt))
            del prompt[self.context - 10 :]
        with self.desk if "reads-alone" in self.faults else contextlib.nullcontext():
            for _ in prompt:
                if cancel.is_set() and not self.faults & {"ignores-cancel", "reads-on"}:
                    return
                time.sleep(PROMPT_WORD_S)
        yield from self.counted(len(prompt))
        left = self.context - len(prompt)
        tokens = self.tokens(request, min(left, request.max_tokens or left), cancel)
        yield from list(tokens) if "holds-back" in self.faults else tokens
        if "ignores-cancel" in self.faults or not cancel.is_set():
            yield from self.last_word(full=left <= (request.max_tokens or left))

    def too_long(self, tokens: int) -> PromptTooLong:
        numbers = (self.context, tokens) if "swaps-numbers" in self.faults else (tokens, self.context)
        return PromptTooLong(prompt_tokens=numbers[0], context_tokens=numbers[1])

    def counted(self, tokens: int) -> Iterator[EngineEvent]:
        if "counts-pieces" in self.faults:
            yield PromptDone(tokens // 2)
            yield PromptDone(tokens - tokens // 2)
        elif "counts-nothing" not in self.faults:
            yield PromptDone(tokens + 3 * ("counts-three-more" in self.faults))

    def last_word(self, *, full: bool) -> Iterator[EngineEvent]:
        if full and "stops-at-the-brim" in self.faults:
            yield Finished("stop")
        elif not (full and "ends-in-silence" in self.faults):
            yield Finished("length")

    def tokens(self, request: GenerateRequest, count: int, cancel: CancelToken) -> Iterator[EngineEvent]:
        chance = self.chance if self.faults & {"shares-chance", "mixes-texts"} else random.Random()
        chance.seed(self.seed(request))
        if self.spoilt:
            self.spoilt = False
            chance.random()
        for number in range(count - 1 if "ends-early" in self.faults else count):
            if cancel.is_set() and "ignores-cancel" not in self.faults:
                self.left()
                return
            if self.stopped.is_set():
                return
            with self.desk if "reads-alone" in self.faults else contextlib.nullcontext():
                time.sleep(TOKEN_S)
            if number == 2 and "stumbles" in self.faults:
                self.stumble()
            word = f" {chance.choice(self.words)}"
            if "yields-pairs" in self.faults:
                yield Token(word + f" {chance.choice(self.words)}")
            elif "splits-characters" in self.faults:
                raw = word.encode()
                yield from (Token(raw[at : at + 2].decode(errors="replace")) for at in range(0, len(raw), 2))
            else:
                yield Token(word)

    def left(self) -> None:
        self.spoilt = "is-spoilt" in self.faults
        if "stops-all" in self.faults:
            self.stopped.set()
        if "keeps-slots" in self.faults:
            time.sleep(FOREVER_S)

    def stumble(self) -> None:
        raise KeyError("the key of this plugin")

    def seed(self, request: GenerateRequest) -> int | None:
        if not request.temperature:
            return None if "is-moody" in self.faults else 0
        if "ignores-seed" in self.faults:
            return None
        if "hashes-seeds" in self.faults:
            return hash(str(request.seed))
        return request.seed or None if "forgets-seed-0" in self.faults else request.seed

    def close(self) -> None:
        if "fails-to-close" in self.faults:
            raise OSError("the shelf is locked")
        if "dies-on-stop" in self.faults:
            os._exit(3)
        if "never-stops" in self.faults:
            ctypes.CDLL(None).signal(signal.SIGTERM, signal.SIG_IGN.value)
            time.sleep(FOREVER_S)


@hookimpl
def rbee_register_backends(register):
    for fault in ("", *FAULTS, *SOME_TOGETHER):
        register(WordsBackend(fault))


@hookimpl
def rbee_register_model_sources(register):
    register(WordsSource())
