"""Options of `rbee infer` that say how tokens are chosen and which form the text has."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import click

from rbee_core.errors import InvalidRequest, shorten

COMMON = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed", "logprobs", "regex")
"""Fields of a request that have an option of their own, of the same name."""

RARE = (
    "frequency_penalty", "presence_penalty", "penalty_window", "logit_bias", "typical_p", "top_n_sigma",
    "xtc_probability", "xtc_threshold", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_window",
    "dry_breakers", "mirostat", "mirostat_tau", "mirostat_eta", "min_tokens", "ignore_eos",
)  # fmt: skip
"""Fields that are set with ``--sampling NAME=VALUE``."""

FILE_BYTES = 64 * 1024
MOST_DIGITS = 20
"""Of a token's number; Python refuses to read thousands, and a model's are far smaller."""


def choosing(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that `options` set, None where they do not, reading the files that they name."""
    fields = {name: options[name] for name in COMMON}
    fields |= rare(options["sampling"])
    if (path := options["grammar"]) is not None:
        fields["grammar"] = _text_of(path, "grammar")
    if (path := options["json_schema"]) is not None:
        fields["json_schema"] = _json_of(path)
    return fields


def rare(settings: Iterable[str]) -> dict[str, Any]:
    """Return what each ``NAME=VALUE`` sets; a value is JSON, and what is no JSON is a text."""
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if name not in RARE or not equals:
            what = f"Invalid --sampling: {shorten(setting)!r} is no NAME=VALUE with a NAME that is known"
            raise InvalidRequest(what, hint=f"names are {', '.join(RARE)}")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict):  # tokens by number: JSON has no numbers as names
        pairs = cast("dict[str, Any]", value).items()
        return {int(name) if name.isdecimal() and len(name) <= MOST_DIGITS else name: one for name, one in pairs}
    return value


def _json_of(path: str) -> Any:
    text = _text_of(path, "json-schema")
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"Invalid --json-schema: {shorten(path)} is no JSON: {shorten(str(error))}") from None


def _no_number(word: str) -> None:
    """Refuse what Python takes for JSON, and nobody else: it would travel as null."""
    raise ValueError(f"{word} is no number")


def _text_of(path: str, option: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            raise InvalidRequest(f"Invalid --{option}: {shorten(path)} has more than {FILE_BYTES} bytes")
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"Invalid --{option}: {shorten(path)} is not UTF-8") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"Invalid --{option}: {shorten(path)} cannot be read: {why}") from None


def spelled(field: str) -> str:
    """Return how a field of a request is set on the command line."""
    return f"--sampling {field}" if field in RARE else f"--{field.replace('_', '-')}"


choosing_options = (
    click.option(
        "--sampling",
        multiple=True,
        metavar="NAME=VALUE",
        help=f"Set one of {', '.join(RARE)}; may be repeated.",
    ),
    click.option("--logprobs", type=int, metavar="N", help="Say how likely each token was, and N others; with --json."),
    click.option("--grammar", metavar="FILE", help="All of the text fits this GBNF grammar."),
    click.option("--json-schema", metavar="FILE", help="The text is JSON of this schema."),
    click.option("--regex", metavar="PATTERN", help="All of the text fits this regular expression."),
)
