"""Steps about texts in numbers: vectors, and scores of documents."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pytest
from pytest_bdd import then, when

from rbee_core import wire
from rbee_core.domain.tuning import Pooling
from rbee_core.errors import InvalidRequest, RbeeError
from rbee_kit.loaded import Loaded

TEXTS = ("A bee flies from flower to flower.", "Honey is sweet.", "The bank raised its rates again this year.", "wax")
QUERY = "What do bees make?"
POOLING: Sequence[Pooling] = get_args(Pooling)
CLOSE, ALIKE = 1e-3, 1 - 1e-4
"""So much may a number of a vector of length 1 differ; so much is the cosine of two that count as one."""
A_HUNDREDTH = 0.01


@dataclass(frozen=True)
class Numbers:
    """What was asked for, and what came: a vector of each text, or a list with the one score of each document."""

    texts: Sequence[str]
    rows: Sequence[Sequence[float]]
    request: dict[str, Any]

    def again(self, loaded: Loaded, *texts: str, **request: Any) -> list[list[float]]:
        """Ask for the same, or for other texts in the same way."""
        ask = scores if "query" in self.request else vectors
        return ask(loaded, texts or self.texts, **self.request | request)


def vectors(loaded: Loaded, texts: Sequence[str], **fields: Any) -> list[list[float]]:
    worker = loaded.worker
    wanted = {"model_ref": worker.model_ref, "backend": worker.backend, "texts": [*texts], **fields}
    return loaded.hive.client.embed(wire.build(wire.PoolEmbed, **wanted))


def scores(loaded: Loaded, texts: Sequence[str], **fields: Any) -> list[list[float]]:
    worker = loaded.worker
    wanted = {"model_ref": worker.model_ref, "backend": worker.backend, "documents": [*texts], **fields}
    return [[score] for score in loaded.hive.client.rerank(wire.build(wire.PoolRerank, **wanted))]


def size(vector: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in vector))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (size(one) * size(other) or 1.0)


def or_refusal(ask: Callable[[], list[list[float]]]) -> list[list[float]] | RbeeError:
    """Return what came, or why the model has none of it to give; any other error is a failure."""
    try:
        return ask()
    except RbeeError as error:
        if error.code != InvalidRequest.code:
            pytest.fail(
                f"a model that has no such numbers refuses with InvalidRequest; it ended with {error.code}: {error}"
            )
        return error


@when("vectors of several texts are asked for", target_fixture="numbers")
def ask_for_vectors(loaded: Loaded) -> Numbers:
    """Ask with the model's own pooling, or where it has none, with the first that can be had."""
    refused: list[RbeeError] = []
    for request in ({}, *({"pooling": pooling} for pooling in POOLING)):
        rows = or_refusal(lambda request=request: vectors(loaded, TEXTS, **request))
        if not isinstance(rows, RbeeError):
            return Numbers(TEXTS, rows, dict(request))
        refused.append(rows)
    pytest.skip(f"this model makes no vectors: {refused[-1].message}")


@when("vectors of a text are asked for with each way of pooling", target_fixture="pooled")
def ask_with_each_pooling(loaded: Loaded) -> dict[str, list[float]]:
    came = {way: or_refusal(lambda way=way: vectors(loaded, TEXTS[:1], pooling=way)) for way in POOLING}
    had = {way: rows[0] for way, rows in came.items() if not isinstance(rows, RbeeError)}
    if not had:
        pytest.skip("this model makes no vectors")
    return had


@when("scores of several documents are asked for", target_fixture="numbers")
def ask_for_scores(loaded: Loaded) -> Numbers:
    rows = or_refusal(lambda: scores(loaded, TEXTS, query=QUERY))
    if isinstance(rows, RbeeError):
        pytest.skip(f"this model scores no documents: {rows.message}")
    return Numbers(TEXTS, rows, {"query": QUERY})


@then("each text has one, as long as the others and unlike them")
def one_vector_each(numbers: Numbers) -> None:
    finite(numbers)
    assert len({len(row) for row in numbers.rows}) == 1, f"vectors are of {[len(row) for row in numbers.rows]} numbers"
    for number, row in enumerate(numbers.rows):
        for text, other in zip(numbers.texts[:number], numbers.rows, strict=False):
            assert cosine(row, other) < ALIKE, f"{text!r} and {numbers.texts[number]!r} have the same vector"


@then("each document has one, and not all have the same")
def one_score_each(numbers: Numbers) -> None:
    finite(numbers)
    assert len({row[0] for row in numbers.rows}) > 1, f"all documents have the score {numbers.rows[0][0]:g}"


def finite(numbers: Numbers) -> None:
    assert len(numbers.rows) == len(numbers.texts)
    for text, row in zip(numbers.texts, numbers.rows, strict=True):
        assert all(map(math.isfinite, row)), f"{text!r} has numbers that are none: {row[:4]}"


@then("each has the same when they are asked for again")
def same_again(loaded: Loaded, numbers: Numbers) -> None:
    for text, row, again in zip(numbers.texts, numbers.rows, numbers.again(loaded), strict=True):
        assert same(row, again), f"{text!r} had {row[:3]} first, then {again[:3]}"


@then("each has the same when it is asked for alone")
def same_alone(loaded: Loaded, numbers: Numbers) -> None:
    for text, row in zip(numbers.texts, numbers.rows, strict=True):
        [alone] = numbers.again(loaded, text)
        assert same(row, alone), (
            f"{text!r} has {row[:3]} among others and {alone[:3]} alone: do the others count, or is `index` another's?"
        )


def same(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two rows are the same but for the last digits that another batch changes."""
    within = CLOSE * max(1.0, *map(abs, one))
    return len(one) == len(other) and all(abs(a - b) <= within for a, b in zip(one, other, strict=True))


@then("each has length 1")
def of_length_1(numbers: Numbers) -> None:
    for text, row in zip(numbers.texts, numbers.rows, strict=True):
        assert abs(size(row) - 1) <= A_HUNDREDTH, f"the vector of {text!r} has length {size(row):.3f}"


@then("one that is not normalised points to where it does")
def own_length(loaded: Loaded, numbers: Numbers) -> None:
    for text, row, own in zip(numbers.texts, numbers.rows, numbers.again(loaded, normalize=False), strict=True):
        assert cosine(row, own) >= ALIKE, f"normalised, the vector of {text!r} points elsewhere"


@then("no two ways give the same vector")
def ways_differ(pooled: dict[str, list[float]]) -> None:
    for number, (way, vector) in enumerate(pooled.items()):
        for other in [*pooled][:number]:
            assert cosine(vector, pooled[other]) < ALIKE, f"pooled as {other} and as {way}, a text has the same vector"
