"""Shapes of inference: what a request may say, with its ranges, and the events of its stream."""

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from rbee_core.domain.tuning import Tuning
from rbee_core.wire.base import ErrorObject, Lenient, ModelText, RequestId, Seconds
from rbee_core.wire.choosing import Choosing
from rbee_core.wire.talk import MOST_MESSAGES, MOST_TOOLS, ChatMessage, Style, Tool
from rbee_core.wire.workers import WorkerInfo


class TextWanted(Choosing):
    """What to generate: exactly one of `prompt` and `messages`. `max_tokens` None means as the context allows.

    A prompt is continued. With `chat_template` it is answered instead: ``if_any`` where the model has a chat template,
    ``required`` or not at all. Messages always ask for an answer; with ``required`` a model without a template refuses.
    With `reuse_prompt` false all of the prompt is computed, whatever of it was computed for an earlier request.
    With `suffix`, the text between `prompt` and that is written, of which one may be empty.
    `tools` are told to the model by its chat template, and need a backend that declares ``tools``. The template is
    given `template_arguments` too; a backend that has none of that kind has no use for them.
    """

    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MOST_MESSAGES)] | None = None
    suffix: str | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    stop: Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=16)] = []
    timeout_s: Seconds | None = None
    chat_template: Literal["if_any", "required"] | None = None
    reuse_prompt: bool = True
    tools: Annotated[list[Tool], Meta(max_length=MOST_TOOLS)] = []
    template_arguments: Annotated[dict[str, Any], Meta(max_length=64)] = {}

    def __post_init__(self) -> None:
        """Check what single fields cannot say."""
        super().__post_init__()
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give exactly one of prompt and messages")
        if self.suffix is not None and (self.prompt is None or self.chat_template):
            raise ValueError("a suffix belongs to a prompt that is continued")
        if self.prompt is not None and not (self.prompt + (self.suffix or "")).strip():
            raise ValueError("the prompt is empty")
        if self.messages is not None and not any(m.says_something for m in self.messages):
            raise ValueError("all messages are empty")
        if self.messages is None and (self.tools or self.template_arguments):
            raise ValueError("tools and template_arguments belong to messages")


class InferenceRequest(TextWanted):
    """What a client asks for. The hive names a request that has no `request_id`."""

    request_id: RequestId | None = None


class WorkerTask(TextWanted, kw_only=True):
    """A worker's `POST /v1/inference`: the same from its hive, which has named it.

    A conversation in which no system speaks begins with `system_prompt`.
    """

    request_id: RequestId
    system_prompt: str | None = None


class CountTask(WorkerTask, kw_only=True):
    """A worker's `POST /v1/count`: a request whose prompt is read as if it were to be answered, and counted."""


class WorkerInference(InferenceRequest):
    """`POST /v1/workers/{id}/inference`: with `queue` false, a refusal comes at once when all slots are busy."""

    queue: bool = True


class PoolInference(InferenceRequest, kw_only=True):
    """`POST /v1/inference`: a request for a model. The hive finds a worker, or starts one, and waits for a slot."""

    model_ref: ModelText
    backend: Annotated[str, Meta(max_length=64)] | None = None
    device: Annotated[int, Meta(ge=0, le=1023)] | None = None
    context_tokens: Annotated[int, Meta(ge=1, le=1 << 24)] | None = None
    slots: Annotated[int, Meta(ge=1, le=64)] | None = None
    tuning: Tuning = Tuning()
    queue: bool = True


class FoundWorker(Lenient):
    """`POST /v1/workers/find`: the idle worker that would serve such a request now, if there is one."""

    worker: WorkerInfo | None


class Waiting(Lenient):
    """What a request waits for, and its place among those who wait for the same, from 1.

    `progress` is the loaded fraction where it waits for the model.
    """

    position: int
    for_what: str = field(name="for")
    progress: float = 0.0


class WaitingEvent(Lenient):
    """An event of a stream that was opened before there was a slot; comes again when the wait changes."""

    waiting: Waiting


class WorkerEvent(Lenient):
    """Follows the last `WaitingEvent`: which worker answers. Without a wait, the header `X-Rbee-Worker` says so."""

    worker_id: str


class ReadPrompt(Lenient):
    """How many tokens of the prompt are read, and how many it has."""

    done: int
    total: int

    @property
    def share(self) -> float:
        """Which part is read, 0..1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0


class PromptEvent(Lenient):
    """While a long prompt is read: how far. A few a second at most, all before the first token."""

    prompt: ReadPrompt


class TokenLikelihood(Lenient):
    """A token that came or could have come. `bytes` are its own: its text may end within a character.

    `logprob` is the natural logarithm of the probability that the model gives it, before temperature.
    """

    id: int
    token: str
    bytes: list[int]
    logprob: float


class Logprobs(TokenLikelihood):
    """The token that came, and `top`, the likeliest ones at its place; it need not be among them."""

    top: list[TokenLikelihood] = []


class TokenEvent(Lenient, omit_defaults=True):
    """One token of an inference stream. `logprobs` are there if the request wants them, for every token.

    `token` is "" for one whose text comes with a later one.
    """

    token: str
    index: int
    logprobs: Logprobs | None = None


class DoneEvent(Lenient):
    """The terminal event of a stream that went well. `duration_ms` is wall time in the worker.

    `chat_template` says that the request went through the model's chat template. `cached_tokens` of the prompt were
    computed for an earlier request; `not_cached` says in half a sentence why it was not more. `drafted_tokens` were
    guessed and computed ahead, and `accepted_tokens` of them proved right. `stopped_by` is the stop string that ended
    the text, "" if none did.
    """

    done: bool
    total_tokens: int
    duration_ms: int
    finish_reason: str
    prompt_tokens: int = 0
    first_token_ms: int = 0
    chat_template: bool = False
    cached_tokens: int = 0
    not_cached: str = ""
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    stopped_by: str = ""


class StreamEvent(Lenient):
    """Any event of an inference stream, for clients: exactly one of the kinds is filled in."""

    token: str | None = None
    index: int = 0
    logprobs: Logprobs | None = None
    done: bool = False
    total_tokens: int = 0
    duration_ms: int = 0
    finish_reason: str = ""
    prompt_tokens: int = 0
    first_token_ms: int = 0
    chat_template: bool = False
    cached_tokens: int = 0
    not_cached: str = ""
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    stopped_by: str = ""
    error: ErrorObject | None = None
    waiting: Waiting | None = None
    worker_id: str = ""
    prompt: ReadPrompt | None = None
    style: Style | None = None
    vector: list[float] | None = None
    score: float | None = None

    @property
    def prompt_tokens_per_s(self) -> float:
        """How fast what was not cached of the prompt was read, up to the first token; 0.0 where that is not known."""
        return _rate(self.prompt_tokens - self.cached_tokens, self.first_token_ms)

    @property
    def generation_tokens_per_s(self) -> float:
        """How fast the tokens after the first one came; 0.0 where there is none, or that is not known."""
        return _rate(self.total_tokens - 1, self.duration_ms - self.first_token_ms) if self.first_token_ms else 0.0


def _rate(tokens: int, within_ms: int) -> float:
    return round(tokens / within_ms * 1000, 2) if tokens > 0 and within_ms > 0 else 0.0
