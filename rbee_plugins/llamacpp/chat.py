"""Turns a conversation into the prompt text that a model was trained on, with the template from its file."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from rbee_core.backend import Message
from rbee_core.errors import InvalidRequest, shorten

_formats: Any = import_module("llama_cpp.llama_chat_format")  # untyped, as in native.py


class ChatTemplate:
    """A model's chat template, compiled when first used. It is a stranger's code and runs in Jinja's sandbox."""

    def __init__(self, source: str, bos: str, eos: str) -> None:
        self._source = source
        self._bos = bos
        self._eos = eos
        self._formatter: Any = None

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
            if self._formatter is None:
                self._formatter = _formats.Jinja2ChatFormatter(self._source, self._eos, self._bos)
            return str(self._formatter(messages=[{"role": m.role, "content": m.content} for m in messages]).prompt)
        except Exception as error:  # a template may raise whatever it likes
            raise InvalidRequest(
                f"The model's chat template refused the messages: {shorten(str(error))}",
                hint="many templates want user and assistant in turns, and some no system message",
            ) from error
