"""Steps about texts that are written at the same time, in the slots of one worker."""

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from pytest_bdd import given, parsers, then, when

from rbee_core import wire
from rbee_core.errors import RbeeError
from rbee_kit.asking import PROMPT
from rbee_kit.judge import SUBJECT
from rbee_kit.loaded import WORD, Loaded, Text
from rbee_kit.waiting import eventually

FEW, MANY = 8, 48
"""How long a text is: long enough to be disturbed in, on a quick machine, and short enough for a slow one."""
READING_S = 2.0
SHORTEST, LONGEST = 64, 590  # words of a long prompt; so many fit into three quarters of 1024 tokens
ENDLESS_TOKENS = 4000
PATIENCE_S = 120.0
HELD_UP, NOT_HELD_UP_S = 0.5, 0.2


class Reader(threading.Thread):
    """Receives a long text until it is told to leave, and remembers when something came."""

    def __init__(self, loaded: Loaded) -> None:
        super().__init__(daemon=True)
        self._loaded, self._client = loaded, loaded.hive.connect()
        self._leave = threading.Event()
        self.came_s: list[float] = []
        self.error: RbeeError | None = None
        self.start()
        eventually(lambda: self.came_s or not self.is_alive(), PATIENCE_S, what="the first word")

    def run(self) -> None:
        """Receive, up to the end or an error."""
        try:
            self._receive()
        except RbeeError as error:
            self.error = error

    def _receive(self) -> None:
        wanted = wire.build(wire.WorkerInference, prompt=PROMPT, max_tokens=ENDLESS_TOKENS, temperature=0.0)
        with closing(self._client.infer(self._loaded.worker.worker_id, wanted)) as events:
            for event in events:
                if event.token is not None:
                    self.came_s.append(time.monotonic())
                if self._leave.is_set():
                    return

    def leave(self) -> None:
        """Have no more of it. Fails if it ended with an error before, or without a word."""
        self._leave.set()
        self.join(PATIENCE_S)
        assert self.error is None, f"a text that others were written beside ended with: {self.error}"
        assert self.came_s, "a text that others were written beside ended without a word"


def seeded(loaded: Loaded, number: int, tokens: int) -> Text:
    prompt = f"{PROMPT} there were {number} bees"
    client = loaded.hive.connect()
    return loaded.ask(client, prompt=prompt, max_tokens=tokens, temperature=1.5, seed=number)


@given("it is known how many tokens are written in a second", target_fixture="tokens")
def tokens_a_second(loaded: Loaded) -> int:
    assert loaded.worker.slots >= 2, "a worker has one slot"
    took_s = loaded.ask(prompt=PROMPT, max_tokens=FEW).arrived_s[-1]
    return max(FEW, min(MANY, int(FEW / took_s)))


@given("a text was asked for in each slot but one, one after another", target_fixture="alone")
def ask_alone(loaded: Loaded, tokens: int) -> list[Text]:
    return [seeded(loaded, number, tokens) for number in range(loaded.worker.slots - 1)]


@when("they are asked for together, beside one that is cancelled", target_fixture="together")
def ask_together(loaded: Loaded, alone: Sequence[Text], tokens: int) -> list[Text]:
    cancelled = Reader(loaded)
    with ThreadPoolExecutor(len(alone)) as people:
        texts = [people.submit(seeded, loaded, number, tokens) for number in range(len(alone))]
        eventually(lambda: all_written(loaded) or any(t.done() for t in texts), PATIENCE_S, what="all are written for")
        cancelled.leave()
        return [text.result() for text in texts]


def all_written(loaded: Loaded) -> bool:
    worker = loaded.hive.client.worker(loaded.worker.worker_id)
    return worker.active >= worker.slots


@then("each of them is what it was alone")
def same_as_alone(alone: Sequence[Text], together: Sequence[Text], tokens: int, pytestconfig: pytest.Config) -> None:
    for one, other in zip(alone, together, strict=True):
        assert other.error is None, f"a text beside one that was cancelled ended with: {other.error}"
        assert other.end.finish_reason == "stop" or other.end.total_tokens == tokens, (
            f"beside a cancelled one, a text ended for its length after {other.end.total_tokens} of {tokens} tokens"
        )
        # What another chance would give says nothing: only a seed makes two texts one.
        assert "seed" not in pytestconfig.stash[SUBJECT].capabilities or other.text == one.text, (
            f"a text with a seed is another beside others: {one.text!r} alone, {other.text!r} then"
        )


@then("all slots are free again")
def all_free(loaded: Loaded) -> None:
    loaded.settle()
    slots = loaded.worker.slots
    with ThreadPoolExecutor(slots) as people:
        asked = [
            people.submit(loaded.ask, loaded.hive.connect(), prompt=PROMPT, max_tokens=FEW, queue=False)
            for _ in range(slots)
        ]
    refused = [text.result().error for text in asked if text.result().error is not None]
    assert not refused, f"{len(refused)} of {slots} slots are still taken after all texts have ended: {refused[0]}"


@when("a text with a long prompt is asked for while another is written", target_fixture="reading")
def ask_with_long_prompt(loaded: Loaded) -> tuple[float, float, Sequence[float]]:
    assert loaded.worker.slots >= 2, "a worker has one slot"
    # Each begins in its own way, so that nothing of it was read before.
    took_s = loaded.ask(prompt=f"A short {WORD * 16}", max_tokens=1).arrived_s[-1]
    prompt = f"A long {WORD * max(SHORTEST, min(LONGEST, int(16 * READING_S / took_s)))}"
    reader = Reader(loaded)
    begun_s = time.monotonic()
    text = loaded.ask(prompt=prompt, max_tokens=1)
    ended_s = begun_s + text.arrived_s[0] if text.arrived_s else time.monotonic()
    reader.leave()
    assert text.error is None, str(text.error)
    return begun_s, min(ended_s, reader.came_s[-1]), reader.came_s


@then(parsers.parse("the other went on meanwhile"))
def went_on(reading: tuple[float, float, Sequence[float]]) -> None:
    begun_s, ended_s, came_s = reading
    moments = [begun_s, *(moment for moment in came_s if begun_s < moment < ended_s), ended_s]
    gap_s = max((after - before for before, after in itertools.pairwise(moments)), default=0.0)
    took_s = ended_s - begun_s
    # Tokens go out a few at a time: a prompt that is read in next to no time holds nobody up.
    assert gap_s <= max(NOT_HELD_UP_S, took_s * HELD_UP), (
        f"a long prompt was read for {took_s:.2f} s, and for {gap_s:.2f} s of that no token came of another text: "
        "read a prompt in pieces, with a step of the others between them"
    )
