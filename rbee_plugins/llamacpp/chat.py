"""Turns a conversation into the prompt text that a model was trained on, with the template from its file."""

import json
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rbee_core.backend import Message
from rbee_core.errors import InvalidRequest, shorten


class ChatTemplate:
    """A model's chat template, compiled when first used. It is a stranger's code and runs in Jinja's sandbox."""

    def __init__(self, source: str, bos: str, eos: str) -> None:
        self._source = source
        self._bos = bos
        self._eos = eos
        self._template: Template | None = None

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt for `messages`, ending where the assistant begins to speak.

        Raises `InvalidRequest` if the model has no template, or its template refuses these messages.
        """
        if not self._source:
            raise InvalidRequest(
                "This model has no chat template, so it cannot answer messages",
                hint="send a plain prompt, or use a model that was trained for conversations",
            )
        try:
            self._template = self._template or compiled(self._source)
            return self._template.render(
                messages=[{"role": m.role, "content": m.content} for m in messages],
                bos_token=self._bos,
                eos_token=self._eos,
                add_generation_prompt=True,
                tools=None,  # templates ask `is not none`, which what is missing is not
                documents=None,
            )
        except Exception as error:  # a template may raise whatever it likes
            raise InvalidRequest(
                f"The model's chat template refused the messages: {shorten(str(error))}",
                hint="many templates want user and assistant in turns, and some no system message; `--raw` needs none",
            ) from error


def compiled(source: str) -> Template:
    """Return a template that finds what Hugging Face's own renderer offers, which is what templates are written for.

    Not llama_cpp's formatter: importing that brings numpy and a third of a worker's start.
    """
    environment: Any = ImmutableSandboxedEnvironment(  # its tables are untyped
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationBlock]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": time.strftime}
    return environment.from_string(source)


class _GenerationBlock(Extension):
    """``{% generation %}`` marks for training what the assistant says; here it only has to be let through."""

    tags = {"generation"}  # noqa: RUF012  # Jinja's own way

    def parse(self, parser: Parser) -> list[Node]:
        """Return what stands inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Not Jinja's own filter, which escapes for HTML. Only what templates use: other options of json call code."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(why: str) -> NoReturn:
    raise TemplateError(why)
