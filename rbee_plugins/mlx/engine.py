"""The face of a loaded MLX model: requests in, text out, in any number of threads. The computing is the loop's."""

import weakref
from collections.abc import Iterator
from queue import Empty

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
    Style,
    Token,
    TokenLogprob,
    Tuning,
)
from rbee_core.errors import InvalidRequest, ModelLoadFailed, PromptTooLong, RbeeError, shorten
from rbee_plugins.mlx import memory, runtime
from rbee_plugins.mlx.folder import ModelFolder
from rbee_plugins.mlx.loop import Event, Job, Loop, Read, Ready

PLAIN = Style()
_LOOK_S = 0.1  # how often it is looked whether anybody still waits, while a step takes longer


class MlxEngine(Engine):
    """One model, which all requests share. `generate` may run in any number of threads."""

    def __init__(self, loop: Loop, info: EngineInfo) -> None:
        self._model = loop.model
        self._loop = loop
        self._info = info
        self._end = weakref.finalize(self, loop.close)  # also before the interpreter ends

    def info(self) -> EngineInfo:
        """Return what was loaded."""
        return self._info

    def close(self) -> None:
        """End the loop."""
        self._end()

    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        """Yield the answer to `request` token by token. One with a seed is computed by itself."""
        size = self._model.vocabulary_size
        if wrong := [token for token in request.logit_bias if token >= size]:
            raise InvalidRequest(f"logit_bias names token {wrong[0]}, and this model has {size}, counted from 0")
        prompt, style = self._prompt(request, cancel)
        if cancel.is_set():
            return
        room = self._info.context_tokens - len(prompt)
        limit = room if request.max_tokens is None else min(room, request.max_tokens)
        alone = request.seed is not None or not self._loop.batches
        job = Job(request, prompt, limit, cancel, alone=alone)
        self._loop.submit(job)
        try:
            if style != PLAIN:
                yield style
            yield from self._answer(job, limit)
        finally:
            job.left = True

    def count(self, request: GenerateRequest, cancel: CancelToken) -> int:
        """Return how many tokens the prompt of `request` has."""
        return len(self._read(request, cancel)[0])

    def _answer(self, job: Job, limit: int) -> Iterator[EngineEvent]:
        """Turn what the loop says into text; a character is whole before it is yielded."""
        text, made = self._model.new_text(), 0
        for event in _events(job):
            if isinstance(event, runtime.Chosen):
                made += 1
                piece = text.add(event.token)
                yield _token(piece + text.rest() if made == limit else piece, event.likely)
            elif isinstance(event, Read):
                yield PromptProgress(event.done, len(job.prompt))
            elif isinstance(event, Ready):
                yield PromptDone(len(job.prompt), event.cached, event.why)
            elif event.error is not None:
                raise event.error
            elif event.reason != "failed":
                if event.reason == "stop" and (rest := text.rest()):
                    yield Token(rest)
                yield Finished(event.reason)
                return

    def _prompt(self, request: GenerateRequest, cancel: CancelToken) -> tuple[list[int], Style]:
        """Return the prompt's tokens, some others once cancelled, and how it will be answered."""
        tokens, style = self._read(request, cancel)
        context = self._info.context_tokens
        if len(tokens) >= context and not cancel.is_set():
            raise PromptTooLong(prompt_tokens=len(tokens), context_tokens=context)
        return tokens, style

    def _read(self, request: GenerateRequest, cancel: CancelToken) -> tuple[list[int], Style]:
        """Return the same, however long it is."""
        if request.prompt is None:
            tokens, style = self._chat_tokens(request, cancel)
        else:
            tokens, style = self._model.tokenize(request.prompt), PLAIN
        if not tokens and not cancel.is_set():
            raise InvalidRequest("The prompt is empty", hint="write at least one character")
        return tokens, style

    def _chat_tokens(self, request: GenerateRequest, cancel: CancelToken) -> tuple[list[int], Style]:
        if not self._model.has_chat_template:
            raise InvalidRequest(
                "This model has no chat template, so it cannot answer messages",
                hint="send a plain prompt, or use a model that was trained for conversations",
            )
        try:
            return self._model.chat_tokens(request, cancel)
        except RbeeError:
            raise
        except Exception as error:  # a library's own code may raise whatever it likes
            raise InvalidRequest(
                f"The model's chat template refused the messages: {shorten(str(error))}",
                hint="many templates want user and assistant in turns, and some no system message; `--raw` needs none",
            ) from error


def _events(job: Job) -> Iterator[Event]:
    """Yield what the loop says, until nobody waits for it. A step may take longer than cancelling may."""
    while not job.cancel.is_set():
        try:
            event = job.events.get(timeout=_LOOK_S)
        except Empty:
            continue
        if not job.cancel.is_set():
            yield event


def _token(text: str, likely: tuple[TokenLogprob, ...]) -> Token:
    return Token(text, likely[0], likely[1:]) if likely else Token(text)


def load_engine(
    model: LocalModel,
    folder: ModelFolder,
    context_tokens: int,
    slots: int,
    progress: Progress,
    tuning: Tuning = memory.UNTUNED,
) -> MlxEngine:
    """Load `model`, whose checked folder is `folder`. Raises `ModelLoadFailed` with mlx-lm's own reason."""
    watched = _Watched(progress)
    accelerator = runtime.accelerator()
    chunk_tokens = memory.chunk_tokens(folder, accelerator)
    cache_bytes = memory.cache_bytes(folder, context_tokens, accelerator, tuning)
    try:
        loop = Loop(lambda: runtime.load(model.path, watched, tuning.chat_template), chunk_tokens, slots, cache_bytes)
    except runtime.GivenUp:
        raise ModelLoadFailed(
            reference=model.reference, why="the load was given up before it was done", hint="load it again"
        ) from None
    except Exception as error:
        if error is watched.failure or isinstance(error, RbeeError):
            raise
        why = f"mlx-lm does not accept it: {type(error).__name__}: {shorten(str(error))}"
        raise ModelLoadFailed(reference=model.reference, why=why) from error
    info = EngineInfo(
        context_tokens,
        slots=slots if loop.batches else 1,
        architecture=folder.architecture,
        accelerator=accelerator,
        chat_template=loop.model.has_chat_template,
    )
    engine = MlxEngine(loop, info)
    progress(1.0, "ready")
    return engine


class _Watched:
    """Tells an error of the progress's receiver from one of mlx-lm."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.failure: Exception | None = None

    def __call__(self, fraction: float, detail: str = "") -> bool:
        try:
            return self._progress(fraction, detail)
        except Exception as error:
            self.failure = error
            raise
