"""Which metrics there are, under which names. The one list: the page of them, the dashboard and the text follow it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from rbee_core.hive.metrics.now import Now
from rbee_core.hive.metrics.numbers import Histogram, Labels, Numbers

Kind = Literal["counter", "gauge", "histogram"]
Values = Mapping[Labels, float] | Histogram


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: what it is called and means, its labels, and where its values are. `vllm` is its name there."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    values: Callable[[Numbers, Now], Values]
    vllm: str = ""


MODEL = ("model_name",)
ON = ("model_name", "backend", "device")

METRICS: tuple[Metric, ...] = (
    Metric("rbee_build_info", "gauge", "The version, as a label.", ("version",), lambda _, now: now.build),
    Metric(
        "rbee_requests_running", "gauge", "Requests that hold a slot.", MODEL, lambda _, now: now.running,
        "vllm:num_requests_running",
    ),
    Metric(
        "rbee_requests_waiting", "gauge", "Requests that wait for a slot, a model or memory.", MODEL,
        lambda _, now: now.waiting, "vllm:num_requests_waiting",
    ),
    Metric(
        "rbee_requests_total", "counter", "Requests that ended, by how: stop, length, an error's code, or left.",
        (*MODEL, "outcome"), lambda numbers, _: numbers.requests,
    ),
    Metric(
        "rbee_prompt_tokens_total", "counter", "Tokens of prompts, cached ones too.", MODEL,
        lambda numbers, _: numbers.prompt_tokens, "vllm:prompt_tokens_total",
    ),
    Metric(
        "rbee_cached_tokens_total", "counter", "Tokens of prompts that were computed for an earlier request.", MODEL,
        lambda numbers, _: numbers.cached_tokens, "vllm:prefix_cache_hits_total",
    ),
    Metric(
        "rbee_generated_tokens_total", "counter", "Tokens that were generated.", MODEL,
        lambda numbers, _: numbers.generated_tokens, "vllm:generation_tokens_total",
    ),
    Metric(
        "rbee_time_to_first_token_seconds", "histogram", "From a request's arrival to its first token.", MODEL,
        lambda numbers, _: numbers.first_token_s, "vllm:time_to_first_token_seconds",
    ),
    Metric(
        "rbee_inter_token_seconds", "histogram", "Between two tokens, on the average of each request.", MODEL,
        lambda numbers, _: numbers.per_token_s, "vllm:inter_token_latency_seconds",
    ),
    Metric(
        "rbee_request_seconds", "histogram", "From a request's arrival to its end.", MODEL,
        lambda numbers, _: numbers.request_s, "vllm:e2e_request_latency_seconds",
    ),
    Metric(
        "rbee_queue_seconds", "histogram", "From a request's arrival to its slot.", MODEL,
        lambda numbers, _: numbers.queue_s, "vllm:request_queue_time_seconds",
    ),
    Metric(
        "rbee_prefill_seconds", "histogram", "From a request's slot to its first token.", MODEL,
        lambda numbers, _: numbers.prefill_s, "vllm:request_prefill_time_seconds",
    ),
    Metric(
        "rbee_decode_seconds", "histogram", "From a request's first token to its last.", MODEL,
        lambda numbers, _: numbers.decode_s, "vllm:request_decode_time_seconds",
    ),
    Metric("rbee_slots", "gauge", "Requests that the workers can serve at a time.", MODEL, lambda _, now: now.slots),
    Metric(
        "rbee_workers", "gauge", "Live workers by their state.", ("state", "backend"), lambda _, now: now.workers
    ),
    Metric(
        "rbee_worker_starts_total", "counter", "Workers that were started.", ON, lambda numbers, _: numbers.starts
    ),
    Metric(
        "rbee_worker_exits_total", "counter", "Workers that ended, by why.", (*ON, "reason"),
        lambda numbers, _: numbers.exits,
    ),
    Metric(
        "rbee_model_load_seconds", "histogram", "From a worker's start to its model being loaded.", ON,
        lambda numbers, _: numbers.load_s,
    ),
    Metric(
        "rbee_memory_bytes", "gauge", "Memory: reserved by workers, and in all and available of the machine's.",
        ("kind", "device"), lambda _, now: now.memory,
    ),
    Metric(
        "rbee_context_used_ratio", "gauge", "What the request that ended last used of the context it had.", MODEL,
        lambda numbers, _: numbers.context_used,
    ),
    Metric(
        "rbee_download_bytes_total", "counter", "Bytes of models that were fetched.", (), lambda _, now: now.downloaded
    ),
    Metric(
        "rbee_http_responses_total", "counter", "Answers over HTTP. A stream counts once it has ended.",
        ("method", "route", "status"), lambda numbers, _: numbers.responses,
    ),
)  # fmt: skip
