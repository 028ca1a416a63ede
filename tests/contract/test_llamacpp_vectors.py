"""Vectors and scores of llama.cpp's models, with a real model for text and tiny ones that are made for this."""

import threading

import pytest

from rbee_core.backend import (
    Device,
    Embedded,
    EmbedRequest,
    GenerateRequest,
    LoadOptions,
    LocalModel,
    RerankRequest,
    Token,
    Tuning,
)
from rbee_core.errors import InvalidRequest, PromptTooLong
from rbee_plugins.llamacpp.backend import LlamaCppCpu
from rbee_plugins.llamacpp.embedding import filled
from tests.contract.conftest import CONTEXT, missing
from tests.support.gguf_models import ranker

TEXTS = (
    "The cat sits on the mat.",
    "A feline rests on a rug.",
    "Shares fell when the bank raised its rates.",
    "hello",
)
BEES = ("a bee", "the hive", "honey honey honey", "a law the tax", "bear")


def vectors(engine, *texts, cancel=None, **wanted):
    found = {e.index: e for e in engine.embed(EmbedRequest(texts, **wanted), cancel or threading.Event())}
    return [list(found[index].vector) for index in sorted(found)]


def cosine(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def load(path, **tuning):
    if why := missing("llamacpp-cpu"):
        pytest.skip(why)
    model = LocalModel("m", path, "gguf", path.stat().st_size)
    return LlamaCppCpu().load(model, Device("cpu", "test"), LoadOptions(tuning=Tuning(**tuning)), lambda *_: True)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_vectors_are_the_same_again_alone_and_in_a_batch(llamacpp, pooling):
    together = vectors(llamacpp.engine, *TEXTS, pooling=pooling)
    assert together == vectors(llamacpp.engine, *TEXTS, pooling=pooling)
    for text, vector in zip(TEXTS, together, strict=True):
        [alone] = vectors(llamacpp.engine, text, pooling=pooling)
        assert alone == pytest.approx(vector, abs=1e-5)
        assert len(vector) == 576
        assert cosine(vector, vector) == pytest.approx(1)


def test_texts_that_mean_the_same_are_nearer_than_others(llamacpp):
    cat, feline, shares, _hello = vectors(llamacpp.engine, *TEXTS, pooling="mean")
    assert cosine(cat, feline) > cosine(cat, shares) + 0.01


def test_vectors_have_their_own_length_if_asked_for(llamacpp):
    [own] = vectors(llamacpp.engine, TEXTS[0], pooling="mean", normalize=False)
    [unit] = vectors(llamacpp.engine, TEXTS[0], pooling="mean")
    length = cosine(own, own) ** 0.5
    assert abs(length - 1) > 0.01
    assert [value / length for value in own] == pytest.approx(unit, abs=1e-6)


def test_more_texts_than_fit_together_and_longer_ones_come_whole(llamacpp):
    texts = [f"number {number}" for number in range(20)] + ["word " * 700]
    found = vectors(llamacpp.engine, *texts, pooling="last")
    assert len(found) == len(texts)
    [alone] = vectors(llamacpp.engine, texts[-1], pooling="last")
    assert found[-1] == pytest.approx(alone, abs=1e-5)


def test_text_is_generated_beside_vectors_as_without(llamacpp):
    story = GenerateRequest(prompt="Once upon a time", max_tokens=12, temperature=0)
    expected = llamacpp.text(story)
    stream = llamacpp.engine.generate(story, threading.Event())
    written = []
    for event in stream:
        if isinstance(event, Token):
            written.append(event.text)
            vectors(llamacpp.engine, "hello", pooling="mean")
    assert "".join(written) == expected


def test_a_model_that_was_not_made_for_vectors_refuses_unless_it_is_told_how(llamacpp):
    with pytest.raises(InvalidRequest, match="does not say how the tokens of a text become one") as caught:
        vectors(llamacpp.engine, "hello")
    assert "mean or last" in caught.value.hint


def test_a_text_longer_than_the_context_is_refused_before_any_is_computed(llamacpp):
    with pytest.raises(PromptTooLong) as caught:
        vectors(llamacpp.engine, "hello", "hello " * 3000, pooling="mean")
    assert caught.value.details["context_tokens"] == CONTEXT


def test_a_model_without_that_part_scores_nothing(llamacpp):
    with pytest.raises(InvalidRequest, match="cannot score documents"):
        list(llamacpp.engine.rerank(RerankRequest("a", ("b",)), threading.Event()))


def test_cancel_ends_vectors_between_the_parts(llamacpp):
    cancel = threading.Event()
    stream = llamacpp.engine.embed(EmbedRequest(TEXTS * 20, "mean"), cancel)
    assert isinstance(next(stream), Embedded)
    cancel.set()
    assert len(list(stream)) < 20


def test_who_waits_for_the_context_leaves_once_cancelled(llamacpp):
    engine, cancel = llamacpp.engine, threading.Event()
    with engine._embedder._lock:
        waiting = threading.Thread(target=vectors, args=(engine, "hello"), kwargs={"pooling": "mean", "cancel": cancel})
        waiting.start()
        cancel.set()
        waiting.join(30)
        assert not waiting.is_alive()


def test_a_model_that_only_reads_makes_vectors_by_itself_and_no_text(tmp_path):
    engine = load(ranker(tmp_path / "m.gguf", pooling=2, scores=False))
    together = vectors(engine, *BEES)
    assert [len(vector) for vector in together] == [32] * len(BEES)
    for text, vector in zip(BEES, together, strict=True):
        [alone] = vectors(engine, text)
        assert alone == pytest.approx(vector, abs=1e-5)
    assert vectors(engine, *BEES, pooling="mean") != together
    with pytest.raises(InvalidRequest, match="cannot write any"):
        list(engine.generate(GenerateRequest(prompt="a bee"), threading.Event()))
    with pytest.raises(PromptTooLong) as caught:
        vectors(engine, "bee " * 63)
    assert caught.value.details == {"prompt_tokens": 65, "context_tokens": 64}
    engine.close()


def test_a_query_that_names_a_place_of_the_template_is_only_text():
    assert filled("Q {query} D {document} {query}", "{document}?", "{query}!") == "Q {document}? D {query}! {document}?"


def test_a_model_for_it_scores_each_document_by_itself(tmp_path):
    engine = load(ranker(tmp_path / "m.gguf"))

    def scores(query, *documents):
        found = {r.index: r.score for r in engine.rerank(RerankRequest(query, documents), threading.Event())}
        return [found[index] for index in sorted(found)]

    together = scores("honey", *BEES)
    assert len(set(together)) == len(BEES)
    assert together == scores("honey", *BEES)
    for document, score in zip(BEES, together, strict=True):
        assert scores("honey", document) == pytest.approx([score], abs=1e-5)
    assert scores("tax", *BEES) != pytest.approx(together, abs=1e-3)
    with pytest.raises(InvalidRequest, match="scores documents, and makes no vectors"):
        vectors(engine, "bee", pooling="mean")
    engine.close()
