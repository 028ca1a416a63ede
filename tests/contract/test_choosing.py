"""How llama.cpp's tokens are chosen: every sampler does something, likelihoods are right, and grammars always fit."""

import contextlib
import json
import math
import re
import threading

import pytest

from rbee_core.backend import Finished, GenerateRequest, Message, Token
from rbee_core.errors import InvalidRequest

STORY = "Once upon a time"
HELLO = (Message("user", "Say hi."),)
SEEDS = range(3)

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "likes": {"type": "array", "items": {"enum": ["honey", "wax"]}, "maxItems": 2},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}
NESTED = 'root ::= "(" root ")" | "[" root? "]" | word\nword ::= [a-z]{1,4}'


@pytest.fixture
def text(llamacpp):
    def generate(**fields) -> str:
        given = {"prompt": STORY, "max_tokens": 10, "seed": 7, **fields}
        return llamacpp.text(GenerateRequest(**given))

    return generate


@pytest.fixture
def tokens(llamacpp):
    def generate(**fields) -> list[Token]:
        events = llamacpp.events(GenerateRequest(**{"prompt": STORY, "seed": 7, **fields}))
        return [event for event in events if isinstance(event, Token)]

    return generate


def number(llamacpp, piece: str) -> int:
    [token] = llamacpp.engine._model.tokenize(piece, add_special=False)
    return token


@pytest.mark.parametrize(
    "fields",
    [
        {"frequency_penalty": 2.0, "temperature": 0, "max_tokens": 24},
        {"presence_penalty": 2.0, "temperature": 0, "max_tokens": 24},
        {"dry_multiplier": 4.0, "dry_allowed_length": 1, "temperature": 0, "max_tokens": 24},
        {"typical_p": 0.1},
        {"top_n_sigma": 0.01},
        {"xtc_probability": 1.0, "xtc_threshold": 0.01},
        {"mirostat": 1, "mirostat_tau": 0.5},
        {"mirostat": 2, "mirostat_tau": 0.5},
    ],
    ids=lambda fields: next(iter(fields)) + str(fields.get("mirostat", "")),
)
def test_every_sampler_changes_the_text_and_a_seed_repeats_it(text, fields):
    common = {name: value for name, value in fields.items() if name in ("temperature", "max_tokens")}
    prompt = "1 2 3 1 2 3 1 2 3" if "temperature" in fields else STORY
    changed = text(prompt=prompt, **fields)
    assert changed != text(prompt=prompt, **common)
    assert changed == text(prompt=prompt, **fields)


def test_a_bias_forbids_a_token_and_forces_one(llamacpp, text):
    comma, bee = number(llamacpp, ","), number(llamacpp, " bee")
    assert text(temperature=0, max_tokens=4).startswith(",")
    assert "," not in text(temperature=0, logit_bias={comma: -100.0}, max_tokens=4)
    assert text(logit_bias={bee: 100.0}, max_tokens=3) == " bee bee bee"


def test_a_bias_for_a_token_that_the_model_does_not_have_is_refused(text):
    with pytest.raises(InvalidRequest, match="names token 99999, and this model has 49152"):
        text(logit_bias={99999: 1.0})


def test_no_end_comes_before_so_many_tokens(llamacpp):
    def ended(**fields) -> tuple[int, str]:
        events = llamacpp.events(GenerateRequest(messages=HELLO, temperature=0, max_tokens=40, **fields))
        return sum(isinstance(event, Token) for event in events), events[-1].reason

    usual, reason = ended()
    assert reason == "stop"
    assert ended(min_tokens=usual)[0] == usual, "it changed what it did not have to"
    assert ended(min_tokens=usual + 5)[0] >= usual + 5
    assert ended(ignore_eos=True) == (40, "length")


def test_likelihoods_are_those_of_the_model(tokens):
    greedy = tokens(temperature=0, logprobs=5, max_tokens=6)
    assert "".join(one.text for one in greedy) == "".join(one.text for one in tokens(temperature=0, max_tokens=6))
    for one in greedy:
        assert one.chosen == one.top[0], "the greedy token is the likeliest"
        assert one.chosen.piece.decode() == one.text
        likelihoods = [other.logprob for other in one.top]
        assert likelihoods == sorted(likelihoods, reverse=True)
        assert sum(map(math.exp, likelihoods)) <= 1 + 1e-6
    sampled = tokens(temperature=1.5, logprobs=0, max_tokens=6)
    assert all(one.top == () and one.chosen.logprob < 0 for one in sampled)


def test_likelihoods_are_of_before_anything_was_forbidden(llamacpp, tokens):
    [plain] = tokens(temperature=0, logprobs=2, max_tokens=1)
    [forced] = tokens(temperature=0, logprobs=2, max_tokens=1, regex="[a-z]+", min_tokens=1)
    assert forced.chosen.piece != plain.chosen.piece
    assert forced.top == plain.top


def test_all_likelihoods_add_up_to_one(llamacpp):
    from rbee_plugins.llamacpp import native
    from rbee_plugins.llamacpp.native import logits

    engine = llamacpp.engine
    sampler = engine._samplers.build(GenerateRequest(prompt="x", logprobs=1, seed=1), threading.Event())
    context = native.Context(engine._model, tokens=256, batch_tokens=256, threads=2)
    context.decode([native.Part(0, 0, engine._model.tokenize(STORY, add_special=True), rows=1)])
    sampler.choose(context)
    everything = logits.likely(sampler._kept, 0, engine._model.vocabulary_size)[1]
    assert sum(math.exp(logprob) for _, logprob in everything) == pytest.approx(1)
    sampler.close()
    context.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_json_of_a_schema_always_parses(llamacpp, seed):
    request = GenerateRequest(prompt="A beekeeper as JSON:", seed=seed, temperature=1.5, top_k=0, json_schema=PERSON)
    events = llamacpp.events(request)
    person = json.loads("".join(event.text for event in events if isinstance(event, Token)))
    assert events[-1] == Finished("stop")
    assert person.keys() == {"name", "age", "likes"}
    assert len(person["name"]) <= 8
    assert person["age"] in range(151)
    assert set(person["likes"]) <= {"honey", "wax"}


def nested(text: str) -> bool:
    pairs = {"(": ")", "[": "]"}
    while text and text[0] in pairs:
        if text[-1] != pairs[text[0]] or (text == "()"):
            return False
        text = text[1:-1]
    return text == "" or re.fullmatch("[a-z]{1,4}", text) is not None


@pytest.mark.parametrize("seed", SEEDS)
def test_a_grammar_always_fits(llamacpp, seed):
    bias = {number(llamacpp, "("): 5.0, number(llamacpp, ")"): 5.0}
    request = GenerateRequest(
        prompt="x = ", seed=seed, temperature=1.2, grammar=NESTED, logit_bias=bias, max_tokens=400
    )
    events = llamacpp.events(request)
    text = "".join(event.text for event in events if isinstance(event, Token))
    assert nested(text) or events[-1] == Finished("length"), text


def test_a_regular_expression_fits_whole(text):
    for seed in SEEDS:
        assert re.fullmatch(r"[a-z]{2,5}-[0-9]{3}", text(regex=r"[a-z]{2,5}-[0-9]{3}", seed=seed, max_tokens=None))


def test_an_end_that_a_grammar_needs_comes_although_it_was_forbidden(text):
    assert text(grammar='root ::= "yes"', ignore_eos=True, max_tokens=None) == "yes"


PRODUCT = {"allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {}}} for j in range(4)]} for i in range(12)]}
HOSTILE = {
    "no grammar": {"grammar": "root ::= ("},
    "deep": {"grammar": "root ::= " + "(" * 60_000},
    "empty language": {"json_schema": {"$ref": "#"}},
    "from elsewhere": {"json_schema": {"$ref": "http://127.0.0.1:9/schema.json"}},
    "unknown type": {"json_schema": {"type": "bee"}},
    "product": {"json_schema": PRODUCT},
    "large number": {"json_schema": {"type": "integer", "maximum": 10**30}},
    "chain of rules": {
        "grammar": "root ::= a0\n" + "\n".join(f"a{n}::=a{n + 1}" for n in range(5000)) + "\na5000::=.",
    },
    "no expression": {"regex": "(a"},
    "look-around": {"regex": "(?=a)b"},
}


@pytest.mark.parametrize("fields", HOSTILE.values(), ids=HOSTILE)
def test_a_grammar_that_cannot_be_used_is_refused_in_a_sentence(text, fields):
    with pytest.raises(InvalidRequest) as refused:
        text(**fields)
    assert 30 < len(refused.value.message) < 500


def test_an_expression_with_very_many_states_ends_or_goes_on_and_the_next_request_is_served(text):
    with contextlib.suppress(InvalidRequest):
        text(regex="((a{1,900}b){1,900}c){1,900}" * 3, max_tokens=3)
    with contextlib.suppress(InvalidRequest):
        text(regex=r"(.|\n)*a(.|\n){900}", max_tokens=3)
    assert text(temperature=0, max_tokens=2).startswith(",")


def test_an_ambiguous_grammar_costs_no_more_with_each_token(llamacpp):
    """llama.cpp's own matcher takes twice as long for each further letter: it would not get to the thirtieth."""
    grammar = 'root ::= "a" root "b" | "a" root "c" | "a"'
    request = GenerateRequest(
        prompt="a" * 9, seed=1, grammar=grammar, logit_bias={number(llamacpp, "a"): 100.0}, max_tokens=30
    )
    text = llamacpp.text(request)
    assert text.startswith("a" * 20)
