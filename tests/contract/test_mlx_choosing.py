"""What MLX obeys of the ways to choose tokens, and how likely it says that they were."""

import math

import pytest

from rbee_core.backend import Finished, GenerateRequest, Token
from rbee_core.errors import InvalidRequest

PROMPT = "1 2 3 1 2 3 1 2 3"


@pytest.fixture
def tokens(mlx):
    def generate(**fields) -> list[Token]:
        given = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0, "seed": 7, **fields}
        events = mlx.events(GenerateRequest(**given))
        return [event for event in events if isinstance(event, Token)]

    return generate


def text(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens)


@pytest.mark.parametrize(
    "fields",
    [
        {"frequency_penalty": 2.0},
        {"presence_penalty": 2.0},
        {"xtc_probability": 1.0, "xtc_threshold": 0.01, "temperature": 0.8},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_mlx_obeys_changes_the_text(tokens, fields):
    plain = {"temperature": fields.get("temperature", 0)}
    assert text(tokens(**fields)) != text(tokens(**plain))
    assert text(tokens(**fields)) == text(tokens(**fields))


def test_a_bias_forbids_a_token_also_the_first(mlx, tokens):
    [space] = set(mlx.engine._model.tokenize(" "))
    assert text(tokens()).startswith(" ")
    assert not text(tokens(logit_bias={space: -100.0}, max_tokens=1)).startswith(" ")
    with pytest.raises(InvalidRequest, match="names token 99999"):
        tokens(logit_bias={99999: 1.0})


def test_likelihoods_are_those_of_the_model_whatever_is_done_to_them(tokens):
    plain = tokens(logprobs=3, max_tokens=3)
    assert text(plain) == text(tokens(max_tokens=3))
    for one in plain:
        assert one.chosen == one.top[0]
        assert one.chosen.piece.decode() == one.text
        assert sum(math.exp(other.logprob) for other in one.top) <= 1 + 1e-5
    [forced] = tokens(logprobs=1, max_tokens=1, logit_bias={plain[0].chosen.id: -100.0})
    assert forced.chosen != forced.top[0] == plain[0].top[0]


def test_the_end_is_put_off(mlx):
    def ended(**fields) -> tuple[int, Finished]:
        request = GenerateRequest(prompt="Hi.<|im_end|>", max_tokens=12, temperature=0, **fields)
        events = mlx.events(request)
        return sum(isinstance(event, Token) for event in events), events[-1]

    ends = sorted(mlx.engine._model.ends)
    wanted = {"logit_bias": {ends[0]: 100.0}}
    assert ended(**wanted) == (0, Finished("stop"))
    assert ended(**wanted, min_tokens=5) == (5, Finished("stop"))
    assert ended(**wanted, ignore_eos=True) == (12, Finished("length"))
