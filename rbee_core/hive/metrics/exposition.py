"""The numbers as Prometheus reads them. Its client is imported at the first scrape: most hives are never scraped."""

from collections.abc import Iterator
from importlib import import_module
from itertools import accumulate
from typing import Any

from rbee_core.hive.metrics.names import METRICS, Metric
from rbee_core.hive.metrics.now import Now
from rbee_core.hive.metrics.numbers import Histogram, Numbers

FINISHED = ("stop", "length")


def text(numbers: Numbers, now: Now, *, vllm: bool = False) -> bytes:
    """Return all metrics; with `vllm`, those that vLLM has too also under its names."""
    client: Any = import_module("prometheus_client")
    return client.generate_latest(_Collected(numbers, now, vllm=vllm))


class _Collected:
    """What the client's writer takes in the place of its own registry."""

    def __init__(self, numbers: Numbers, now: Now, *, vllm: bool) -> None:
        self._core: Any = import_module("prometheus_client.core")
        self._numbers, self._now, self._vllm = numbers, now, vllm

    def collect(self) -> Iterator[Any]:
        """Yield every family of metrics."""
        for metric in METRICS:
            yield self._family(metric, metric.name)
            if self._vllm and metric.vllm:
                yield self._family(metric, metric.vllm)
        if self._vllm:
            yield self._successes()

    def _family(self, metric: Metric, name: str) -> Any:
        values = metric.values(self._numbers, self._now)
        kinds = {
            "counter": self._core.CounterMetricFamily,
            "gauge": self._core.GaugeMetricFamily,
            "histogram": self._core.HistogramMetricFamily,
        }
        family: Any = kinds[metric.kind](name, metric.help, labels=metric.labels)
        if isinstance(values, Histogram):
            for labels, counts in values.counts.items():
                family.add_metric(labels, _buckets(values, counts), values.sums[labels])
        else:
            for labels, value in values.items():
                family.add_metric(labels, value)
        return family

    def _successes(self) -> Any:
        """Return requests by their finish reason, which vLLM counts for those that came to an end of text."""
        family: Any = self._core.CounterMetricFamily(
            "vllm:request_success_total", "Requests that ended well.", labels=("model_name", "finished_reason")
        )
        for (model, outcome), count in self._numbers.requests.items():
            if outcome in FINISHED:
                family.add_metric((model, outcome), count)
        return family


def _buckets(histogram: Histogram, counts: list[int]) -> list[tuple[str, int]]:
    bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    return list(zip(bounds, accumulate(counts), strict=True))
