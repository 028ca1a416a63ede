"""The loop with a memory that checks: every token computed once and in its place, whoever comes, stays or goes.

The stand-in for llama.cpp remembers what each sequence holds. What it "computes" depends on all of that, so a text is
right only if the memory was.
"""

import contextlib
import itertools
import random
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llama_cpp")

from rbee_core.errors import Overloaded
from rbee_plugins.llamacpp import loop as module
from rbee_plugins.llamacpp import native, places
from rbee_plugins.llamacpp.drafts import Lookup, Record
from rbee_plugins.llamacpp.jobs import Ended, Job, Made, Read, Ready
from rbee_plugins.llamacpp.loop import Loop
from rbee_plugins.llamacpp.places import Places
from rbee_plugins.llamacpp.planner import Pace
from rbee_plugins.llamacpp.speculation import Speculation

END, ROOM, BATCH = 0, 200, 32


class Memory:
    """Stands in for `native.Context` and `native.NativeModel`."""

    def __init__(self, sequences: int) -> None:
        self.sequences, self.batch_tokens, self.tokens = sequences, BATCH, ROOM
        self.held: list[list[int]] = [[] for _ in range(sequences)]
        self.calls: list[list[native.Part]] = []
        self.rows: dict[int, int] = {}
        self.within: Callable[[], bool] | None = None
        self.before: Callable[[Sequence[native.Part]], int] = lambda _parts: native.DECODED
        self.cuttable, self.cuttable_tokens = True, 1000.0
        self.gate = threading.Event()
        self.gate.set()

    def decode(self, parts: Sequence[native.Part]) -> int:
        assert sum(len(part.tokens) for part in parts) <= BATCH
        sequences = [part.sequence for part in parts]
        assert sequences == sorted(sequences), "llama.cpp would compute them one after the other"
        self.calls.append(list(parts))
        assert self.gate.wait(60)
        if status := self.before(parts):
            return status
        self.rows, end = {}, 0
        for part in parts:
            held = self.held[part.sequence]
            assert part.position == len(held), "a token is computed twice, or has no place"
            held.extend(part.tokens)
            assert len(held) <= ROOM
            end += len(part.tokens)
            for row in range(end - part.rows, end):
                self.rows[row] = follows(held[: len(held) - (end - 1 - row)])
        return native.DECODED

    def keep(self, sequence: int, count: int) -> bool:
        whole = bool(count) and (self.cuttable or count == len(self.held[sequence]))
        del self.held[sequence][count if whole else 0 :]
        return whole

    def floor(self, sequence: int) -> int:
        return 0 if self.cuttable else len(self.held[sequence])

    def size(self, sequence: int) -> int:
        return len(self.held[sequence])

    def cut(self, sequence: int, count: int) -> None:
        assert self.cuttable
        del self.held[sequence][count:]

    def save(self, sequence: int, most_bytes: int = 10**6) -> Any:
        return list(self.held[sequence]) if len(self.held[sequence]) <= most_bytes else None

    def restore(self, sequence: int, state: Any) -> bool:
        self.held[sequence] = list(state)
        return True

    def clear(self) -> None:
        for held in self.held:
            held.clear()

    def abort_when(self, is_wanted: Callable[[], bool] | None) -> None:
        self.within = is_wanted

    def is_end(self, token: int) -> bool:
        return token == END

    def close(self) -> None:
        pass


def follows(tokens: Sequence[int]) -> int:
    return zlib.crc32(repr(list(tokens)).encode()) % 50


@pytest.fixture
def never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "follows", lambda _tokens: 7)


class Drawn:
    """Chooses by chance, always with the same luck."""

    ended = False

    def __init__(self, luck: int) -> None:
        self._chances = random.Random(luck)

    def choose(self, context: Any, row: int) -> int:
        return (context.rows[row] + self._chances.randrange(2)) % 50

    def logprobs(self, context: Any, row: int, token: int, top: int) -> native.Likely:
        return native.Likely(context.rows[row] / 100, [(token, 0.0)] * top)

    def close(self) -> None:
        pass


class Guesses(Speculation):
    """Guesses wildly: some right ones, then others, of any length. Whether it pays is nothing to it."""

    def __init__(self, luck: int, memory: Memory) -> None:
        super().__init__()
        self._chances, self._memory = random.Random(luck), memory
        self.drafted = 0

    def added(self, shares: Sequence[Any], pace: Any) -> Sequence[Any]:
        return [replace(share, draft=self._draft(share.lane)) for share in shares]

    def _draft(self, job: Job) -> list[int]:
        if job.unread or job.lookup is None:
            return []
        text, right = [*self._memory.held[job.sequence], job.next], self._chances.randrange(6)
        for _ in range(min(job.room, self._chances.randrange(8))):
            text.append((follows(text) + self._chances.randrange(2)) % 50 if right > 0 else END)
            right -= 1
        draft = text[len(self._memory.held[job.sequence]) + 1 :]
        self.drafted += len(draft)
        return draft


class Best:
    ended = False

    def choose(self, context: Any, row: int) -> int:
        return context.rows[row]

    def logprobs(self, context: Any, row: int, token: int, top: int) -> native.Likely:
        raise NotImplementedError

    def close(self) -> None:
        pass


@dataclass
class Asked:
    """One request and what came of it."""

    prompt: list[int]
    limit: int = 5
    alone: bool = False
    stop_after: int | None = None
    luck: int | None = None
    guessed: bool = True
    likely: list[native.Likely] = field(default_factory=list)
    guesses: list[tuple[int, bool]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    reads: list[Ready] = field(default_factory=list)
    progress: list[int] = field(default_factory=list)
    ended: Ended | None = None
    cancel: threading.Event = field(default_factory=threading.Event)

    def job(self) -> Job:
        chooser = Best() if self.luck is None else Drawn(self.luck)
        return Job(
            self.prompt,
            self.limit,
            chooser,
            self.cancel,
            alone=self.alone,
            reuse=not self.alone,
            lookup=None if self.alone or not self.guessed else Lookup(self.prompt, Record()),
            logprobs=None if self.luck is None else 2,
            request_id=f"{self.prompt[0]}",
        )

    def follow(self, events: Iterator[Any]) -> None:
        for event in events:
            if isinstance(event, Ready):
                self.reads.append(event)
            elif isinstance(event, Read):
                self.progress.append(event.done)
            elif isinstance(event, Ended):
                self.ended = event
            elif isinstance(event, Made):
                self.tokens.append(event.token)
                self.guesses.append((event.guesses, event.guessed))
                self.likely += [] if event.likely is None else [event.likely]
            if len(self.tokens) == self.stop_after:
                self.cancel.set()

    def expected(self) -> list[int]:
        text = []
        while len(text) < self.limit and (token := follows([*self.prompt, *text])) != END:
            text.append(token)
        return text


@pytest.fixture(autouse=True, scope="module")
def short_texts_are_saved() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(places, "WORTH_SAVING", 16)
        yield


def serve(
    asked: Sequence[Asked],
    sequences: int,
    memory: Memory | None = None,
    saved_bytes: int = 0,
    speculation: Speculation | None = None,
) -> Memory:
    """Ask for all at once, and wait for all of them."""
    memory = memory or Memory(sequences)
    loop = Loop(memory, memory, BATCH, 8, saved_bytes, speculation)  # type: ignore[arg-type]
    try:
        memory.gate.clear()  # the first call takes until all have asked
        streams = [loop.submit(one.job()) for one in asked]
        memory.gate.set()
        threads = [threading.Thread(target=a.follow, args=[s]) for a, s in zip(asked, streams, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    finally:
        loop.close()
    return memory


prompts = st.lists(st.integers(1, 3), min_size=1, max_size=120)
many = st.lists(
    st.builds(
        Asked, prompt=prompts, limit=st.integers(1, 20), alone=st.booleans(), stop_after=st.none() | st.integers(1, 5)
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=40, deadline=None)
@given(many, st.integers(1, 4), st.sampled_from([0, 400, 10**6]), st.booleans())
def test_every_text_is_what_it_would_be_alone(
    asked: list[Asked], sequences: int, saved_bytes: int, cuttable: bool
) -> None:
    for one in asked:
        one.tokens, one.reads, one.ended, one.cancel = [], [], None, threading.Event()
        one.guessed = cuttable  # what was wrongly guessed has to be cut off
    memory = Memory(sequences)
    memory.cuttable, memory.cuttable_tokens = cuttable, 1000 if cuttable else 0
    serve(asked, sequences, memory, saved_bytes)
    for one in asked:
        expected = one.expected()
        assert one.tokens == expected[: len(one.tokens)]
        if one.stop_after is None:
            assert one.tokens == expected
            assert one.ended == Ended("length" if len(expected) == one.limit else "stop")
        assert one.ended is not None
    seen = [len(call) for call in memory.calls]
    assert max(seen) <= sequences


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Asked,
            prompt=prompts,
            limit=st.integers(1, 40),
            alone=st.booleans(),
            luck=st.none() | st.integers(0, 9),
            stop_after=st.none() | st.integers(1, 9),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 3),
    st.integers(0, 10**6),
)
def test_a_text_is_the_same_whatever_was_guessed(asked: list[Asked], sequences: int, luck: int) -> None:
    plainly = [replace(one, cancel=threading.Event(), likely=[], tokens=[], guesses=[], reads=[]) for one in asked]
    for one in asked:
        one.tokens, one.likely, one.guesses, one.cancel = [], [], [], threading.Event()
    serve(plainly, sequences)
    memory = Memory(sequences)
    serve(asked, sequences, memory, speculation=Guesses(luck, memory))
    for one, plain in zip(asked, plainly, strict=True):
        if one.stop_after is None:
            assert (one.tokens, one.likely, one.ended) == (plain.tokens, plain.likely, plain.ended)
        both = min(len(one.tokens), len(plain.tokens))
        assert one.tokens[:both] == plain.tokens[:both]
        assert not one.alone or not any(guesses or guessed for guesses, guessed in one.guesses)


def test_guesses_that_prove_right_need_no_calls_and_are_counted() -> None:
    memory, asked = Memory(1), Asked([1, 2, 3], limit=12)

    class Right(Speculation):
        def added(self, shares: Sequence[Any], pace: Any) -> Sequence[Any]:
            job = shares[0].lane
            if job.unread or job.made != 2:
                return shares
            following = asked.expected()[2:6]
            return [replace(shares[0], draft=[*following[:3], following[3] + 1])]

    serve([asked], 1, memory, speculation=Right())
    assert asked.tokens == asked.expected()
    assert len(asked.tokens) == 12, "the stand-in's text ended early: take another prompt"
    assert len(memory.calls) == 1 + 11 - 3
    assert asked.guesses[2:6] == [(4, True), (0, True), (0, True), (0, False)]
    assert memory.held[0] == [1, 2, 3, *asked.tokens[:-1]], "guesses that were wrong are still in the memory"


def test_a_memory_that_has_no_room_for_guesses_is_asked_again_without() -> None:
    memory, asked = Memory(1), Asked([1] * 10, limit=9)
    memory.before = lambda parts: native.NO_ROOM if parts[0].rows > 1 else native.DECODED
    serve([asked], 1, memory, speculation=(guesses := Guesses(1, memory)))
    assert guesses.drafted
    assert asked.tokens == asked.expected()


@pytest.mark.usefixtures("never_ends")
def test_a_text_that_says_the_same_again_takes_fewer_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))  # every call takes as long
    memory, asked = Memory(1), Asked([7] * 20, limit=150)
    serve([asked], 1, memory)
    assert asked.tokens == [7] * 150
    assert len(memory.calls) < 30


def test_those_who_generate_share_a_call() -> None:
    memory = serve([Asked([n], limit=30) for n in range(1, 5)], 4)
    assert max(len(call) for call in memory.calls) == 4


@pytest.mark.usefixtures("never_ends")
def test_a_long_prompt_never_leaves_a_running_text_out_of_a_call() -> None:
    memory, asked = Memory(2), [Asked([3], limit=150), Asked([1, 2] * 60, limit=1)]
    serve(asked, 2, memory)
    long = [call for call in memory.calls if any(part.tokens[0] != 7 and len(part.tokens) > 1 for part in call)]
    running = [call for call in long if len(call) == 2]
    assert len(running) >= len(long) - 1, "the long prompt had calls of its own while a text was written"


def test_who_is_alone_shares_no_call_and_starts_from_nothing() -> None:
    asked = [Asked([1, 2, 3] * 10, limit=9, alone=True), *(Asked([n], limit=30) for n in range(1, 4))]
    memory = serve(asked, 4)
    [sequence] = {part.sequence for call in memory.calls for part in call if len(part.tokens) > 1}
    calls = [call for call in memory.calls if any(part.sequence == sequence for part in call)]
    assert all(len(call) == 1 for call in calls)
    assert [len(part.tokens) for [part] in calls[:5]] == [8, 8, 8, 6, 1]
    assert asked[0].reads[-1] == Ready(30, 0, "asked not to")


def test_a_second_request_finds_what_the_first_has_computed() -> None:
    memory = Memory(1)
    loop = Loop(memory, memory, BATCH, 8)  # type: ignore[arg-type]
    first, second = Asked([5] * 60), Asked([5] * 60 + [6])
    for asked in (first, second):
        asked.follow(loop.submit(asked.job()))
    loop.close()
    assert second.reads[-1].cached == 60
    assert second.tokens == second.expected()


def test_a_memory_that_cannot_be_cut_is_started_anew_and_says_so() -> None:
    memory = Memory(1)
    memory.cuttable, memory.cuttable_tokens = False, 0
    loop = Loop(memory, memory, BATCH, 8)  # type: ignore[arg-type]
    first, second = Asked([5] * 60), Asked([5] * 50 + [6])
    for asked in (first, second):
        asked.follow(loop.submit(asked.job()))
    loop.close()
    assert second.reads[-1] == Ready(51, 0, "not cuttable")
    assert second.tokens == second.expected()


def one_after_the_other(memory: Memory, saved_bytes: int, *prompts: list[int]) -> list[Ready]:
    """Ask for all, and return how much of each prompt was there."""
    loop = Loop(memory, memory, BATCH, 8, saved_bytes)  # type: ignore[arg-type]
    asked = [Asked(prompt, limit=1) for prompt in prompts]
    for one in asked:
        one.follow(loop.submit(one.job()))
        assert one.tokens == one.expected()
    loop.close()
    return [one.reads[-1] for one in asked]


def test_a_text_whose_place_was_used_by_another_is_found_again() -> None:
    ready = one_after_the_other(Memory(1), 10**6, [5] * 60, [6] * 60, [*[5] * 60, 1])
    assert ready[-1] == Ready(61, 60, "")


def test_nothing_is_saved_where_nothing_may_be() -> None:
    ready = one_after_the_other(Memory(1), 0, [5] * 60, [6] * 60, [*[5] * 60, 1])
    assert ready[-1] == Ready(61, 0, "evicted for request 6")


def test_a_saved_state_that_cannot_be_restored_is_given_up() -> None:
    memory = Memory(1)

    def fail(sequence: int, _state: Any) -> bool:
        memory.held[sequence].clear()
        return False

    memory.restore = fail  # type: ignore[method-assign]
    ready = one_after_the_other(memory, 10**6, [5] * 60, [6] * 60, [*[5] * 60, 1], [6] * 70, [*[5] * 60, 1])
    assert ready[2] == Ready(61, 0, places.UNUSABLE)
    assert ready[4].cached == 0


def filled(memory: Memory, places: Places, prompt: list[int], generating: int = 0) -> tuple[int, str]:
    """Take a place for `prompt` and compute it; return what of it was there, and why not more."""
    place = places.take(prompt, f"{prompt[0]}", (), (), reuse=True, generating=generating)
    assert memory.held[place.sequence] == places.held[place.sequence].tokens == prompt[: place.kept]
    memory.held[place.sequence] += prompt[place.kept :]
    places.held[place.sequence].tokens += prompt[place.kept :]
    return place.kept, place.why


@pytest.mark.parametrize(("generating", "step_s", "kept"), [(0, 0.0, 60), (1, 1e-9, 0), (1, 1.0, 60)])
def test_beside_a_running_text_only_what_is_quickly_moved_is(generating: int, step_s: float, kept: int) -> None:
    memory, pace = Memory(1), Pace(BATCH)
    here = Places(memory, pace, 10**6)  # type: ignore[arg-type]
    filled(memory, here, [5] * 60)
    filled(memory, here, [6] * 60)
    pace.took(step_s, 1, 0)
    why = "" if kept else places.TOO_LARGE
    assert filled(memory, here, [*[5] * 60, 2], generating) == (kept, why)


def test_what_has_to_leave_beside_a_running_text_goes_if_it_cannot_be_saved_quickly() -> None:
    memory, pace = Memory(1), Pace(BATCH)
    here = Places(memory, pace, 10**6)  # type: ignore[arg-type]
    pace.took(1e-9, 1, 0)
    filled(memory, here, [5] * 60)
    filled(memory, here, [6] * 60, generating=1)
    assert filled(memory, here, [*[5] * 60, 2]) == (0, "evicted for request 6")


def test_a_state_for_which_there_is_no_memory_is_not_saved_and_nobody_minds() -> None:
    memory = Memory(1)
    memory.save = lambda _sequence, _most_bytes: None  # type: ignore[method-assign]
    here = Places(memory, Pace(BATCH), 10**6)  # type: ignore[arg-type]
    filled(memory, here, [5] * 60)
    filled(memory, here, [6] * 60)
    assert filled(memory, here, [5] * 61) == (0, "evicted for request 6")


def test_a_state_that_has_to_go_for_who_leaves_for_it_is_restored_nevertheless() -> None:
    memory = Memory(1)
    here = Places(memory, Pace(BATCH), 599)  # type: ignore[arg-type]  # room for one
    filled(memory, here, [5] * 60)
    filled(memory, here, [6] * 60)
    assert filled(memory, here, [5] * 61) == (60, "")
    assert [list(saved.tokens) for saved in here.states] == [[6] * 60]


def test_what_leaves_the_saved_ones_too_is_named_with_whom_it_went_for() -> None:
    memory = Memory(1)
    here = Places(memory, Pace(BATCH), 599)  # type: ignore[arg-type]  # room for one
    for number in (5, 6, 7):
        filled(memory, here, [number] * 60)
    assert here.states.size_bytes == 60 + 4 * 60
    assert filled(memory, here, [5] * 61) == (0, "evicted for request 7")


def test_a_memory_that_cannot_be_cut_is_saved_where_its_prompt_ends() -> None:
    memory = Memory(1)
    memory.cuttable, memory.cuttable_tokens = False, 0
    again = [*[5] * 60, 1]
    ready = one_after_the_other(memory, 10**6, [5] * 60, [5] * 60, [6] * 60, again, [*[5] * 40, 1])
    assert ready[1] == Ready(60, 59, ""), "the same prompt once more"
    assert ready[3] == Ready(61, 59, ""), "its place was used by another"
    assert ready[4] == Ready(41, 0, places.prefix.NOT_CUTTABLE)


def test_a_beginning_that_no_copy_could_be_cut_back_to_is_used_where_it_is() -> None:
    class Windowed(Memory):
        def restore(self, sequence: int, state: Any) -> bool:
            raise AssertionError("a state was copied that can only be forgotten")

    memory, long = Windowed(2), [*range(1, 40)] * 3
    memory.cuttable_tokens = 32  # all of a text is there still, but only its end would be saved
    here = Places(memory, Pace(BATCH))  # type: ignore[arg-type]
    filled(memory, here, [7] * 60)
    filled(memory, here, long)
    assert filled(memory, here, [*long[:30], 50, 51]) == (30, "differs at token 30")
    assert memory.held[0] == [7] * 60, "and nobody else had to go for it"


def test_a_failure_ends_those_it_met_and_the_next_one_is_served() -> None:
    memory, failure = Memory(2), ZeroDivisionError("broken")
    calls = itertools.count()

    def fail(_parts: Sequence[native.Part]) -> int:
        if next(calls) == 3:
            raise failure
        return native.DECODED

    memory.before = fail
    loop = Loop(memory, memory, BATCH, 8)  # type: ignore[arg-type]
    first, second = Asked([5] * 60, limit=100), Asked([5] * 60)
    for asked in (first, second):
        asked.follow(loop.submit(asked.job()))
    loop.close()
    assert first.ended == Ended("cancelled", failure)
    assert second.tokens == second.expected()


def fails(failure: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise failure

    return fail


def test_an_error_while_all_are_told_of_a_failure_keeps_it_from_nobody() -> None:
    memory, failure = Memory(2), ZeroDivisionError("broken")
    memory.before = fails(failure)
    loop = Loop(memory, memory, BATCH, 8)  # type: ignore[arg-type]
    asked = [Asked([number] * 20, limit=100) for number in range(1, 5)]
    memory.gate.clear()
    jobs = [one.job() for one in asked]
    for job in jobs:
        job.chooser.close = fails(OSError("not let go of"))  # type: ignore[method-assign]
    streams = [loop.submit(job) for job in jobs]
    memory.gate.set()
    for one, stream in zip(asked, streams, strict=True):
        one.follow(stream)
    memory.before = lambda _parts: native.DECODED
    later = Asked([5] * 20)
    later.follow(loop.submit(later.job()))
    loop.close()
    assert [one.ended for one in asked] == [Ended("cancelled", failure)] * 4
    assert later.tokens == later.expected()


def test_a_loop_that_cannot_go_on_tells_all_and_whoever_comes_later() -> None:
    memory, second = Memory(1), OSError("the memory cannot be cleared")
    memory.before, memory.clear = fails(ZeroDivisionError()), fails(second)  # type: ignore[method-assign]
    loop = Loop(memory, memory, BATCH, 8)  # type: ignore[arg-type]
    asked = [Asked([number] * 20, limit=100) for number in range(1, 4)]
    memory.gate.clear()
    streams = [loop.submit(one.job()) for one in asked]
    memory.gate.set()
    for one, stream in zip(asked, streams, strict=True):
        one.follow(stream)
    later = Asked([5] * 20)
    later.follow(loop.submit(later.job()))
    loop.close()
    assert [one.ended and type(one.ended.error) for one in asked] == [ZeroDivisionError, OSError, OSError]
    assert later.ended == Ended("cancelled", second)


@pytest.mark.usefixtures("never_ends")
def test_a_slow_call_lets_the_cancelled_go_and_stops_only_if_nobody_else_is_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SLOW_CALL_S", -1)
    memory, one, other = Memory(2), Asked([1], limit=150), Asked([2], limit=150)
    told: list[bool] = []

    def during(parts: Sequence[native.Part]) -> int:
        assert memory.within is not None
        if len(parts) == 2 and not one.cancel.is_set():
            one.cancel.set()
            told.append(memory.within())
        elif len(parts) == 1 and told and not other.cancel.is_set():
            other.cancel.set()
            told.append(memory.within())
            return native.ABORTED
        return native.DECODED

    memory.before = during
    serve([one, other], 2, memory)
    assert told == [False, True]
    assert one.ended == other.ended == Ended("cancelled")


def test_n1_a_slow_call_says_within_itself_that_the_prompt_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=0.4)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    memory, asked = Memory(1), Asked([1] * (2 * BATCH))

    def slowly(parts: Sequence[native.Part]) -> int:
        if len(parts[0].tokens) == BATCH and memory.within is not None:
            assert not any(memory.within() for _ in range(7))
        return native.DECODED

    memory.before = slowly
    serve([asked], 1, memory)
    assert asked.progress == [0, 0, BATCH, BATCH, BATCH]
    assert asked.tokens == asked.expected()


def test_a_call_that_was_given_up_says_nothing_of_how_long_one_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[int] = []
    monkeypatch.setattr(Pace, "took", lambda _pace, _seconds, _generating, prompt_tokens: learned.append(prompt_tokens))
    memory, asked = Memory(1), Asked([1] * 40)

    def given_up(_parts: Sequence[native.Part]) -> int:
        if len(memory.calls) == 1:
            return native.DECODED
        asked.cancel.set()
        return native.ABORTED

    memory.before = given_up
    loop = Loop(memory, memory, BATCH, 8)  # type: ignore[arg-type]
    asked.follow(loop.submit(asked.job()))
    loop.close()
    assert asked.ended == Ended("cancelled")
    assert learned == [BATCH]


@pytest.mark.usefixtures("never_ends")
def test_a_text_without_room_ends_with_length_and_others_go_on() -> None:
    memory, asked = Memory(2), [Asked([1] * 10, limit=50), Asked([2] * 3, limit=50)]

    def full(parts: Sequence[native.Part]) -> int:
        return native.NO_ROOM if any(memory.held[p.sequence][:1] == [1] and p.rows for p in parts) else native.DECODED

    memory.before = full
    serve(asked, 2, memory)
    assert asked[0].ended is not None
    assert asked[1].ended == Ended("length")
    assert len(asked[1].tokens) == 50


def test_close_tells_those_who_wait() -> None:
    memory = Memory(1)
    loop = Loop(memory, memory, BATCH, 8)  # type: ignore[arg-type]
    asked, begun = Asked([1], limit=10**9, alone=True), threading.Event()
    memory.before = lambda _parts: memory.clear() or begun.set() or native.DECODED
    memory.decode = lambda parts: memory.before(parts) or memory.rows.__setitem__(len(parts[0].tokens) - 1, 7) or 0  # type: ignore[method-assign]
    reader = threading.Thread(target=asked.follow, args=[loop.submit(asked.job())])
    reader.start()
    assert begun.wait(60)
    loop.close()
    reader.join(60)
    assert asked.ended == Ended("cancelled")


def test_two_who_come_first_at_the_same_moment_meet_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, made, both = Memory(2), [], threading.Barrier(2)

    class Slow(threading.Thread):
        def __init__(self, **options: Any) -> None:
            made.append(self)
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.2)  # the other one comes now, if it can
            super().__init__(**options)

    loop = Loop(memory, memory, BATCH, 8)  # type: ignore[arg-type]
    asked = [Asked([1]), Asked([2])]
    readers = [threading.Thread(target=lambda one=one: one.follow(loop.submit(one.job()))) for one in asked]
    with monkeypatch.context() as patched:
        patched.setattr(module.threading, "Thread", Slow)
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(60)
    loop.close()
    assert len(made) == 1
    assert all(one.tokens == one.expected() for one in asked)


def test_who_comes_while_there_are_no_threads_is_told_and_the_next_one_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    memory, early, later = Memory(1), Asked([1]), Asked([2])
    loop = Loop(memory, memory, BATCH, 8)  # type: ignore[arg-type]
    with monkeypatch.context() as patched:
        patched.setattr(module.threading, "Thread", Refused)
        with contextlib.suppress(RuntimeError):
            early.follow(loop.submit(early.job()))
    later.follow(loop.submit(later.job()))
    loop.close()
    assert early.ended is not None
    assert isinstance(early.ended.error, Overloaded)
    assert later.tokens == later.expected()


def test_who_comes_after_the_end_is_told() -> None:
    memory, late = Memory(1), Asked([1])
    loop = Loop(memory, memory, BATCH, 8)  # type: ignore[arg-type]
    loop.close()
    late.follow(loop.submit(late.job()))
    assert late.ended == Ended("cancelled")
    loop.close()


def test_who_cannot_be_given_a_place_is_told() -> None:
    memory, failure = Memory(2), MemoryError()
    loop = Loop(memory, memory, BATCH, 8)  # type: ignore[arg-type]
    first = Asked([*range(1, 40)] * 3, limit=1)
    first.follow(loop.submit(first.job()))

    def full(_sequence: int) -> Any:
        raise failure

    memory.save = full  # type: ignore[method-assign]
    second, third = Asked([*range(1, 30), 50]), Asked([7] * 20)
    for asked in (second, third):
        asked.follow(loop.submit(asked.job()))
    loop.close()
    assert second.ended == Ended("cancelled", failure)
    assert third.tokens == third.expected()


class Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


def test_whatever_a_chooser_raises_ends_its_own_text_only() -> None:
    one, other, memory = Asked([1, 2, 3]), Asked([4, 5, 6], limit=9), Memory(2)

    class Panicking(Best):
        def choose(self, context: Any, row: int) -> int:
            if len(memory.calls[-1]) == 2:
                raise Panic
            return super().choose(context, row)

    broken = one.job()
    broken.chooser = Panicking()
    one.job = lambda: broken  # type: ignore[method-assign]
    serve([one, other], 2, memory)
    assert one.ended is not None
    assert isinstance(one.ended.error, Panic)
    assert other.tokens == other.expected()
    assert other.ended is not None
    assert other.ended.error is None


def test_a_beginning_that_cannot_be_copied_is_used_where_it_is() -> None:
    memory = Memory(2)
    loop = Loop(memory, memory, BATCH, 8)  # type: ignore[arg-type]
    long = [*range(1, 40)] * 3

    def fail(sequence: int, _state: Any) -> bool:
        memory.held[sequence].clear()
        return False

    memory.restore = fail  # type: ignore[method-assign]
    texts = [Asked([7] * 60, limit=1), Asked(long, limit=1), Asked([*long[:30], 50]), Asked([7] * 70)]
    for asked in texts:
        asked.follow(loop.submit(asked.job()))
        assert asked.tokens == asked.expected()
    loop.close()
    assert texts[2].reads[-1].cached == 30
    assert texts[3].reads[-1].cached == 0, "the place for the copy was emptied"
