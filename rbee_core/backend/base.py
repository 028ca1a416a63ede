"""The contract between rbee and a plugin: backends, engines and model sources.

Owns types only. Every method says who calls it, when, on which thread and what may go wrong, so that a stranger can
implement it without reading the hive or the worker.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

from rbee_core.backend.generation import CancelToken, EngineEvent, GenerateRequest
from rbee_core.backend.vectors import Embedded, EmbedRequest, Ranked, RerankRequest
from rbee_core.domain.model_ref import ModelRef
from rbee_core.domain.tuning import Tuning
from rbee_core.errors import InvalidRequest, NotSupported

Accelerator = Literal["cpu", "cuda", "metal"]

# Words a backend may declare. The conformance kit holds it to each one.
CAPABILITIES = frozenset(
    {
        "stream",
        "cancel",
        "seed",
        "batching",
        "chat",
        "embeddings",
        "samplers",
        "logprobs",
        "grammar",
        "json_schema",
        "rerank",
        "infill",
        "tools",
        "lora",
        "cache_types",
        "flash_attention",
        "chat_template",
        "speculation",
    }
)


class Device(Struct, frozen=True):
    """One place a worker can run on. `id` is ``cpu``, ``cuda:0``, ``metal`` …; sizes are bytes, None if unknown.

    `driver_id` is what the driver calls it, such as a GPU's UUID. rbee only carries it: `Backend.environment` then has
    no need to ask the driver again.
    """

    id: str
    name: str
    total_bytes: int | None = None
    free_bytes: int | None = None
    shares_host_memory: bool = True
    driver_id: str = ""


class Availability(Struct, frozen=True):
    """Whether a backend can run here; if not, `reason` is half a sentence for a person and `hint` what to do.

    `devices` is for a backend that has to find its devices to know: given here, they are not asked for again.
    """

    usable: bool
    reason: str = ""
    hint: str = ""
    devices: Sequence[Device] | None = None


class LocalModel(Struct, frozen=True):
    """A model on this node's disk: a file or a folder, never to be written by anybody but rbee's transfer.

    `format` is a word such as ``gguf`` or ``mlx`` that backends list in `Backend.formats`.
    """

    reference: str
    path: Path
    format: str
    size_bytes: int


class RemoteFile(Struct, frozen=True):
    """One file of a model that has to be fetched: where from, and how to know that it arrived whole.

    `name` is relative to the model's folder. `sha256` is 64 lower-case hex digits, None only where the hub has none
    (small text files, then `git_sha1` names the git blob). `headers` go to the origin of `url` and nowhere else.
    """

    name: str
    url: str
    size_bytes: int
    sha256: str | None = None
    git_sha1: str | None = None
    etag: str = ""
    headers: Mapping[str, str] = {}

    def __repr__(self) -> str:
        """Leave the headers out: they may carry a token."""
        return f"RemoteFile({self.name!r}, {self.url!r}, {self.size_bytes})"


class RemoteModel(Struct, frozen=True):
    """A model that a source offers and this node does not have. `entry` is the file a backend loads, "" the folder."""

    reference: str
    provider: str
    revision: str
    format: str
    files: tuple[RemoteFile, ...]
    entry: str
    note: str = ""

    @property
    def size_bytes(self) -> int:
        """Sum of all files."""
        return sum(f.size_bytes for f in self.files)


class ModelSource(ABC):
    """Knows where one kind of reference leads. `schemes` are the words before the colon, such as ``pkg``."""

    schemes: frozenset[str]

    def canonical(self, reference: ModelRef) -> str:
        """Return the one spelling for everything that means the same model.

        No I/O. Called by the hive in a helper thread, with `plugin_timeout_s` to answer, once for each text.
        """
        return str(reference)

    @abstractmethod
    def resolve(self, reference: ModelRef, formats: Sequence[str]) -> LocalModel | RemoteModel:
        """Return what `reference` names: the files in place if they are here, else what to fetch.

        Called by the hive in a helper thread, at every spawn and pull; may ask the network, must not write.
        `formats` are those that the wanted backends read, best first; empty for any.
        Raises `ModelNotFound`, `AccessDenied`, `InvalidRequest` or `DownloadFailed`.
        """


class OnDisk(Struct, frozen=True):
    """Where an engine may leave what it computed of prompts, for the next one of the same model.

    All workers share `folder`, which may not be there yet and is for its owner alone; files in it may take
    `limit_bytes` in all. `Engine.close` may take `within_s` seconds for it. `model` is a name of this very version of
    the model's files.
    """

    folder: Path
    limit_bytes: int
    within_s: float
    model: str


class LoadOptions(Struct, frozen=True):
    """How a worker is to load a model. `context_tokens` and `threads` None mean the backend's own choice.

    `context_tokens` is what one request may use, prompt and answer together; with several slots each of them gets as
    much. `slots` is the most requests rbee will run at a time: an engine may offer fewer, never more. 0 leaves the
    number to a backend that declares ``batching``; no other is sent it. `tuning` says nothing that needs a word
    which the backend does not declare. `on_disk` None means that nothing of a prompt may be written to a disk.
    """

    context_tokens: int | None = None
    slots: int = 1
    threads: int | None = None
    tuning: Tuning = Tuning()
    on_disk: OnDisk | None = None


class Estimate(Struct, frozen=True):
    """Memory a loaded model will take, in bytes, where its device has its memory, for all the slots together.

    The three parts are what people are shown. `mapped_bytes` of their sum are files mapped into the host's memory,
    which look free to the system again while nobody reads them; all the rest is private. `context_tokens` is the
    context of one request that the numbers are for.
    """

    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    context_tokens: int
    mapped_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """What must be free before a worker starts."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes

    @property
    def private_bytes(self) -> int:
        """What the worker alone holds, so that the system counts it as taken."""
        return self.total_bytes - self.mapped_bytes


class StopPolicy(Struct, frozen=True):
    """How long to wait for a worker after asking it over HTTP, and after SIGTERM, before SIGKILL. Seconds."""

    ask_s: float
    terminate_s: float


class EngineInfo(Struct, frozen=True):
    """What was really loaded. `slots` requests may be generated at the same time, one `generate` call each.

    `slots` is at most `LoadOptions.slots`. `context_tokens` is what one request may use, however many run beside it.
    `accelerator` is where the loaded model reports to be; rbee compares it with what was asked.

    `chat_template` says whether the model has one. Where it does, a question that was asked as a plain prompt arrives
    as messages; where it does not, as the prompt to go on with. None, which says nothing, is taken for no.
    """

    context_tokens: int
    slots: int = 1
    architecture: str = ""
    accelerator: Accelerator = "cpu"
    chat_template: bool | None = None


class Engine(ABC):
    """A loaded model inside a worker process.

    Two ways to write one. The plain way: `info().slots` is 1 and `generate` computes in the thread that calls it,
    which is always the one that `Backend.load` ran in. The batching way: `slots` is larger, `generate` is called in
    that many threads at once, each call hands its request to the engine's own step loop and yields what the loop
    puts in its queue. Callers see no difference.
    """

    @abstractmethod
    def info(self) -> EngineInfo:
        """Return what was loaded. Called once, after `Backend.load` returned and in its thread."""

    @abstractmethod
    def generate(self, request: GenerateRequest, cancel: CancelToken) -> Iterator[EngineEvent]:
        """Yield `Token` after `Token`, then `Finished`; `PromptProgress` before, while a long prompt is read.

        Called in a worker thread, at most `info().slots` calls at a time. Once `cancel.is_set()` the iterator must end
        within a second, during the prompt too, without `Finished`; it may also be closed early. If ``seed`` is
        declared, the same request with the same seed yields the same text, whatever runs in the other slots: a batch
        whose numbers depend on who else is in it must leave requests with a seed out of it. Raises `PromptTooLong`
        before the first event.
        """

    def count(self, request: GenerateRequest, cancel: CancelToken) -> int:
        """Return how many tokens the prompt of `request` has, whether or not the context has room for them.

        Called as `generate` is, in one of its slots, and nothing is computed. Once `cancel.is_set()` it must end within
        a second, with any number. It raises what `generate` would for a prompt that cannot be read. One that is not
        written answers with NOT_SUPPORTED.
        """
        del request, cancel
        error = InvalidRequest("This worker's backend cannot count tokens without answering", hint="choose another one")
        error.code, error.http_status = NotSupported.code, NotSupported.http_status
        raise error

    def embed(self, request: EmbedRequest, cancel: CancelToken) -> Iterator[Embedded]:
        """Yield a vector for each text, in any order, as they come; only if ``embeddings`` is declared.

        Called as `generate` is, in one of its slots, and ended in the same ways. Each vector is a sign of life. Raises
        `PromptTooLong` for a text that does not fit, `InvalidRequest` where the model has no vectors to give.
        """
        del request, cancel
        raise _cannot("make vectors of texts", "embeddings")

    def rerank(self, request: RerankRequest, cancel: CancelToken) -> Iterator[Ranked]:
        """Yield a score for each document, as `embed` does; only if ``rerank`` is declared."""
        del request, cancel
        raise _cannot("score documents", "rerank")

    def close(self) -> None:  # noqa: B027  # optional: most engines free everything with the process
        """Free what the process's end does not. Called once, on the main thread, when no `generate` runs."""


def _cannot(what: str, word: str) -> InvalidRequest:
    return InvalidRequest(
        f"This worker's backend cannot {what}",
        hint=f"`rbee backends --json` shows which backends can: they declare {word}",
    )


class Progress(Protocol):
    """Receives loading progress; returns False when loading should be given up."""

    def __call__(self, fraction: float, detail: str = "") -> bool:
        """Report that `fraction` (0..1) of the load is done; every call counts as a sign of life."""
        ...


class Backend(ABC):
    """One way to run models, as `--backend` names it. Cheap to build; holds no engine.

    `name` is lower-case letters, digits and dashes. `capabilities` are words of `CAPABILITIES`; `priority` orders
    backends when none was asked for, larger first: accelerators should be above 0, experiments below. `obeys` names
    fields of `GenerateRequest` that it obeys although it does not declare the word for all of their kind, such as
    ``logit_bias`` without ``samplers``.

    The hive calls `availability`, `devices`, `estimate`, `environment` and `stop_policy` in helper threads, several at
    a time, and waits `plugin_timeout_s` (10 s) for each: one that takes longer fails what it was called for, by name.
    Each is called at most once for one decision (`environment` once for each device that it leaves open), and none when
    workers are listed. The command line calls them in its
    main thread, the worker calls `devices` before `load`, in the engine's thread; neither has a limit of its own.
    """

    name: str
    accelerator: Accelerator
    formats: frozenset[str]
    capabilities: frozenset[str] = frozenset({"stream", "cancel"})
    obeys: frozenset[str] = frozenset()
    priority: int = 0

    def availability(self) -> Availability:
        """Return whether this backend can run here. Called at every spawn; must not import a slow engine.

        What it raises counts as "no", with the exception as the reason.
        """
        return Availability(usable=True)

    @abstractmethod
    def devices(self) -> Sequence[Device]:
        """Return the devices, index 0 first; empty means unusable.

        Called right after an `availability` that is usable and names no devices itself, and again by the worker before
        it loads: a device that is gone by then fails the load.
        """

    def estimate(self, model: LocalModel, options: LoadOptions) -> Estimate:
        """Return what `model` will need: parse headers, load nothing. Called once a spawn.

        Raises `ModelLoadFailed` for a file that cannot be a model of this backend.
        """
        return Estimate(model.size_bytes, 0, 0, options.context_tokens or 0)

    def prepare(self) -> None:  # noqa: B027  # optional: it only saves time
        """Import the engine and load nothing. Called in a worker process that may come to use this backend."""

    def environment(self, device: Device) -> Mapping[str, str]:
        """Return environment variables for a worker on `device`, such as ``CUDA_VISIBLE_DEVICES``.

        `device` is as `devices` returned it in the same spawn. Called once a spawn for each device that may be used.
        """
        del device
        return {}

    def stop_policy(self, recommended: StopPolicy) -> StopPolicy:
        """Return how patient to be when stopping a worker; the recommended policy suits most.

        Finite seconds, 0 or more; never more than the hive itself may take. Called when a worker is to stop; if this
        raises, hangs or returns anything else, the recommended policy holds.
        """
        return recommended

    @abstractmethod
    def load(self, model: LocalModel, device: Device, options: LoadOptions, progress: Progress) -> Engine:
        """Load `model` and return an engine. Called once, in the worker process, in the engine thread.

        Raises `ModelLoadFailed`; aborting the process is survived too. Call `progress` at least every few seconds.
        """
