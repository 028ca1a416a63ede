"""Two engines give the same greedy text where the model is sure of it.

At four bits the model is often torn between two tokens, and then rounding decides; so the test first measures, with
llama.cpp's logits, that the best token is far ahead at every step.
"""

import ctypes

import pytest

from rbee_core.backend import GenerateRequest

MARGIN = 1.2
CERTAIN = [("a b c d e f g h i", 6), ("The alphabet: A, B, C, D, E, F, G,", 4)]


def logit_margins(engine, prompt: str, steps: int) -> list[float]:
    """Return how far the best token is ahead of the second, along llama.cpp's greedy path."""
    from rbee_plugins.llamacpp import native
    from rbee_plugins.llamacpp.native.bindings import lib

    model, margins = engine._model, []
    context = native.Context(model, tokens=256, batch_tokens=256, threads=2)
    tokens = model.tokenize(prompt, add_special=True)
    context.decode([native.Part(0, 0, tokens, rows=1)])
    for position in range(len(tokens), len(tokens) + steps):
        row = lib.llama_get_logits_ith(context.handle, -1)
        logits = list((ctypes.c_float * model.vocabulary_size).from_address(ctypes.addressof(row.contents)))
        best, second = sorted(logits)[-1:-3:-1]
        margins.append(best - second)
        context.decode([native.Part(0, position, [logits.index(best)], rows=1)])
    context.close()
    return margins


@pytest.mark.parametrize(("prompt", "steps"), CERTAIN)
def test_greedy_texts_are_equal(llamacpp, mlx, prompt, steps):
    assert min(logit_margins(llamacpp.engine, prompt, steps)) > MARGIN
    request = GenerateRequest(prompt=prompt, max_tokens=steps, temperature=0)
    expected = llamacpp.text(request)
    assert expected.strip()
    assert mlx.text(request) == expected


@pytest.mark.parametrize(
    "prompt", ["Grüße, 世界 \N{HONEYBEE}", "  two  spaces\n\n\ttab", "1234567 x2", "don't <|im_end|> it's", "a\r\nb"]
)
def test_both_split_a_prompt_alike(llamacpp, mlx, prompt):
    assert mlx.engine._model.tokenize(prompt) == llamacpp.engine._model.tokenize(prompt, add_special=True)
