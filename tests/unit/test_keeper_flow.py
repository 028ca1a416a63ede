"""The eight phases against a hive that is played: their order, their retries, and how they fail."""

import io
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from rbee_core import __version__, client, wire
from rbee_core.client import HiveClient
from rbee_core.errors import LoadingTimeout, RbeeError, RemoteError, StreamBroken, VersionMismatch
from rbee_core.keeper.flow import Flow, compatible
from rbee_core.keeper.interrupt import Interrupted
from rbee_core.keeper.screen.output import TextOut
from rbee_core.keeper.screen.phases import PhaseLog
from rbee_core.keeper.screen.render import Screen
from rbee_core.settings import Settings

MODEL = "pkg:demo/demo.gguf"


def worker(state: str = "idle", **more: Any) -> wire.WorkerInfo:
    facts = {"worker_id": "worker-abc123", "model_ref": MODEL, "backend": "llamacpp-cpu", "device": "cpu"}
    return wire.WorkerInfo(**facts, state=cast("Any", state), log_path="/logs/worker-abc123.log", **more)


def remote(code: str) -> RemoteError:
    return RemoteError(code=code, message=f"{code} happened", http_status=500, details={})


class PlayedHive:
    """Answers as it was told; each list is used up from the front, its last item for good."""

    def __init__(self) -> None:
        self.version = __version__
        self.idle: wire.WorkerInfo | None = None
        self.spawned = "loading"
        self.device, self.devices = "cpu", 1
        self.polls = [worker("loading"), worker("loading", progress=0.5), worker()]
        self.streams: list[list[wire.StreamEvent | BaseException]] = [[*tokens("Hel", "lo"), done()]]
        self.downloads = [progress("done")]
        self.cancelled: list[str] = []
        self.spawns: list[wire.SpawnRequest] = []
        self.requests: list[wire.PoolInference] = []
        self.dies = False

    def health(self, **_: Any) -> wire.Health:
        if self.requests and self.dies:
            raise RbeeError("Nobody there")
        return wire.Health(status="alive", version=self.version, api_version="v1")

    def find_worker(self, request: wire.SpawnRequest) -> wire.WorkerInfo | None:
        assert request.model_ref == MODEL
        return self.idle

    def download(self, request: wire.DownloadRequest) -> wire.DownloadProgress:
        assert request.model_ref == MODEL
        return self.downloads[0]

    def follow(self, download_id: str) -> Generator[wire.DownloadProgress]:
        assert download_id == "download-1"
        yield from self.downloads[1:]

    def spawn(self, request: wire.SpawnRequest) -> wire.SpawnResponse:
        self.spawns.append(request)
        return wire.SpawnResponse(
            worker_id="worker-abc123",
            url="",
            state=cast("Any", self.spawned),
            model_ref=request.model_ref,
            backend="llamacpp-cpu",
            device=self.device,
            devices=self.devices,
        )

    def worker(self, _worker_id: str) -> wire.WorkerInfo:
        return self.polls.pop(0) if len(self.polls) > 1 else self.polls[0]

    def infer_with_model(self, request: wire.PoolInference) -> Generator[list[wire.StreamEvent]]:
        self.requests.append(request)
        for item in self.streams.pop(0) if len(self.streams) > 1 else self.streams[0]:
            if isinstance(item, BaseException):
                raise item
            yield [item]

    def cancel_request(self, request_id: str, **_: Any) -> None:
        self.cancelled.append(request_id)


def progress(state: str, done_bytes: int = 98_000_000, **more: Any) -> wire.DownloadProgress:
    facts = {"id": "download-1", "reference": MODEL, "done_bytes": done_bytes, "total_bytes": 98_000_000, **more}
    return wire.DownloadProgress(**facts, state=cast("Any", state))


def tokens(*texts: str) -> list[wire.StreamEvent]:
    return [wire.StreamEvent(token=text, index=i) for i, text in enumerate(texts)]


def waiting(position: int, for_what: str, progress: float = 0.0) -> wire.StreamEvent:
    return wire.StreamEvent(waiting=wire.Waiting(position=position, for_what=for_what, progress=progress))


def done() -> wire.StreamEvent:
    return wire.StreamEvent(done=True, total_tokens=10, duration_ms=234, finish_reason="stop")


class Run:
    def __init__(self, hive: PlayedHive, mode: str, *, queue: bool = True, **wanted: Any) -> None:
        self.stderr, self.stdout = io.StringIO(), io.BytesIO()
        self.phases = PhaseLog(Screen(self.stderr))
        asked = {name: wanted.pop(name, None) for name in ("backend", "device", "context_tokens")}
        spawn = wire.SpawnRequest(model_ref=MODEL, **asked)
        request = wire.InferenceRequest(prompt="Hi", **wanted)
        self.flow = Flow(spawn, request, self.phases, TextOut(self.stdout), mode, queue=queue)
        self.hive = hive

    def go(self) -> list[str]:
        self.flow.run(lambda: cast("HiveClient", self.hive), Settings(home=Path("/nowhere")))
        return self.stderr.getvalue().splitlines()


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr("time.sleep", taken.append)
    monkeypatch.setattr(client, "jittered", lambda delay_s: delay_s)
    return taken


def test_ephemeral_inference_looks_as_promised() -> None:
    run = Run(PlayedHive(), "ephemeral", backend="llamacpp-cpu")

    assert run.go() == [
        "[Phase 1] Skipped (ephemeral mode)",
        f"[Phase 2] ✓ Pool health: healthy (version {__version__})",
        "[Phase 3-5] ✓ Worker spawned: worker-abc123 (state: loading), backend: llamacpp-cpu, device: cpu",
        "[Phase 6] Worker registered in pool manager",
        "[Phase 7] Waiting for worker ready..... ✓ Worker ready!",
        "[Phase 8] Executing inference...",
        "Tokens:",
        "",
        "✓ Inference complete!",
        "Total tokens: 10",
        "Duration: 234 ms",
        "Speed: 42.74 tokens/sec",
    ]
    assert run.stdout.getvalue() == b"Hello\n"


def test_n10_the_speeds_of_prompt_and_generation_are_told_apart() -> None:
    hive = PlayedHive()
    end = wire.StreamEvent(
        done=True, total_tokens=20, duration_ms=352, finish_reason="length", prompt_tokens=36, first_token_ms=152
    )
    hive.streams = [[*tokens("Hel", "lo"), end]]
    run = Run(hive, "ephemeral", backend="llamacpp-cpu")

    assert run.go()[-3:] == [
        "Speed: 56.82 tokens/sec",
        "Prompt: 36 tokens, 236.84 tokens/sec",
        "Generation: 20 tokens, 95.00 tokens/sec",
    ]
    data = run.flow.outcome.as_data()
    assert (data["prompt_tokens_per_s"], data["generation_tokens_per_s"]) == (236.84, 95.0)
    assert "logprobs" not in data


def test_the_worker_is_one_that_knows_what_the_request_says() -> None:
    hive = PlayedHive()
    Run(hive, "ephemeral", grammar="root ::= .", top_k=5).go()
    assert hive.spawns[0].needs == ["grammar"]


def test_how_much_was_guessed_is_told() -> None:
    hive = PlayedHive()
    end = wire.StreamEvent(
        done=True, total_tokens=20, duration_ms=300, finish_reason="stop", prompt_tokens=5, first_token_ms=100,
        drafted_tokens=16, accepted_tokens=12,
    )  # fmt: skip
    hive.streams = [[*tokens("Hel", "lo"), end]]
    run = Run(hive, "ephemeral", backend="llamacpp-cpu")

    assert run.go()[-1] == "Generation: 20 tokens, 12 of them guessed, 95.00 tokens/sec"
    data = run.flow.outcome.as_data()
    assert (data["drafted_tokens"], data["accepted_tokens"]) == (16, 12)


def test_likelihoods_are_part_of_the_object() -> None:
    hive = PlayedHive()
    likely = wire.Logprobs(id=5, token="lo", bytes=[108, 111], logprob=-0.5)
    hive.streams = [[*tokens("Hel"), wire.StreamEvent(token="lo", index=1, logprobs=likely), done()]]
    run = Run(hive, "ephemeral", backend="llamacpp-cpu")

    run.go()

    assert run.flow.outcome.as_data()["logprobs"] == [likely]


def test_download_is_phase_3() -> None:
    hive = PlayedHive()
    hive.downloads = [progress("running", 0, note="Q4_K_M"), progress("running", 49_000_000), progress("done")]
    run = Run(hive, "ephemeral", backend="llamacpp-cpu")

    lines = run.go()

    assert lines[2] == f"[Phase 3] Downloading {MODEL} (Q4_K_M), 98 MB"
    assert lines[-1] == "Speed: 42.74 tokens/sec"
    assert any(line.startswith(f"[Phase 3] ✓ Downloaded {MODEL} (Q4_K_M): 98 MB in ") for line in lines)
    phases = run.phases.as_data()
    assert [p["phase"] for p in phases] == ["1", "2", "3", "3-5", "6", "7", "8"]
    assert "Downloaded" in phases[2]["detail"]


def test_failed_download_is_a_failure_of_phase_3() -> None:
    hive = PlayedHive()
    why = wire.ErrorObject(code="ACCESS_DENIED", message="The hub refuses it", details={"hint": "set HF_TOKEN"})
    hive.downloads = [progress("running", 0), progress("failed", 10, error=why)]
    run = Run(hive, "ephemeral")

    with pytest.raises(RemoteError, match="The hub refuses it") as caught:
        run.go()

    assert (caught.value.code, caught.value.hint) == ("ACCESS_DENIED", "set HF_TOKEN")
    assert run.phases.entered[-1].phase == "3"


def test_effective_context_is_told() -> None:
    hive = PlayedHive()
    hive.polls = [worker("loading"), worker(context_tokens=4096)]
    run = Run(hive, "ephemeral")

    assert run.go()[-1] == "Context: 4096 tokens"
    assert run.flow.outcome.as_data()["context_tokens"] == 4096


@pytest.mark.parametrize("asked", [{}, {"backend": "cpu"}])
def test_n31_the_chosen_backend_is_named_also_for_one_that_was_asked_for(asked: dict[str, str]) -> None:
    lines = Run(PlayedHive(), "ephemeral", **asked).go()

    assert lines[2].endswith("✓ Worker spawned: worker-abc123 (state: loading), backend: llamacpp-cpu, device: cpu")


@pytest.mark.parametrize(
    ("template", "line"),
    [(True, "Prompt: 5 tokens, through the model's chat template"), (False, "Prompt: 5 tokens")],
)
def test_m2_the_summary_says_whether_the_prompt_went_through_a_template(template: bool, line: str) -> None:
    hive = PlayedHive()
    last = msgspec.structs.replace(done(), prompt_tokens=5, chat_template=template)
    hive.streams = [[*tokens("Hello"), last]]
    run = Run(hive, "ephemeral")

    assert run.go()[-1] == line
    assert run.flow.outcome.as_data()["chat_template"] is template


def test_m4_a_device_chosen_among_several_is_named_with_their_number() -> None:
    hive = PlayedHive()
    hive.device, hive.devices = "cuda:1", 2
    assert Run(hive, "ephemeral").go()[2].endswith("(state: loading), backend: llamacpp-cpu, device: cuda:1 of 2")
    assert Run(hive, "ephemeral", device=1).go()[2].endswith(", device: cuda:1")


def test_idle_worker_is_used_at_once() -> None:
    hive = PlayedHive()
    hive.idle = worker()
    run = Run(hive, "persistent")

    lines = run.go()

    assert lines[:2] == ["[Phase 1] ✓ Found idle worker: worker-abc123", "[Phase 8] Executing inference..."]
    assert [p.phase for p in run.phases.entered] == ["1", "8"]
    assert run.flow.outcome.log_path == "/logs/worker-abc123.log"


def test_another_worker_than_the_one_that_was_seen_is_told() -> None:
    hive = PlayedHive()
    hive.idle = worker()
    hive.polls = [worker().__class__(**{**wire.to_builtins(worker()), "worker_id": "worker-new"})]
    hive.streams = [[wire.StreamEvent(worker_id="worker-new"), *tokens("Hi"), done()]]
    run = Run(hive, "persistent")

    lines = run.go()

    assert "[Phase 8] Worker worker-new answers" in lines
    assert [p.phase for p in run.phases.entered] == ["1", "8"]
    assert run.flow.outcome.worker == "worker-new"
    assert run.stdout.getvalue() == b"Hi\n"


def test_the_model_is_asked_for_as_it_was_spawned() -> None:
    hive = PlayedHive()

    Run(hive, "ephemeral", backend="llamacpp-cpu", context_tokens=128, max_tokens=7, queue=False).go()

    (sent,) = hive.requests
    assert (sent.model_ref, sent.backend, sent.context_tokens) == (MODEL, "llamacpp-cpu", 128)
    assert (sent.prompt, sent.max_tokens, sent.queue) == ("Hi", 7, False)


def test_place_and_reason_of_a_wait_are_told_once_each() -> None:
    hive = PlayedHive()
    hive.idle = worker()
    waits = [waiting(2, "a slot"), waiting(2, "a slot"), waiting(1, "a slot"), waiting(1, "the model", 0.5)]
    hive.streams = [[*waits, wire.StreamEvent(worker_id="worker-abc123"), *tokens("Hi"), done()]]

    lines = Run(hive, "persistent").go()

    assert [line for line in lines if "Waiting" in line] == [
        "[Phase 8] Waiting for a slot, place 2",
        "[Phase 8] Waiting for a slot, place 1",
        "[Phase 8] Waiting for the model (50% loaded), place 1",
    ]
    assert lines.count("Tokens:") == 1


def test_n1_a_long_prompt_shows_in_tenths_how_far_it_is() -> None:
    hive = PlayedHive()
    read = [wire.StreamEvent(prompt=wire.ReadPrompt(done=done, total=1000)) for done in range(0, 1001, 50)]
    hive.streams = [[*read, *tokens("Hel", "lo"), done()]]
    run = Run(hive, "ephemeral")

    lines = run.go()

    tenths = " ".join(f"{part}%" for part in range(10, 101, 10))
    assert f"[Phase 8] Reading the prompt (1000 tokens): {tenths}" in lines
    assert lines[lines.index("Tokens:") - 1].startswith("[Phase 8] Reading")
    assert run.stdout.getvalue() == b"Hello\n"


def test_busy_worker_of_a_running_hive_is_not_called_spawned() -> None:
    hive = PlayedHive()
    hive.spawned = "busy"

    lines = Run(hive, "persistent").go()

    assert "Worker already running: worker-abc123 (state: busy" in lines[2]


def test_other_minor_version_is_refused_in_phase_2() -> None:
    hive = PlayedHive()
    hive.version = "99.0.1"
    run = Run(hive, "ephemeral")

    with pytest.raises(VersionMismatch):
        run.go()

    assert run.phases.entered[-1].phase == "2"


@pytest.mark.parametrize(
    ("theirs", "fits"), [("0.1.0", True), ("0.1.9", True), ("0.1.0.dev3", True), ("0.2.0", False), ("1.1.0", False)]
)
def test_versions_fit_by_major_and_minor(theirs: str, fits: bool) -> None:
    assert compatible("0.1.3", theirs) is fits


def test_worker_that_fails_to_load_says_why() -> None:
    hive = PlayedHive()
    why = wire.ErrorObject(code="MODEL_LOAD_FAILED", message="Cannot load it", details={"hint": "get it again"})
    hive.polls = [worker("loading"), worker("failed", error=why)]
    run = Run(hive, "ephemeral")

    with pytest.raises(RemoteError, match="Cannot load it") as caught:
        run.go()

    said = caught.value
    assert (said.code, said.hint, said.http_status) == ("MODEL_LOAD_FAILED", "get it again", 422)
    assert run.phases.entered[-1].phase == "7"


def test_load_without_progress_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hive = PlayedHive()
    hive.polls = [worker("loading", progress=0.25)]
    now = iter(range(0, 10**6, 100))
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))

    with pytest.raises(LoadingTimeout, match="25%"):
        Run(hive, "ephemeral").go()


def test_busy_slots_are_asked_again_three_times(naps: list[float]) -> None:
    hive = PlayedHive()
    hive.idle = worker()
    hive.streams = [[remote("ALL_SLOTS_BUSY")]]
    run = Run(hive, "persistent")

    with pytest.raises(RemoteError) as caught:
        run.go()

    assert caught.value.exit_code == 75
    assert naps == [1.0, 2.0, 4.0]
    assert len(hive.requests) == 4


def test_slot_that_becomes_free_is_used(naps: list[float]) -> None:
    hive = PlayedHive()
    hive.idle = worker()
    hive.streams = [[remote("ALL_SLOTS_BUSY")], [*tokens("Hi"), done()]]
    run = Run(hive, "persistent")

    run.go()

    assert naps == [1.0]
    assert run.stdout.getvalue() == b"Hi\n"


def test_partial_text_stays_when_the_worker_dies() -> None:
    hive = PlayedHive()
    hive.streams = [[*tokens("Hel", "lo"), remote("WORKER_CRASHED")]]
    run = Run(hive, "ephemeral")

    with pytest.raises(RemoteError):
        run.go()

    assert run.stdout.getvalue() == b"Hello\n"
    assert run.flow.outcome.tokens == 2
    assert len(hive.requests) == 1


def test_death_of_the_hive_is_named() -> None:
    hive = PlayedHive()
    hive.streams = [[*tokens("Hel"), StreamBroken(tokens=1, why="connection reset")]]
    hive.dies = True
    run = Run(hive, "ephemeral")

    with pytest.raises(StreamBroken, match="after 1 tokens: the hive is gone"):
        run.go()


@pytest.mark.parametrize("stop", [Interrupted(2), BrokenPipeError()])
def test_worker_is_told_when_nobody_waits_any_more(stop: BaseException) -> None:
    hive = PlayedHive()
    hive.streams = [[*tokens("Hel"), stop]]

    with pytest.raises(type(stop)):
        Run(hive, "ephemeral").go()

    assert hive.cancelled == [hive.requests[0].request_id]


def test_deadline_covers_what_came_before_the_request() -> None:
    hive = PlayedHive()

    Run(hive, "ephemeral", timeout_s=5.0).go()

    sent = hive.requests[0].timeout_s
    assert sent is not None
    assert 0 < sent <= 5.0
