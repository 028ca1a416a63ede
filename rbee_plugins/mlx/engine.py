"""Generates text with a loaded MLX model, one request at a time: prompt, prefill, tokens, characters."""

import threading
from collections.abc import Generator, Iterator

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
    TokenLogprob,
)
from rbee_core.errors import InvalidRequest, ModelLoadFailed, PromptTooLong, RbeeError, shorten
from rbee_plugins.mlx import memory, runtime
from rbee_plugins.mlx.folder import ModelFolder


class MlxEngine(Engine):
    """One model with one cache."""

    def __init__(self, model: runtime.Model, info: EngineInfo, chunk_tokens: int) -> None:
        self._model = model
        self._info = info
        self._chunk_tokens = chunk_tokens
        self._thread = threading.get_ident()

    def info(self) -> EngineInfo:
        """Return what was loaded."""
        return self._info

    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        """Yield the answer to `request` token by token."""
        assert threading.get_ident() == self._thread, "MLX belongs to the thread that loaded"
        size = self._model.vocabulary_size
        if wrong := [token for token in request.logit_bias if token >= size]:
            raise InvalidRequest(f"logit_bias names token {wrong[0]}, and this model has {size}, counted from 0")
        prompt = self._prompt_tokens(request)
        room = self._info.context_tokens - len(prompt)
        limit = room if request.max_tokens is None else min(room, request.max_tokens)
        if (yield from self._prefill(prompt, cancel)):
            yield PromptDone(len(prompt))
            yield from self._decode(prompt[-1], request, limit, cancel)

    def _prompt_tokens(self, request: GenerateRequest) -> list[int]:
        tokens = self._chat_tokens(request) if request.prompt is None else self._model.tokenize(request.prompt)
        if not tokens:
            raise InvalidRequest("The prompt is empty", hint="write at least one character")
        context = self._info.context_tokens
        if len(tokens) >= context:
            raise PromptTooLong(prompt_tokens=len(tokens), context_tokens=context)
        return tokens

    def _chat_tokens(self, request: GenerateRequest) -> list[int]:
        if not self._model.has_chat_template:
            raise InvalidRequest(
                "This model has no chat template, so it cannot answer messages",
                hint="send a plain prompt, or use a model that was trained for conversations",
            )
        try:
            return self._model.chat_tokens([{"role": m.role, "content": m.content} for m in request.messages])
        except Exception as error:  # a template may raise whatever it likes
            raise InvalidRequest(
                f"The model's chat template refused the messages: {shorten(str(error))}",
                hint="many templates want user and assistant in turns, and some no system message; `--raw` needs none",
            ) from error

    def _prefill(self, prompt: list[int], cancel: CancelToken) -> Generator[PromptProgress, None, bool]:
        """Compute all but the last token of the prompt, telling how far it is; return False if that was cancelled."""
        for start in range(self._model.begin(prompt), len(prompt) - 1, self._chunk_tokens):
            if cancel.is_set():
                return False
            end = min(start + self._chunk_tokens, len(prompt) - 1)
            self._model.read(prompt[start:end])
            if end < len(prompt) - 1:
                yield PromptProgress(end, len(prompt))
        return not cancel.is_set()

    def _decode(self, last: int, request: GenerateRequest, limit: int, cancel: CancelToken) -> Iterator[EngineEvent]:
        """Yield up to `limit` tokens, then why it ended; nothing more once cancelled."""
        text = self._model.new_text()
        for index, (token, likely) in enumerate(self._model.generate(last, request, limit), 1):
            if cancel.is_set():
                return
            if token in self._model.ends:
                if rest := text.rest():
                    yield Token(rest)
                yield Finished("stop")
                return
            piece = text.add(token)
            yield _token(piece + text.rest() if index == limit else piece, likely)
        yield Finished("length")


def _token(text: str, likely: tuple[TokenLogprob, ...]) -> Token:
    return Token(text, likely[0], likely[1:]) if likely else Token(text)


def load_engine(model: LocalModel, folder: ModelFolder, context_tokens: int, progress: Progress) -> MlxEngine:
    """Load `model`, whose checked folder is `folder`. Raises `ModelLoadFailed` with mlx-lm's own reason."""
    watched = _Watched(progress)
    accelerator = runtime.accelerator()
    chunk_tokens = memory.chunk_tokens(folder, accelerator)
    try:
        loaded = runtime.load(model.path, chunk_tokens, watched)
    except runtime.GivenUp:
        raise ModelLoadFailed(
            reference=model.reference, why="the load was given up before it was done", hint="load it again"
        ) from None
    except Exception as error:
        if error is watched.failure or isinstance(error, RbeeError):
            raise
        why = f"mlx-lm does not accept it: {type(error).__name__}: {shorten(str(error))}"
        raise ModelLoadFailed(reference=model.reference, why=why) from error
    progress(1.0, "ready")
    info = EngineInfo(
        context_tokens,
        architecture=folder.architecture,
        accelerator=accelerator,
        chat_template=loaded.has_chat_template,
    )
    return MlxEngine(loaded, info, chunk_tokens)


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
