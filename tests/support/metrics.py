"""What Prometheus reads of a text, by its own parser."""

from prometheus_client.parser import text_string_to_metric_families

ORDER = (
    "model_name", "kind", "state", "backend", "device", "method", "route", "status", "outcome", "finished_reason",
    "reason", "version", "le",
)  # fmt: skip


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and the values of its labels, in the order above."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels, key=ORDER.index))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
