"""Which samplers a request gets, in which order; what changes nothing is left out."""

import pytest

from rbee_core.backend import GenerateRequest
from rbee_plugins.llamacpp.sampling import Plan, Step, chain, plan

SIZE = 1000
PLAIN = GenerateRequest(prompt="x", seed=7)


def names(**fields) -> list[str]:
    return [step.name for step in chain(GenerateRequest(prompt="x", seed=7, **fields), SIZE)]


def arguments(name: str, **fields) -> tuple:
    [found] = [s.arguments for s in chain(GenerateRequest(prompt="x", seed=7, **fields), SIZE) if s.name == name]
    return found


def test_what_changes_nothing_is_left_out():
    assert names() == ["top_k", "top_p", "min_p", "temp", "dist"]
    assert names(top_k=0, top_p=1.0, min_p=0.0) == ["temp", "dist"]
    assert names(temperature=0) == ["greedy"]
    assert names(penalty_window=5, dry_base=2.0, xtc_threshold=0.2, mirostat_tau=3.0) == names()


def test_all_of_them_come_in_llama_cpp_s_order():
    every = names(
        logit_bias={1: 1.0}, frequency_penalty=1.0, dry_multiplier=1.0, top_n_sigma=1.0, typical_p=0.5,
        xtc_probability=0.5,
    )  # fmt: skip
    assert every == [
        "logit_bias", "penalties", "dry", "top_n_sigma", "top_k", "typical", "top_p", "min_p", "xtc", "temp", "dist",
    ]  # fmt: skip


def test_greedy_is_corrected_and_nothing_is_cut():
    assert names(temperature=0, presence_penalty=1.0, logit_bias={1: 1.0}, xtc_probability=1.0) == [
        "logit_bias",
        "penalties",
        "greedy",
    ]


@pytest.mark.parametrize(("version", "name"), [(1, "mirostat"), (2, "mirostat_v2")])
def test_mirostat_stands_in_for_the_cuts(version, name):
    assert names(mirostat=version, xtc_probability=1.0, repeat_penalty=1.1) == ["penalties", "temp", name]


def test_numbers_arrive():
    assert arguments("penalties", repeat_penalty=1.1, frequency_penalty=0.5, presence_penalty=-0.5) == (
        SIZE, 64, 1.1, 0.5, -0.5,
    )  # fmt: skip
    assert arguments("logit_bias", logit_bias={9: -100.0, 3: 2.0}) == (SIZE, ((3, 2.0), (9, -100.0)))
    assert arguments("dry", dry_multiplier=0.8, dry_breakers=("\n", "é")) == (0.8, 1.75, 2, 1024, (b"\n", b"\xc3\xa9"))
    assert arguments("xtc", xtc_probability=0.5) == (0.5, 0.1, 1, 7)
    assert arguments("mirostat_v2", mirostat=2) == (7, 5.0, 0.1)


def test_the_largest_seed_is_not_read_as_random():
    assert chain(GenerateRequest(prompt="x", seed=2**32 - 1), SIZE)[-1] == Step("dist", (2**32 - 2,))


def test_a_plan_says_what_a_chain_cannot():
    request = GenerateRequest(prompt="x", seed=7, min_tokens=3, ignore_eos=True, logprobs=0)
    assert plan(request, SIZE) == Plan(chain(PLAIN, SIZE), min_tokens=3, endless=True, logprobs=True)
    assert plan(PLAIN, SIZE) == Plan(chain(PLAIN, SIZE))
