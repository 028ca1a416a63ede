"""`GET /metrics` of a running hive: what was asked of it is counted, and nobody without the key reads it."""

import urllib.request
from urllib.error import HTTPError

import pytest

from rbee_core import wire
from rbee_kit.program import Hive, Home
from tests.support.metrics import samples

pytestmark = pytest.mark.scripted

KEY = "k" * 32
MODEL = "scripted:tokens=3"


def scrape(hive: Hive, query: str = "", key: str = KEY) -> dict[tuple[str, ...], float]:
    url = f"http://127.0.0.1:{hive.port}/metrics{query}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return samples(answer.read().decode())


def test_what_is_asked_of_a_hive_is_counted(home: Home) -> None:
    home.environment["RBEE_API_KEY"] = KEY
    hive = home.start_hive()
    assert scrape(hive)["rbee_requests_waiting", ""] == 0
    list(hive.client.infer_with_model(wire.PoolInference(model_ref=MODEL, prompt="one two")))
    found = scrape(hive, "?aliases=vllm")
    assert found["rbee_requests_total", MODEL, "stop"] == 1
    assert found["vllm:request_success_total", MODEL, "stop"] == 1
    assert (found["rbee_prompt_tokens_total", MODEL], found["rbee_generated_tokens_total", MODEL]) == (2, 3)
    assert found["rbee_queue_seconds_count", MODEL] == 1
    assert found["rbee_context_used_ratio", MODEL] == pytest.approx(5 / 4096)
    assert found["rbee_download_bytes_total",] == 0
    assert found["rbee_worker_starts_total", MODEL, "scripted", "cpu"] == 1
    assert found["rbee_model_load_seconds_count", MODEL, "scripted", "cpu"] == 1
    assert found["rbee_workers", "idle", "scripted"] == 1
    assert found["rbee_memory_bytes", "total", "host"] > found["rbee_memory_bytes", "reserved", "cpu"] > 0
    assert found["rbee_http_responses_total", "GET", "/metrics", "200"] == 1
    assert found["rbee_http_responses_total", "POST", "/v1/inference", "200"] == 1
    with pytest.raises(HTTPError, match="401"):
        scrape(hive, key="wrong")
    with pytest.raises(HTTPError, match="400"):
        scrape(hive, "?aliases=ollama")
    hive.client.stop_worker(hive.client.list_workers()[0].worker_id)
    found = scrape(hive)
    assert found["rbee_worker_exits_total", MODEL, "scripted", "cpu", "asked"] == 1
    assert found["rbee_http_responses_total", "GET", "/metrics", "401"] == 1
    assert ("rbee_workers", "idle", "scripted") not in found
