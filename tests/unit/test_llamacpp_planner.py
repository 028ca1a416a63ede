"""Which tokens are computed next: nobody starves, bounds are kept, and nothing stands still."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from rbee_plugins.llamacpp.planner import FEWEST_TOKENS, GAP, Pace, Planner, shared_out

BATCH, ALONE = 64, 16


@dataclass(eq=False)
class Request:
    unread: int
    alone: bool = False
    to_write: int = 3
    waited: int = 0


requests = st.lists(
    st.builds(Request, unread=st.integers(1, 300), alone=st.booleans(), to_write=st.integers(1, 9)), max_size=9
)


def pace_of(step_s: float, token_s: float) -> Pace:
    pace = Pace(BATCH)
    pace.took(step_s, 1, 0)
    pace.took(token_s * 10, 0, 10)
    return pace


@given(requests, st.floats(0.001, 2), st.floats(0.0001, 2))
def test_everybody_is_served_in_turn_and_no_call_is_too_large(
    lanes: list[Request], step_s: float, token_s: float
) -> None:
    planner: Planner[Request] = Planner(BATCH, ALONE)
    pace, live = pace_of(step_s, token_s), list(lanes)
    while live:
        shares = planner.plan(live, pace)
        assert shares, "nothing is computed, and somebody waits"
        assert sum(share.tokens for share in shares) <= BATCH
        assert len(shares) == 1 or not any(share.lane.alone for share in shares)
        served = [share.lane for share in shares]
        assert len(set(map(id, served))) == len(served)
        for lane in live:
            lane.waited = 0 if lane in served else lane.waited + 1
            assert lane.waited <= (len(lanes) + 2) ** 2, "somebody starves"
        for share in shares:
            assert 1 <= share.tokens <= max(1, share.lane.unread)
            if share.lane.unread:
                share.lane.unread -= share.tokens
            else:
                share.lane.to_write -= 1
        live = [lane for lane in live if lane.unread or lane.to_write]


@given(st.integers(0, 5), st.integers(1, 5))
def test_everybody_who_generates_is_in_every_shared_call(writing: int, reading: int) -> None:
    lanes = [Request(0) for _ in range(writing)] + [Request(500) for _ in range(reading)]
    served = [share.lane for share in Planner[Request](BATCH, ALONE).plan(lanes, Pace(BATCH))]
    assert served[:writing] == lanes[:writing]
    assert len(served) > writing


@given(st.integers(1, 3), st.integers(0, 3), st.integers(0, 3), st.integers(1, 6))
def test_between_two_tokens_of_a_text_there_is_one_portion_of_prompts_and_a_token_of_each_other(
    writing: int, alone_writing: int, reading: int, alone_reading: int
) -> None:
    writers = [Request(0) for _ in range(writing)] + [Request(0, alone=True) for _ in range(alone_writing)]
    readers = [Request(9999) for _ in range(reading)] + [Request(9999, alone=True) for _ in range(alone_reading)]
    planner: Planner[Request] = Planner(BATCH, ALONE)
    pace, since, read = pace_of(step_s=0.010, token_s=0.002), [0] * len(writers), [0] * len(readers)
    for _ in range(200):
        shares = planner.plan([*writers, *readers], pace)
        prompt_tokens = sum(share.tokens for share in shares if share.lane.unread)
        assert prompt_tokens <= max(ALONE, pace.room(writing))
        for n, writer in enumerate(writers):
            since[n] += prompt_tokens
            if any(share.lane is writer for share in shares):
                assert since[n] <= max(ALONE, pace.room(writing)), "it waits for the prompts of several"
                since[n] = 0
        for share in shares:
            if share.lane in readers:
                share.lane.unread -= share.tokens
                read[readers.index(share.lane)] += 1
    assert max(read) <= min(read) + 1 + max(read) // 2, "somebody reads much more often"


def test_a_prompt_that_nobody_is_disturbed_by_is_read_in_whole_batches() -> None:
    lanes = [Request(500)]
    assert [share.tokens for share in Planner[Request](BATCH, ALONE).plan(lanes, pace_of(0.01, 0.01))] == [BATCH]


def test_prompts_get_what_keeps_the_others_gaps_short() -> None:
    pace = pace_of(step_s=0.010, token_s=0.002)
    assert pace.room(1) * 0.002 + 0.010 <= GAP * 0.010
    assert pace.room(1) == 15
    assert pace_of(step_s=0.010, token_s=0.1).room(1) == FEWEST_TOKENS
    assert pace_of(step_s=1, token_s=0.0001).room(1) == BATCH


def test_the_pace_follows_what_is_measured() -> None:
    pace = pace_of(step_s=0.010, token_s=0.002)
    for _ in range(50):
        pace.took(0.010 + 16 * 0.001, 1, 16)
    assert 25 <= pace.room(1) <= 30
    assert pace.expected_s(1, 0) == 0.010
    assert pace.expected_s(0, 100) > 0.09
    assert Pace(BATCH).expected_s(1, 0) > 10**9, "unknown may be slow"


def test_one_call_in_which_the_machine_slept_changes_little() -> None:
    pace = pace_of(step_s=0.010, token_s=0.002)
    pace.took(3600, 1, 0)
    pace.took(3600, 1, 16)
    assert pace.step_s(1) < 0.020
    assert FEWEST_TOKENS <= pace.room(1) <= 20
    for _ in range(20):
        pace.took(0.100, 1, 0)
    assert pace.step_s(1) > 0.090, "what is slower for good is learned"


def test_prompt_tokens_that_seem_to_take_no_time_are_no_failure() -> None:
    pace = pace_of(step_s=0.010, token_s=0.002)
    for _ in range(3000):
        pace.took(0.005, 1, 16)
        assert 1 <= pace.room(1) <= BATCH


@given(st.integers(0, 200), st.lists(st.integers(1, 100), max_size=8))
def test_room_is_shared_fairly_and_used(room: int, wanted: list[int]) -> None:
    given_out = shared_out(room, wanted)
    assert sum(given_out) == min(room, sum(wanted))
    assert all(0 <= got <= want for got, want in zip(given_out, wanted, strict=True))
    most = max(given_out, default=0)
    assert all(got >= most - 1 for got, want in zip(given_out, wanted, strict=True) if got < want)
