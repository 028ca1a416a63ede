"""The arithmetic of `rbee_words`: how likely each word is after another, which one comes, and words as numbers."""

import math
import random
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from re import _constants as what
from re import _parser as parser
from typing import Any

from rbee_core.backend import GenerateRequest
from rbee_core.errors import InvalidRequest

SPREAD = 2.0
SIZE = 8
NUMBER_DIGITS = 2


def likelihoods(previous: int, count: int) -> list[float]:
    """Return the logits of the words after word number `previous`: made up, and always the same."""
    return [random.Random(previous * count + number).gauss(0, SPREAD) for number in range(count)]


def logarithms(logits: Sequence[float]) -> list[float]:
    """Return the logarithms of the probabilities."""
    total = math.log(sum(map(math.exp, logits)))
    return [logit - total for logit in logits]


def chosen(logits: Sequence[float], request: GenerateRequest, chance: random.Random | None) -> int:
    """Return the number of the word that comes; the likeliest without `chance`."""
    least = max(logits) - request.top_n_sigma * SPREAD if request.top_n_sigma else -math.inf
    if chance is None:
        return max(range(len(logits)), key=lambda number: logits[number])
    weights = [math.exp(logit / (request.temperature or 1.0)) if logit >= least else 0.0 for logit in logits]
    return chance.choices(range(len(logits)), weights)[0]


def changed(logits: Sequence[float], request: GenerateRequest, written: Sequence[int]) -> list[float]:
    """Return the logits after penalties and biases."""
    recent = written[-request.penalty_window :]
    return [
        logit
        + request.logit_bias.get(number, 0.0)
        - request.frequency_penalty * recent.count(number)
        - request.presence_penalty * (number in recent)
        for number, logit in enumerate(logits)
    ]


def formed(request: GenerateRequest, chance: random.Random) -> str:
    """Return a text of the form that `request` asks for, "" if it asks for none. Raises `InvalidRequest`."""
    if request.json_schema is not None:
        return "".join(instance(request.json_schema, chance))
    if (pattern := pattern_of(request)) is None:
        return ""
    try:
        return "".join(generated(parser.parse(pattern), chance))
    except re.error as error:
        raise InvalidRequest(f"That is no form: {error}") from error


def pattern_of(request: GenerateRequest) -> str | None:
    """Return the regular expression of the form; a grammar may have one rule, and no rule in it."""
    if request.grammar is None:
        return request.regex
    parts = re.findall(r'"[^"]*"|\[[^\]]*\]|\S', request.grammar.partition("::=")[2])
    return "".join(re.escape(part[1:-1]) if part[0] == '"' else part for part in parts)


def generated(pattern: Any, chance: random.Random) -> Iterator[str]:
    """Yield what a simple regular expression fits."""
    for kind, value in pattern:
        match kind:
            case what.LITERAL:
                yield chr(value)
            case what.IN:
                [(_, (first, last))] = value
                yield chr(chance.randint(first, last))
            case what.BRANCH:
                yield from generated(chance.choice(value[1]), chance)
            case what.SUBPATTERN:
                yield from generated(value[-1], chance)
            case what.MAX_REPEAT:
                for _ in range(value[0]):
                    yield from generated(value[2], chance)


def instance(schema: Mapping[str, Any], chance: random.Random) -> Iterator[str]:
    """Yield JSON of a simple schema."""
    match schema.get("type", "enum"):
        case "object":
            yield "{"
            for number, (name, inner) in enumerate(schema["properties"].items()):
                yield f'{", " if number else ""}"{name}": '
                yield from instance(inner, chance)
            yield "}"
        case "array":
            yield "["
            yield from instance(schema["items"], chance)
            yield "]"
        case "string":
            yield f'"{chance.choice(string.ascii_letters)}"'
        case "integer":
            yield str(chance.randint(schema["minimum"], schema["maximum"]))
        case "enum" if "enum" in schema:
            yield f'"{chance.choice(schema["enum"])}"'
        case other:
            raise InvalidRequest(f"A schema of the type {other} is none")


def vector(text: str, pooling: str | None) -> list[float]:
    """Return a vector of `text`: of its first word, of its last one, or of all of them."""
    words = text.split()
    kept = {"cls": words[:1], "last": words[-1:]}.get(pooling or "mean", words)
    rows = [[chance.gauss(0, 1) for _ in range(SIZE)] for chance in map(random.Random, kept)]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def unit(row: Sequence[float]) -> list[float]:
    """Return the vector with length 1."""
    length = math.sqrt(sum(value * value for value in row))
    return [value / length for value in row]


def score(query: str, document: str) -> float:
    """Return how many letters of `document` are in `query` too."""
    return float(sum(letter in query.lower() for letter in document.lower()))
