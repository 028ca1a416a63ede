"""Generates text with a loaded llama.cpp model, one request at a time.

Owns the order of things: prompt, prefill, sampling, characters. Device choice arrives in `EngineSettings`, so that
every llama.cpp backend shares this engine; the native calls are `native`'s.
"""

import codecs
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from rbee_core.backend import (
    CancelToken,
    Engine,
    EngineEvent,
    EngineInfo,
    Finished,
    GenerateRequest,
    LocalModel,
    Progress,
    PromptDone,
    PromptProgress,
    Token,
)
from rbee_core.backend.gguf import GgufHeader
from rbee_core.errors import InvalidRequest, ModelLoadFailed, PromptTooLong, shorten
from rbee_plugins.llamacpp import native
from rbee_plugins.llamacpp.chat import ChatTemplate
from rbee_plugins.llamacpp.choosing import Samplers
from rbee_plugins.llamacpp.memory import BATCH_TOKENS
from rbee_plugins.llamacpp.splitting import PIECE_BYTES, pieces

_WEIGHTS_SHARE = 0.95  # of the reported progress; the rest is for the context
_SLOW_STEP_S = 0.1  # a model this slow is asked to abort within a token, not only between tokens


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How to load. `gpu_layers` layers leave the processor, -1 for all; `chunk_tokens` of a prompt are read at once."""

    context_tokens: int
    threads: int
    gpu_layers: int = 0
    chunk_tokens: int = BATCH_TOKENS


class LlamaCppEngine(Engine):
    """One model with one context."""

    def __init__(
        self,
        model: native.NativeModel,
        context: native.Context,
        chat: ChatTemplate,
        info: EngineInfo,
        chunk_tokens: int,
    ) -> None:
        self._model = model
        self._context = context
        self._chunk_tokens = chunk_tokens
        self._chat = chat
        self._info = info
        self._samplers = Samplers(model)
        self._held: list[int] = []  # the tokens whose computed state the context holds

    def info(self) -> EngineInfo:
        """Return what was loaded."""
        return self._info

    def close(self) -> None:
        """Free the native memory."""
        self._samplers.close()
        self._context.close()
        self._model.close()

    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        """Yield the answer to `request` token by token."""
        prompt = self._prompt_tokens(request, cancel)
        if cancel.is_set():
            return
        room = self._info.context_tokens - len(prompt)
        limit = room if request.max_tokens is None else min(room, request.max_tokens)
        sampler = self._samplers.build(request)
        try:
            self._context.abort_when(cancel.is_set)
            if (yield from self._prefill(prompt, cancel, reuse=request.seed is None and request.temperature > 0)):
                yield PromptDone(len(prompt))
                yield from self._decode(sampler, limit, request.logprobs, cancel)
        finally:
            self._context.abort_when(None)
            sampler.close()

    def _prompt_tokens(self, request: GenerateRequest, cancel: CancelToken) -> list[int]:
        """Return the prompt's tokens; only some of them once cancelled."""
        text, add_special = self._text(request)
        tokens = self._tokens(text.encode(errors="replace"), cancel, add_special=add_special)
        if cancel.is_set():
            return tokens
        if not tokens:
            raise InvalidRequest("The prompt is empty", hint="write at least one character")
        context = self._info.context_tokens
        if len(tokens) >= context:
            raise PromptTooLong(prompt_tokens=len(tokens), context_tokens=context)
        return tokens

    def _tokens(self, text: bytes, cancel: CancelToken, *, add_special: bool) -> list[int]:
        """Refuse what cannot fit before it takes time, and look between pieces whether anybody still waits."""
        if len(text) <= PIECE_BYTES:
            return self._model.tokenize(text, add_special=add_special)
        vocabulary, context = self._model.vocabulary, self._info.context_tokens
        if (fewest := vocabulary.fewest_tokens(text)) > context:
            raise PromptTooLong(prompt_tokens=fewest, context_tokens=context, at_least=True)
        tokens: list[int] = []
        for number, piece in enumerate(pieces(text, vocabulary.specials)):
            if cancel.is_set():
                break
            tokens += self._model.tokenize(piece, add_special=add_special and number == 0)
        return tokens

    def _text(self, request: GenerateRequest) -> tuple[str, bool]:
        """Return the prompt's text, and whether BOS is to be put in front of it.

        Templates differ in whether they write BOS themselves; a second one harms the answer.
        """
        if request.prompt is not None:
            return request.prompt, True
        text = self._chat.render(request.messages)
        bos, _eos = self._model.special_texts()
        written = bool(bos) and text.startswith(bos)
        return text, self._model.adds_bos() and not written

    def _prefill(self, prompt: list[int], cancel: CancelToken, *, reuse: bool) -> Generator[PromptProgress, None, bool]:
        """Compute the prompt, telling between its chunks how far it is; return False if that was cancelled.

        With `reuse`, what it shares with the last request is not computed again: a conversation goes on without its
        beginning being read anew. Not for those who expect the same text again, as how tokens are grouped shows in
        the last bits of the result.
        """
        kept = shared(self._held, prompt[:-1]) if reuse else 0
        kept = kept if self._context.keep(kept) else 0
        self._held = prompt[:kept]
        for start in range(kept, len(prompt), self._chunk_tokens):
            if cancel.is_set():
                return False
            chunk = prompt[start : start + self._chunk_tokens]
            status = self._context.read(chunk)
            if status == native.ABORTED:
                return False
            if status == native.NO_ROOM:
                raise PromptTooLong(prompt_tokens=len(prompt), context_tokens=self._info.context_tokens)
            self._held += chunk
            if len(self._held) < len(prompt):
                yield PromptProgress(len(self._held), len(prompt))
        return True

    def _decode(
        self, sampler: native.Sampler, limit: int, logprobs: int | None, cancel: CancelToken
    ) -> Iterator[EngineEvent]:
        """Yield up to `limit` tokens, then why it ended; nothing more once cancelled."""
        model = self._model
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        status = native.DECODED
        for index in range(1, limit + 1):
            if cancel.is_set():
                return
            token = sampler.choose(self._context)
            if model.is_end(token):
                if rest := decode(b"", True):
                    yield Token(rest)
                yield Finished("stop")
                return
            likely = None if logprobs is None else sampler.logprobs(self._context, -1, token, logprobs)
            last = index == limit or sampler.ended
            yield self._samplers.token(decode(model.piece(token), last), token, likely)
            if sampler.ended:
                yield Finished("stop")
                return
            if index < limit:
                status = self._first_step(token) if index == 1 else self._context.step(token)
                if status == native.DECODED:
                    self._held.append(token)
            if status == native.ABORTED:
                return
            if status == native.NO_ROOM:
                break
        yield Finished("length")

    def _first_step(self, token: int) -> int:
        """Compute one token, and stop asking for aborts within tokens if that was quick."""
        started = time.monotonic()
        status = self._context.step(token)
        if time.monotonic() - started < _SLOW_STEP_S:
            self._context.abort_when(None)
        return status


def shared(tokens: list[int], others: list[int]) -> int:
    """Return how many tokens both begin with."""
    pairs = zip(tokens, others, strict=False)
    return next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(tokens), len(others)))


def load_engine(model: LocalModel, header: GgufHeader, settings: EngineSettings, progress: Progress) -> LlamaCppEngine:
    """Load `model`, whose checked header is `header`. Raises `ModelLoadFailed` with llama.cpp's own reason."""
    loading = _Loading(progress)
    with native.LastErrors() as errors:
        try:
            loaded, context = _open(model, settings, loading)
        except native.NativeError as error:
            if loading.failure is not None:
                raise loading.failure from error
            raise _load_failed(model, str(error), loading, errors.lines) from error
    info = EngineInfo(
        context_tokens=context.tokens,
        slots=1,
        architecture=header.architecture,
        accelerator=loaded.accelerator,
        chat_template=bool(header.chat_template),
    )
    bos, eos = loaded.special_texts()
    progress(1.0, "ready")
    return LlamaCppEngine(loaded, context, ChatTemplate(header.chat_template, bos, eos), info, settings.chunk_tokens)


def _open(
    model: LocalModel, settings: EngineSettings, loading: "_Loading"
) -> tuple[native.NativeModel, native.Context]:
    loaded = native.NativeModel(model.path, gpu_layers=settings.gpu_layers, on_progress=loading.weights)
    try:
        if not loading.report(_WEIGHTS_SHARE, "making the context"):
            raise native.NativeError("the load was given up")  # noqa: TRY301  # one way out for all failures
        context = native.Context(
            loaded, tokens=settings.context_tokens, batch_tokens=BATCH_TOKENS, threads=settings.threads
        )
    except BaseException:
        loaded.close()
        raise
    return loaded, context


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
