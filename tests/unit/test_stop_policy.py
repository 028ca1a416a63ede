"""How long a worker is given to go: a plugin may share the time out, not take more of it."""

from math import inf, isclose, nan

import pytest

from rbee_core.backend import StopPolicy
from rbee_core.hive.processes.stop import bounded, recommended

USUAL = recommended(10.0)


def test_asking_and_telling_leave_time_for_the_requests_that_run() -> None:
    assert (USUAL.ask_s, USUAL.terminate_s) == (5.0, 2.0)


@pytest.mark.parametrize(("ask_s", "terminate_s"), [(5, 2), (0, 0), (7, 0), (0.0, 7.0)])
def test_a_policy_within_the_grace_time_is_taken_as_it_is(ask_s: float, terminate_s: float) -> None:
    policy = bounded(StopPolicy(ask_s, terminate_s), USUAL)
    assert isclose(policy.ask_s, ask_s)
    assert isclose(policy.terminate_s, terminate_s)


@pytest.mark.parametrize(("ask_s", "terminate_s"), [(inf, inf), (inf, 0), (0, inf), (1e300, 1e300), (20, 50)])
def test_a_longer_one_is_shortened_to_it(ask_s: float, terminate_s: float) -> None:
    policy = bounded(StopPolicy(ask_s, terminate_s), USUAL)
    assert isclose(policy.ask_s + policy.terminate_s, 7.0)
    assert (policy.ask_s > 0, policy.terminate_s > 0) == (ask_s > 0, terminate_s > 0)


@pytest.mark.parametrize(
    "policy",
    [None, 3, (1, 2), StopPolicy(-1, 1), StopPolicy(nan, 1), StopPolicy(1, nan), StopPolicy("1", 1)],  # pyright: ignore[reportArgumentType]
)
def test_what_is_no_policy_is_refused(policy: object) -> None:
    with pytest.raises(ValueError, match="StopPolicy"):
        bounded(policy, USUAL)
