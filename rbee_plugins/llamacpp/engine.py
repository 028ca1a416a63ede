"""The face of a loaded llama.cpp model: requests in, text out, in any number of threads.

Owns what is done for one request beside the computing: its prompt, its limits, whole characters. The computing of all
of them is the loop's. Device choice arrives in `EngineSettings`, so that every llama.cpp backend shares this engine.
"""

import codecs
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from rbee_core.backend import (
    CancelToken,
    Embedded,
    EmbedRequest,
    Engine,
    EngineEvent,
    EngineInfo,
    Finished,
    GenerateRequest,
    LocalModel,
    OnDisk,
    Progress,
    PromptDone,
    PromptProgress,
    Ranked,
    RerankRequest,
    Style,
    Token,
    Tuning,
)
from rbee_core.backend.gguf import GgufHeader
from rbee_core.backend.templates import ChatTemplate
from rbee_core.errors import InvalidRequest, ModelLoadFailed, PromptTooLong, shorten
from rbee_plugins.llamacpp import fill_in, memory, native
from rbee_plugins.llamacpp.choosing import Samplers
from rbee_plugins.llamacpp.embedding import Embedder
from rbee_plugins.llamacpp.jobs import Event, Job, Made, Read, Ready
from rbee_plugins.llamacpp.loop import Loop
from rbee_plugins.llamacpp.memory import BATCH_TOKENS, UNTUNED
from rbee_plugins.llamacpp.shelf import Shelf, kind_of
from rbee_plugins.llamacpp.speculation import Speculation
from rbee_plugins.llamacpp.tokens import Tokens

_WEIGHTS_SHARE = 0.95  # of the reported progress; the rest is for the context

PLAIN = Style()
ALONE_TOKENS = 8
"""Of a prompt that is computed by itself, at once: how they are grouped must not depend on who else is there.

So few that the others' pause stays short on a processor, where each of them takes about as long.
"""
ALONE_TOKENS_ON_DEVICE = 64


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How to load. `gpu_layers` layers leave the processor, -1 for all; `chunk_tokens` of a prompt are read at once.

    Of texts that had to leave the context, `saved_bytes` are kept at most, and `on_disk` for a later engine.
    """

    context_tokens: int
    threads: int
    gpu_layers: int = 0
    slots: int = 1
    chunk_tokens: int = BATCH_TOKENS
    saved_bytes: int = 0
    tuning: Tuning = UNTUNED
    on_disk: OnDisk | None = None


class LlamaCppEngine(Engine):
    """One model with one context, which all its requests share. `generate` may run in any number of threads."""

    def __init__(
        self,
        model: native.NativeModel,
        loop: Loop,
        chat: ChatTemplate,
        info: EngineInfo,
        embedder: Embedder,
        *,
        writes: bool = True,
        speculation: Speculation | None = None,
    ) -> None:
        self._model = model
        self._embedder = embedder
        self._writes = writes
        self._speculation = speculation
        self._chat = chat
        self._info = info
        self._samplers = Samplers(model)
        self._tokens, self._counted = Tokens(model, info.context_tokens), Tokens(model, sys.maxsize)
        self._loop = loop

    def info(self) -> EngineInfo:
        """Return what was loaded."""
        return self._info

    def close(self) -> None:
        """End the loop and free the native memory."""
        self._chat.close()  # first: who waits for a text of it waits no longer
        self._loop.close()
        self._embedder.close()
        self._samplers.close()
        self._model.close()

    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        """Yield the answer to `request` token by token. One with a seed is computed by itself, and from nothing."""
        prompt, style = self._prompt(request, cancel)
        chooser = None if cancel.is_set() else self._samplers.build(request, cancel)
        if chooser is None:
            return
        room = self._info.context_tokens - len(prompt)
        alone = request.seed is not None
        job = Job(
            prompt,
            limit=room if request.max_tokens is None else min(room, request.max_tokens),
            chooser=chooser,
            cancel=cancel,
            alone=alone,
            reuse=request.reuse_prompt and not alone,
            logprobs=request.logprobs,
            lookup=None if alone or self._speculation is None else self._speculation.lookup(prompt),
            request_id=request.request_id,
        )
        events = self._loop.submit(job)
        try:
            if style != PLAIN:
                yield style
            yield from self._answer(events, cancel, marked=style.marked)
        finally:
            job.left = True  # also of one from which no event was ever taken

    def _answer(self, events: Iterator[Event], cancel: CancelToken, *, marked: bool) -> Iterator[EngineEvent]:
        """Turn what the loop says into text, with that of control tokens if they mark what is what.

        A character is whole before it is yielded.
        """
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        for event in events:
            if cancel.is_set():
                return
            if isinstance(event, Made):
                text = decode(self._model.piece(event.token, special=marked), event.last)
                yield self._samplers.token(text, event)
            elif isinstance(event, Read):
                yield PromptProgress(event.done, event.total)
            elif isinstance(event, Ready):
                yield PromptDone(event.total, event.cached, event.why)
            elif event.error is not None:
                raise event.error
            elif event.reason != "cancelled":
                if rest := decode(b"", True):
                    yield Token(rest)
                yield Finished(event.reason)

    def count(self, request: GenerateRequest, cancel: CancelToken) -> int:
        """Return how many tokens the prompt of `request` has."""
        return len(self._read(request, cancel, self._counted)[0])

    def embed(self, request: EmbedRequest, cancel: CancelToken) -> Iterator[Embedded]:
        """Yield a vector for each text."""
        return self._embedder.embed(request, cancel)

    def rerank(self, request: RerankRequest, cancel: CancelToken) -> Iterator[Ranked]:
        """Yield a score for each document."""
        return self._embedder.rerank(request, cancel)

    def _prompt(self, request: GenerateRequest, cancel: CancelToken) -> tuple[list[int], Style]:
        """Return the prompt's tokens, only some of them once cancelled, and how it will be answered."""
        tokens, style = self._read(request, cancel, self._tokens)
        context = self._info.context_tokens
        if len(tokens) >= context and not cancel.is_set():
            raise PromptTooLong(prompt_tokens=len(tokens), context_tokens=context)
        return tokens, style

    def _read(self, request: GenerateRequest, cancel: CancelToken, reading: Tokens) -> tuple[list[int], Style]:
        """Return the same by what turns text into tokens, which may refuse what is too long."""
        style = PLAIN
        if not self._writes:
            raise InvalidRequest("This model reads texts and cannot write any", hint="ask it for vectors or scores")
        if request.suffix is not None:
            tokens = fill_in.tokens(self._model, reading, request.prompt or "", request.suffix)
        else:
            text, add_special = self._text(request, cancel)
            if request.messages:
                style = self._chat.style(text, request.tools)
            tokens = reading.of(text.encode(errors="replace"), cancel, add_special=add_special)
        if not tokens and not cancel.is_set():
            raise InvalidRequest("The prompt is empty", hint="write at least one character")
        return tokens, style

    def _text(self, request: GenerateRequest, cancel: CancelToken) -> tuple[str, bool]:
        """Return the prompt's text, and whether BOS is to be put in front of it.

        Templates differ in whether they write BOS themselves; a second one harms the answer.
        """
        if request.prompt is not None:
            return request.prompt, True
        bos, eos = self._model.special_texts()
        text = self._chat.render(
            request.messages,
            {"bos_token": bos, "eos_token": eos},
            cancel,
            tools=request.tools,
            arguments=request.template_arguments,
        )
        written = bool(bos) and text.startswith(bos)
        return text, self._model.adds_bos() and not written


def load_engine(model: LocalModel, header: GgufHeader, settings: EngineSettings, progress: Progress) -> LlamaCppEngine:
    """Load `model`, whose checked header is `header`. Raises `ModelLoadFailed` with llama.cpp's own reason."""
    template = settings.tuning.chat_template or header.chat_template
    loading, chat = _Loading(progress), ChatTemplate(template)
    with native.LastErrors() as errors:
        try:
            loaded, context, adapters = _open(model, settings, loading)
        except native.NativeError as error:
            chat.close()
            if loading.failure is not None:
                raise loading.failure from error
            raise _load_failed(model, str(error), loading, errors.lines) from error
    info = EngineInfo(
        context_tokens=context.tokens,
        slots=settings.slots,
        architecture=header.architecture,
        accelerator=loaded.accelerator,
        chat_template=bool(template),
    )
    progress(1.0, "ready")
    alone_tokens = min(ALONE_TOKENS_ON_DEVICE if settings.gpu_layers else ALONE_TOKENS, settings.chunk_tokens)
    speculation = Speculation() if context.cuttable and settings.tuning.speculation != "off" else None
    shelf = _shelf(model, settings, info) if settings.saved_bytes else None
    loop = Loop(loaded, context, settings.chunk_tokens, alone_tokens, settings.saved_bytes, speculation, shelf)
    embedder = Embedder(
        loaded,
        header,
        adapters,
        settings.tuning,
        limit_tokens=info.context_tokens,
        threads=settings.threads,
    )
    return LlamaCppEngine(loaded, loop, chat, info, embedder, writes=context.writes, speculation=speculation)


def _open(
    model: LocalModel, settings: EngineSettings, loading: "_Loading"
) -> tuple[native.NativeModel, native.Context, native.Adapters]:
    loaded = native.NativeModel(model.path, gpu_layers=settings.gpu_layers, on_progress=loading.weights)
    try:
        if not loading.report(_WEIGHTS_SHARE, "making the context"):
            raise native.NativeError("the load was given up")  # noqa: TRY301  # one way out for all failures
        adapters = native.Adapters(loaded, settings.tuning.lora)
        context = native.Context(
            loaded,
            tokens=settings.context_tokens,
            batch_tokens=BATCH_TOKENS,
            threads=settings.threads,
            sequences=settings.slots,
            drafted=memory.drafted_tokens(settings.tuning),
            tuning=settings.tuning,
        )
        adapters.apply(context.handle)
    except BaseException:
        loaded.close()
        raise
    return loaded, context, adapters


def _shelf(model: LocalModel, settings: EngineSettings, info: EngineInfo) -> Shelf | None:
    """Return where states outlive this engine, None if they may not."""
    place, tuning = settings.on_disk, settings.tuning
    if place is None:
        return None
    version, context, where = native.version(), info.context_tokens, info.accelerator
    return Shelf(place, kind_of(model, place.model, version, tuning, context_tokens=context, accelerator=where))


class _Loading:
    """Carries progress out of native code, which no exception may cross."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.given_up = False
        self.failure: BaseException | None = None

    def weights(self, fraction: float) -> bool:
        return self.report(fraction * _WEIGHTS_SHARE, "loading weights")

    def report(self, fraction: float, detail: str) -> bool:
        try:
            self.given_up = not self._progress(fraction, detail)
        except BaseException as error:  # noqa: BLE001  # raised again by load_engine
            self.failure, self.given_up = error, True
        return not self.given_up


def _load_failed(model: LocalModel, what: str, loading: _Loading, lines: list[str]) -> ModelLoadFailed:
    if loading.given_up:
        return ModelLoadFailed(
            reference=model.reference, why="the load was given up before it was done", hint="load it again"
        )
    reason = next((line.partition("error loading model: ")[2] for line in lines if "error loading" in line), "")
    reason = reason or (lines[0] if lines else "it gave no reason")
    return ModelLoadFailed(reference=model.reference, why=f"{what}: {shorten(reason)}")
