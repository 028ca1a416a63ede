"""A backend that keeps the contract, and one for each way of breaking it: `words`, `words-ignores-cancel` …

A plugin like anybody's, found through PYTHONPATH. Its models are text files, named `words:/path`; it writes words out
of them. `FAULTS` says in words what each of the others does wrong.
"""

import ctypes
import os
import random
import signal
import subprocess
import sys
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
    "is-modest": "keeps everything, and does not declare that it keeps seeds",
}
CONTEXT = 2048
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
        self.fault = fault
        self.name = f"words-{fault}" if fault else "words"
        self.accelerator = "cuda" if fault == "falls-back" else "cpu"
        self.capabilities = frozenset({"stream", "cancel"} if fault == "is-modest" else {"stream", "cancel", "seed"})

    def devices(self) -> Sequence[Device]:
        return [Device("cuda:0" if self.accelerator == "cuda" else "cpu", "a shelf")]

    def estimate(self, model: LocalModel, options: LoadOptions) -> Estimate:
        if self.fault == "needs-nothing":
            return Estimate(0, 0, 0, options.context_tokens or CONTEXT)
        return super().estimate(model, options)

    def load(self, model: LocalModel, device: Device, options: LoadOptions, progress: Progress) -> Engine:
        if self.fault == "never-ready":
            time.sleep(FOREVER_S)
        if self.fault == "leaks-a-child":
            code = f"import time; time.sleep({FOREVER_S})"
            subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
        progress(0.5)
        return WordsEngine(self.fault, self.words(model), options.context_tokens or CONTEXT)

    def words(self, model: LocalModel) -> list[str]:
        try:
            if words := model.path.read_text(encoding="utf-8").split():
                return words
            why = "the file is empty"
        except ValueError:
            why = "the file is no text"
        if self.fault == "swallows-errors":
            return ["nothing"]
        raise ModelLoadFailed(reference=model.reference, why=why)


class WordsEngine(Engine):
    """Writes words."""

    def __init__(self, fault: str, words: list[str], context: int) -> None:
        self.fault, self.words, self.context = fault, words, context
        self.chance = random.Random()

    def info(self) -> EngineInfo:
        return EngineInfo(context_tokens=self.context, slots=2 if self.fault == "shares-chance" else 1)

    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        prompt = request.text().split()
        if len(prompt) >= self.context:
            if self.fault != "cuts-prompts":
                raise PromptTooLong(prompt_tokens=len(prompt), context_tokens=self.context)
            del prompt[self.context - 10 :]
        for _ in prompt:
            if cancel.is_set() and self.fault not in ("ignores-cancel", "reads-on"):
                return
            time.sleep(PROMPT_WORD_S)
        yield PromptDone(len(prompt))
        left = self.context - len(prompt)
        tokens = self.tokens(request, min(left, request.max_tokens or left), cancel)
        yield from list(tokens) if self.fault == "holds-back" else tokens
        if self.fault == "ignores-cancel" or not cancel.is_set():
            yield Finished("length")

    def tokens(self, request: GenerateRequest, count: int, cancel: CancelToken) -> Iterator[EngineEvent]:
        chance = self.chance if self.fault == "shares-chance" else random.Random()
        chance.seed(self.seed(request))
        for _ in range(count - 1 if self.fault == "ends-early" else count):
            if cancel.is_set() and self.fault != "ignores-cancel":
                return
            time.sleep(TOKEN_S)
            word = f" {chance.choice(self.words)}"
            if self.fault == "yields-pairs":
                yield Token(word + f" {chance.choice(self.words)}")
            elif self.fault == "splits-characters":
                raw = word.encode()
                yield from (Token(raw[at : at + 2].decode(errors="replace")) for at in range(0, len(raw), 2))
            else:
                yield Token(word)

    def seed(self, request: GenerateRequest) -> int | None:
        if self.fault == "ignores-seed":
            return None if request.temperature else 0
        return request.seed if request.temperature else 0

    def close(self) -> None:
        if self.fault == "dies-on-stop":
            os._exit(3)
        if self.fault == "never-stops":
            ctypes.CDLL(None).signal(signal.SIGTERM, signal.SIG_IGN.value)
            time.sleep(FOREVER_S)


@hookimpl
def rbee_register_backends(register):
    for fault in ("", *FAULTS):
        register(WordsBackend(fault))


@hookimpl
def rbee_register_model_sources(register):
    register(WordsSource())
