"""What is done to a row of logits."""

import math
import random

import pytest

pytest.importorskip("numpy")

import numpy as np

from rbee_plugins.llamacpp.native.logits import keep_only, likely


@pytest.mark.parametrize("size", [1, 31, 32, 33, 200])
def test_only_what_a_mask_names_stays_possible(size: int) -> None:
    chances = random.Random(size)
    before = [-math.inf, *(chances.uniform(-9, 9) for _ in range(size - 1))]
    mask = bytearray(chances.randrange(256) for _ in range((size + 31) // 32 * 4))
    row = np.array(before, dtype=np.float32)
    keep_only(row, mask)
    kept = [mask[token // 8] >> token % 8 & 1 for token in range(size)]
    expected = [one if stays else -math.inf for one, stays in zip(before, kept, strict=True)]
    assert row.tolist() == np.array(expected, dtype=np.float32).tolist()


@pytest.mark.parametrize(("size", "top"), [(1, 0), (1, 1), (3, 2), (40, 20), (600, 5), (5000, 20)])
def test_the_likeliest_come_in_order_and_of_equal_ones_the_first(size: int, top: int) -> None:
    chances = random.Random(size)
    row = [chances.randrange(-80, 80) / 8 for _ in range(size)]
    whole = math.log(math.fsum(math.exp(one) for one in row))
    logprob, likeliest = likely(np.array(row, dtype=np.float32), size - 1, top)
    assert logprob == pytest.approx(row[-1] - whole, abs=1e-6)
    assert [one for one, _logprob in likeliest] == sorted(range(size), key=lambda one: (-row[one], one))[:top]
    assert [number for _one, number in likeliest] == pytest.approx(
        [row[one] - whole for one, _logprob in likeliest], abs=1e-6
    )


def test_what_is_impossible_has_no_part_in_it() -> None:
    row = np.array([-math.inf, 2.0, -math.inf, 2.0], dtype=np.float32)
    logprob, likeliest = likely(row, 0, 4)
    assert logprob == -math.inf
    assert [one for one, _logprob in likeliest] == [1, 3, 0, 2]
    assert likeliest[1][1] == pytest.approx(-math.log(2))
