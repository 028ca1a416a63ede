"""A backend that keeps the contract, and one for each way of breaking it: `words`, `words-ignores-cancel` …,
and for some ways together that do not touch each other.

A plugin like anybody's, found through PYTHONPATH. Its models are text files, named `words:/path`; it writes words out
of them, and what is to be known for that stands in `rbee_words_model`; what each of the others does wrong, in
`rbee_words_faults`.
"""

import contextlib
import ctypes
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import rbee_words_model as model
from msgspec.structs import replace
from rbee_words_faults import FAULTS, SOME_TOGETHER

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
    Ranked,
    RerankRequest,
    Token,
    TokenLogprob,
    hookimpl,
)
from rbee_core.backend.templates import ChatTemplate
from rbee_core.errors import InvalidRequest, ModelLoadFailed, ModelNotFound, PromptTooLong

CONTEXT = 2048
BATCHING = frozenset({"shares-chance", "mixes-texts", "stops-all", "keeps-slots", "reads-alone"})
CAPABILITIES = frozenset(
    {
        *("stream", "cancel", "seed", "logprobs", "grammar", "json_schema", "embeddings", "rerank"),
        *("chat", "chat_template", "tools", "infill", "speculation", "cache_types", "flash_attention", "lora"),
    }
)
OBEYS = frozenset(
    {
        *("frequency_penalty", "presence_penalty", "penalty_window", "logit_bias"),
        *("top_n_sigma", "min_tokens", "ignore_eos"),
    }
)
TEMPLATE = (
    "{% for tool in tools or () %}{{ tool.function.name }} {{ tool.function.description }} {% endfor %}"
    "{% for turn in messages %}{{ turn.role }}: {{ turn.content }} {% endfor %}"
)
GREETING = "hi."
ANSWER_WORDS = 4
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
        self.faults = frozenset(SOME_TOGETHER.get(fault, (fault,)))
        self.name = f"words-{fault}" if fault else "words"
        self.accelerator = "cuda" if fault == "falls-back" else "cpu"
        self.capabilities = CAPABILITIES - {"seed"} if fault == "is-modest" else CAPABILITIES
        self.obeys = OBEYS
        if self.faults & BATCHING - {"shares-chance"}:
            self.capabilities |= {"batching"}

    def devices(self) -> Sequence[Device]:
        return [Device("cuda:0" if self.accelerator == "cuda" else "cpu", "a shelf")]

    def estimate(self, model: LocalModel, options: LoadOptions) -> Estimate:
        context = options.context_tokens or CONTEXT
        if "needs-nothing" in self.faults:
            return Estimate(0, 0, 0, context)
        small = options.tuning.cache_type_k == "q8_0" and "reckons-in-16-bits" not in self.faults
        return Estimate(model.size_bytes, context * (1 if small else 2), 0, context)

    def load(self, model: LocalModel, device: Device, options: LoadOptions, progress: Progress) -> Engine:
        if "never-ready" in self.faults:
            time.sleep(FOREVER_S)
        if "leaks-a-child" in self.faults:
            code = f"import time; time.sleep({FOREVER_S})"
            subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
        progress(0.5)
        for adapter in options.tuning.lora if "takes-any-adapter" not in self.faults else ():
            raise ModelLoadFailed(reference=model.reference, why=f"{adapter.path} is no adapter")
        if options.tuning.flash_attention and "stumbles-in-a-flash" in self.faults:
            raise KeyError("flash")
        return WordsEngine(self.faults, self.words(model), options)

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

    def __init__(self, faults: frozenset[str], words: list[str], options: LoadOptions) -> None:
        self.faults, self.words, self.context = faults, words, options.context_tokens or CONTEXT
        self.guesses = options.tuning.speculation != "off"
        given = options.tuning.chat_template if "likes-its-own" not in self.faults else None
        self.chat = ChatTemplate(given or TEMPLATE)
        self.chance = random.Random()
        self.desk = threading.Lock()
        self.kept: list[str] = []
        self.spoilt, self.stopped = False, threading.Event()

    def info(self) -> EngineInfo:
        return EngineInfo(self.context, slots=4 if self.faults & BATCHING else 1, chat_template=True)

    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        form = self.form(request)
        prompt = self.prompt(request, cancel).split()
        if len(prompt) >= self.context:
            if "cuts-prompts" not in self.faults:
                raise self.too_long(len(prompt))
            del prompt[self.context - 10 :]
        kept = self.keep(prompt) if request.reuse_prompt else 0
        with self.desk if "reads-alone" in self.faults else contextlib.nullcontext():
            for _ in prompt[kept:]:
                if cancel.is_set() and not self.faults & {"ignores-cancel", "reads-on"}:
                    return
                time.sleep(PROMPT_WORD_S)
        self.kept = prompt
        yield from self.counted(len(prompt), kept)
        if form:
            yield from (Token(character) for character in form)
            yield Finished("stop")
            return
        left = self.context - len(prompt)
        most = min(left, request.max_tokens or left)
        if ends := self.ends(request, prompt):
            most = min(most, ends)
        tokens = self.tokens(request, most, cancel, spoilt=kept > 0 and "remembers-wrongly" in self.faults)
        yield from list(tokens) if "holds-back" in self.faults else tokens
        if "ignores-cancel" in self.faults or not cancel.is_set():
            yield from [Finished("stop")] if most == ends else self.last_word(full=left <= (request.max_tokens or left))

    def prompt(self, request: GenerateRequest, cancel: CancelToken) -> str:
        """Return what is read: a prompt, the text behind its gap, or a conversation as the template writes it."""
        if request.prompt is not None:
            behind = request.suffix if "looks-ahead-only" not in self.faults else None
            return f"{request.prompt} {behind or ''}"
        tools = request.tools if "keeps-tools-secret" not in self.faults else ()
        messages = request.messages
        if "forgets-results" in self.faults:
            messages = tuple(turn for turn in messages if turn.role != "tool")
        try:
            return self.chat.render(messages, {}, cancel, tools=tools, arguments=request.template_arguments)
        except InvalidRequest as error:
            if "stumbles-over-templates" in self.faults:
                raise KeyError("a template") from error
            raise

    def form(self, request: GenerateRequest) -> str:
        """Return the text of the form that is asked for, "" for none."""
        if ("writes-as-it-likes" in self.faults and request.json_schema is None) or (
            "tools-without-form" in self.faults and request.tools
        ):
            return ""
        try:
            text = model.formed(request, random.Random(request.seed))
        except InvalidRequest:
            if "stumbles-over-forms" in self.faults:
                self.stumble()
            raise
        return text[:-1] if "cuts-forms" in self.faults else text

    def keep(self, prompt: list[str]) -> int:
        """Return how many words of `prompt` the last one began with too."""
        pairs = zip(prompt, self.kept, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    def ends(self, request: GenerateRequest, prompt: list[str]) -> int | None:
        """Return after how many words a text comes to its end, None for never."""
        if prompt[-1:] != [GREETING] or (request.ignore_eos and "ends-after-all" not in self.faults):
            return None
        return ANSWER_WORDS if "ends-anyway" in self.faults else max(ANSWER_WORDS, request.min_tokens)

    def too_long(self, tokens: int) -> PromptTooLong:
        numbers = (self.context, tokens) if "swaps-numbers" in self.faults else (tokens, self.context)
        return PromptTooLong(prompt_tokens=numbers[0], context_tokens=numbers[1])

    def counted(self, tokens: int, kept: int) -> Iterator[EngineEvent]:
        if "counts-pieces" in self.faults:
            yield PromptDone(tokens // 2)
            yield PromptDone(tokens - tokens // 2)
        elif "hides-kept" in self.faults:
            yield PromptDone(tokens - kept)
        elif "counts-nothing" not in self.faults:
            yield PromptDone(
                tokens + 3 * ("counts-three-more" in self.faults), tokens if "says-kept" in self.faults else kept
            )

    def last_word(self, *, full: bool) -> Iterator[EngineEvent]:
        if full and "stops-at-the-brim" in self.faults:
            yield Finished("stop")
        elif not (full and "ends-in-silence" in self.faults):
            yield Finished("length")

    def tokens(
        self, request: GenerateRequest, count: int, cancel: CancelToken, *, spoilt: bool
    ) -> Iterator[EngineEvent]:
        chance = self.chance if self.faults & {"shares-chance", "mixes-texts"} else random.Random()
        chance.seed(self.seed(request))
        previous, self.spoilt = int(spoilt or self.spoilt), False
        written: list[int] = []
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
            logits = model.likelihoods(previous, len(self.words))
            previous = self.choose(logits, request, written, chance)
            guessed = self.guesses and number % 2 > 0
            if guessed and "guesses-for-good" in self.faults:
                previous = (previous + 1) % len(self.words)
            written.append(previous)
            word = f" {self.words[previous]}"
            if "yields-pairs" in self.faults:
                yield Token(word * 2)
            elif "splits-characters" in self.faults:
                raw = word.encode()
                yield from (Token(raw[at : at + 2].decode(errors="replace")) for at in range(0, len(raw), 2))
            elif request.logprobs is None:
                made = self.guesses and not guessed and "hides-guesses" not in self.faults
                yield Token(word, guesses=int(made), guessed=guessed)
            else:
                yield self.likely(word, previous, logits, request.logprobs)

    def choose(self, logits: list[float], request: GenerateRequest, written: list[int], chance: random.Random) -> int:
        """Return the number of the next word."""
        wanted = request
        if "penalises-nobody" in self.faults:
            wanted = replace(wanted, frequency_penalty=0.0, presence_penalty=0.0)
        if "forgets-bias" in self.faults:
            wanted = replace(wanted, logit_bias={})
        if "likes-others" in self.faults and request.top_n_sigma:
            logits = [-logit for logit in logits]
        greedy = not request.temperature and "is-moody" not in self.faults
        return model.chosen(model.changed(logits, wanted, written), wanted, None if greedy else chance)

    def likely(self, word: str, number: int, logits: list[float], count: int) -> Token:
        """Return the token with its likelihood, and those of the `count` likeliest ones."""
        said = logits if "says-logits" in self.faults else model.logarithms(logits)
        every = [TokenLogprob(n, f" {self.words[n]}".encode(), logprob) for n, logprob in enumerate(said)]
        top = sorted(every, key=lambda one: -one.logprob)[: count - ("names-too-few" in self.faults and count > 0)]
        came = number + 1 if "names-others" in self.faults else number
        return Token(word, every[came % len(every)], tuple(top))

    def embed(self, request: EmbedRequest, cancel: CancelToken) -> Iterator[Embedded]:
        pooling = None if "pools-as-it-likes" in self.faults else request.pooling
        rows = [model.vector(text, pooling) for text in request.texts]
        if "lets-others-count" in self.faults:
            rows = [[value + len(rows) * place for place, value in enumerate(row)] for row in rows]
        if request.normalize and "forgets-to-normalise" not in self.faults:
            rows = list(map(model.unit, rows))
        if "mixes-vectors" in self.faults:
            rows.reverse()
        for index, (text, row) in enumerate(zip(request.texts, rows, strict=True)):
            yield Embedded(index, row, len(text.split()))

    def rerank(self, request: RerankRequest, cancel: CancelToken) -> Iterator[Ranked]:
        for index, document in enumerate(request.documents):
            place = float(index) if "scores-by-place" in self.faults else 0.0
            yield Ranked(index, model.score(request.query, document) + place, len(document.split()))

    def left(self) -> None:
        self.spoilt = "is-spoilt" in self.faults
        if "stops-all" in self.faults:
            self.stopped.set()
        if "keeps-slots" in self.faults:
            time.sleep(FOREVER_S)

    def stumble(self) -> None:
        raise KeyError("the key of this plugin")

    def seed(self, request: GenerateRequest) -> int | None:
        if "ignores-seed" in self.faults or not request.temperature:
            return None
        if "hashes-seeds" in self.faults:
            return hash(str(request.seed))
        return request.seed or None if "forgets-seed-0" in self.faults else request.seed

    def close(self) -> None:
        self.chat.close()
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
