"""Steps about how tokens are chosen: samplers, likelihoods, and texts that have a form."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from pytest_bdd import parsers, then, when

from rbee_kit.asking import PROMPT
from rbee_kit.loaded import WORD, Loaded, Text

PROMPTS = ("1 2 3 1 2 3 1 2 3", PROMPT, WORD * 12)
GREETING = "Say hi."
TOKENS = 16
GREETING_TOKENS = 24
LATER = 4
SEED = 7
SAMPLED: Mapping[str, Any] = {"temperature": 1.0, "seed": SEED}
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "frequency_penalty": {"frequency_penalty": 2.0},
    "presence_penalty": {"presence_penalty": 2.0},
    "dry_multiplier": {"dry_multiplier": 4.0, "dry_allowed_length": 1},
    "typical_p": {"typical_p": 0.1, **SAMPLED},
    "xtc_probability": {"xtc_probability": 1.0, "xtc_threshold": 0.01, **SAMPLED},
    "mirostat": {"mirostat": 2, "mirostat_tau": 0.5, **SAMPLED},
}
"""What a sampler is given so that it makes a difference. Where its text is greedy, that repeats itself without it."""
TOKEN_NUMBERS = (1000, 100, 10)  # of a vocabulary that may be large or small, behind what has no text
FORCED = 100.0
ROUNDING = 1e-3
EVERY_SEED = (1, 2)
FORM_TOKENS = 256

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "likes": {"type": "array", "items": {"enum": ["honey", "wax"]}, "maxItems": 2},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Form:
    """A form, one that is none, and what tells whether a text has it."""

    field: str
    sound: Any
    broken: Any
    fits: Callable[[str], bool]


class Person(Struct, forbid_unknown_fields=True):
    """What the schema is of."""

    name: Annotated[str, Meta(max_length=8)]
    age: Annotated[int, Meta(ge=0, le=150)]
    likes: Annotated[list[Literal["honey", "wax"]], Meta(max_length=2)]


def is_person(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=Person)
    except msgspec.DecodeError:
        return False
    return True


def matching(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


FORMS = {
    "grammar": Form(
        "grammar",
        'root ::= ("yes" | "no") ", " [0-9] [0-9] "."',
        'root ::= ("yes" | ',
        matching(r"(yes|no), [0-9]{2}\."),
    ),
    "regular expression": Form("regex", "(red|green) [a-c]{3}", "(red|green", matching("(red|green) [a-c]{3}")),
    "schema": Form("json_schema", SCHEMA, {"type": "no such type"}, is_person),
}


@dataclass(frozen=True)
class Pair:
    """A text without a sampler, and one with it."""

    sampler: str
    without: Text
    with_it: Text


@when(parsers.re(r"texts are asked for with and without (?P<sampler>\w+)"), target_fixture="pair")
def ask_with_and_without(loaded: Loaded, sampler: str) -> Pair:
    ask = {
        "top_n_sigma": ask_for_likeliest,
        "logit_bias": ask_for_one_token,
        "min_tokens": ask_for_more,
        "ignore_eos": ask_for_more,
    }.get(sampler, ask_for_another)
    return ask(loaded, sampler)


def ask_for_another(loaded: Loaded, sampler: str) -> Pair:
    """Ask about several things, until the sampler makes a difference."""
    fields = CHANGES[sampler]
    plain = {name: value for name, value in fields.items() if name in SAMPLED}

    def ask(prompt: str) -> Pair:
        without = whole(loaded.ask(prompt=prompt, max_tokens=TOKENS, **plain))
        return Pair(sampler, without, whole(loaded.ask(prompt=prompt, max_tokens=TOKENS, **fields)))

    pairs = map(ask, PROMPTS)
    return next((pair for pair in pairs if pair.with_it.text != pair.without.text), None) or ask(PROMPT)


def ask_for_likeliest(loaded: Loaded, sampler: str) -> Pair:
    likeliest = whole(loaded.ask(prompt=PROMPT, max_tokens=TOKENS))
    fields: dict[str, Any] = {**SAMPLED, "temperature": 1.5, sampler: 0.001}
    return Pair(sampler, likeliest, whole(loaded.ask(prompt=PROMPT, max_tokens=TOKENS, **fields)))


def ask_for_one_token(loaded: Loaded, sampler: str) -> Pair:
    """Force tokens by their numbers, of which one at least is in the vocabulary and has a text."""
    without = whole(loaded.ask(prompt=PROMPT, max_tokens=LATER))
    forced = [loaded.ask(prompt=PROMPT, max_tokens=LATER, logit_bias={number: FORCED}) for number in TOKEN_NUMBERS]
    alike = [text for text in forced if text.error is None and len(pieces(text)) == 1]
    return Pair(sampler, without, [*alike, *forced][0])


def pieces(text: Text) -> set[str]:
    return {token.token.strip() for token in text.tokens if token.token and token.token.strip()}


def ask_for_more(loaded: Loaded, sampler: str) -> Pair:
    """Ask for a text that usually ends soon, and have it go on."""
    without = greet(loaded, GREETING_TOKENS)
    longer = without.end.total_tokens + LATER
    fields: dict[str, Any] = {"min_tokens": longer} if sampler == "min_tokens" else {"ignore_eos": True}
    return Pair(sampler, without, greet(loaded, longer, **fields))


def greet(loaded: Loaded, tokens: int, **fields: Any) -> Text:
    return whole(loaded.ask(prompt=GREETING, chat_template="if_any", max_tokens=tokens, **fields))


def whole(text: Text) -> Text:
    """Return `text` unless it ended with an error."""
    assert text.error is None, str(text.error)
    return text


@then("with it another text comes")
def another_text(pair: Pair) -> None:
    assert pair.with_it.text != pair.without.text, (
        f"{pair.sampler} makes no difference: with {CHANGES[pair.sampler]} and without, the text is "
        f"{pair.without.text!r}"
    )


@then("with it the likeliest text comes")
def likeliest_text(pair: Pair) -> None:
    assert pair.with_it.text == pair.without.text, (
        f"{pair.sampler} leaves only the likeliest token if it is next to 0: {pair.without.text!r} is the text of "
        f"temperature 0, and {pair.with_it.text!r} came"
    )


@then("with it one token comes again and again")
def one_token(pair: Pair) -> None:
    text = whole(pair.with_it)
    assert text.end.total_tokens == LATER, f"{text.end.total_tokens} tokens came, {LATER} were forced"
    assert len(pieces(text)) == 1, f"a bias of {FORCED:g} is to leave one token, and these came: {pieces(text)}"
    assert text.text != pair.without.text, f"with a bias of {FORCED:g} the text is the same: {text.text!r}"


@then("with it the end comes later")
@then("with it no end comes")
def end_comes_later(pair: Pair) -> None:
    least, had = pair.without.end.total_tokens + LATER, pair.with_it.end.total_tokens
    assert had == least, f"with {pair.sampler} a text is to have {least} tokens at least, and it ended after {had}"
    assert pair.sampler != "ignore_eos" or pair.with_it.end.finish_reason == "length", "it says that it came to its end"


@when(parsers.parse("{tokens:d} tokens are asked for, each with the {count:d} likeliest ones"), target_fixture="text")
def ask_for_likelihoods(loaded: Loaded, tokens: int, count: int) -> Text:
    return whole(loaded.ask(prompt=PROMPT, max_tokens=tokens, logprobs=count))


@then(
    parsers.parse("each has {count:d} of them, likeliest first, with probabilities of at most 1 together"),
    converters={"count": int},
)
def likelihoods_add_up(text: Text, count: int) -> None:
    for token in text.tokens:
        said = token.logprobs
        assert said is not None, f"the token {token.token!r} does not say how likely it was"
        likely = [other.logprob for other in said.top]
        assert len(likely) == count, f"{count} tokens were to be named at each place, and {len(likely)} were"
        assert likely == sorted(likely, reverse=True), f"the likeliest does not come first: {likely}"
        highest = max([said.logprob, *likely])
        assert highest <= ROUNDING, f"{highest:.3f} is the logarithm of no probability: it is above 0"
        together = sum(math.exp(logprob) for logprob in likely)
        assert together <= 1 + ROUNDING, f"tokens have probabilities of {together:.3f} together"


@then("each token that came was the likeliest")
def likeliest_came(text: Text) -> None:
    for token in text.tokens:
        said = token.logprobs
        assert said is not None
        assert not said.top or said.id == said.top[0].id, (
            f"at temperature 0 the likeliest token comes: {said.top[0].token!r} was, and {said.token!r} came"
        )


@when(
    parsers.re(r"texts are asked for in the form of a (?P<form>grammar|regular expression|schema)"),
    target_fixture="formed",
)
def ask_in_form(loaded: Loaded, form: str) -> tuple[Form, Sequence[Text]]:
    wanted = FORMS[form]
    fields: dict[str, Any] = {wanted.field: wanted.sound, "temperature": 1.5, "max_tokens": FORM_TOKENS}
    return wanted, [whole(loaded.ask(prompt=PROMPT, seed=seed, **fields)) for seed in EVERY_SEED]


@when(parsers.re(r"a text is asked for in the form of a (?P<form>.+) that is none"), target_fixture="text")
def ask_in_broken_form(loaded: Loaded, form: str) -> Text:
    wanted = FORMS[form]
    return loaded.ask(prompt=PROMPT, max_tokens=LATER, **{wanted.field: wanted.broken})


@then("each comes to its end in that form")
def has_form(formed: tuple[Form, Sequence[Text]]) -> None:
    form, texts = formed
    for text in texts:
        assert form.fits(text.text), f"a text does not fit its {form.field}: {text.text!r}"
        assert text.end.finish_reason == "stop", (
            f"a text that had its form at the end ended with {text.end.finish_reason} instead of stop"
        )


@then("it is refused as a request that is wrong")
def refused_as_wrong(text: Text) -> None:
    assert text.error is not None, f"it was not refused, and became {text.text!r}"
    assert text.error.http_status in range(400, 500), (
        f"a form that is none should be refused with InvalidRequest before anything is generated; it ended with "
        f"{text.error.code}: {text.error.message}"
    )
