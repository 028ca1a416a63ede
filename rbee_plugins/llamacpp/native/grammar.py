"""Makes a text fit a grammar: llguidance says which tokens may follow.

Everything of it is bounded: `LIMITS` end a grammar that takes too many steps or states, here and in each step.
"""

import ctypes
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from rbee_core.errors import InvalidRequest, shorten
from rbee_plugins.llamacpp.native import logits
from rbee_plugins.llamacpp.native.bindings import lib
from rbee_plugins.llamacpp.native.model import NativeModel

_JSON_SPACE = r"( |\n[ \t]{0,20})?"  # or a model fills its answer with blanks
_CONTROL, _USER_DEFINED = 8, 16  # llama.cpp's attributes of tokens
_SPECIAL = b"\xff"  # llguidance's mark of a token that no text spells


class Grammars:
    """The grammars of one model. Knowing its tokens takes half a second, when the first grammar comes."""

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._tokens: Any = None

    def gbnf(self, lark: str) -> "Begin":
        """Return what begins a text that is held to this grammar; it raises `InvalidRequest` if that cannot be done."""
        return self._begin(LLMatcher.grammar_from_lark(lark))

    def json_schema(self, schema: Mapping[str, Any]) -> "Begin":
        """Return what begins JSON of this schema. Raises `InvalidRequest`."""
        try:
            grammar = LLMatcher.grammar_from_json_schema(dict(schema), defaults={"whitespace_pattern": _JSON_SPACE})
        except ValueError as error:  # such as a number of more than 64 bits
            raise refused(str(error)) from None
        return self._begin(grammar)

    def regex(self, regex: str) -> "Begin":
        """Return what begins a text that is held to this regular expression."""
        return self._begin(LLMatcher.grammar_from_regex(regex))

    def _begin(self, grammar: str) -> "Begin":
        with self._lock:
            self._tokens = self._tokens or _tokens(self._model)
        return partial(Constraint, self._tokens, grammar, self._model.vocabulary_size)


class Constraint:
    """Holds one text to a grammar."""

    def __init__(self, tokens: Any, grammar: str, vocabulary_size: int) -> None:
        self._matcher = LLMatcher(tokens, grammar, log_level=0, limits=_limits())
        self._mask = bytearray((vocabulary_size + 31) // 32 * 4)
        self._view = (ctypes.c_char * len(self._mask)).from_buffer(self._mask)
        self._ready = False
        self.ended = False
        self._compute()

    def forbid(self, values: logits.Logits) -> None:
        """Make it impossible that a token follows which would not fit."""
        if not self._ready:
            self._compute()
        logits.keep_only(values, self._mask)

    def accept(self, token: int) -> None:
        """Go on behind `token`."""
        self._ready = False
        if not self._matcher.consume_token(token):
            raise self._failed()
        self.ended = self._matcher.is_stopped()

    def _compute(self) -> None:
        """Find what may follow."""
        if not self._matcher.is_error():
            self._matcher.unsafe_compute_mask_ptr(ctypes.addressof(self._view), len(self._mask))
        if self._matcher.is_error():
            raise self._failed()
        self._ready = True

    def _failed(self) -> InvalidRequest:
        why = str(self._matcher.get_error())
        if "NoExtensionBias" in why:
            return refused("no text fits it")
        return refused(why.partition("\n<state>")[0])


Begin = Callable[[], Constraint]
"""Begins a text. May take long, and does so without the interpreter's lock."""


def refused(why: str) -> InvalidRequest:
    """Return the error for a grammar, JSON schema or regular expression that cannot be used."""
    return InvalidRequest(f"The text cannot be held to this grammar: {shorten(' '.join(why.split()), 300)}")


def _limits() -> Any:
    """Return what one grammar may cost. A step is bounded to some tens of milliseconds, the others wait for it."""
    return LLParserLimits(
        max_items_in_row=2000,
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=100_000,
        step_max_items=50_000,
        max_lexer_states=50_000,
        max_grammar_size=100_000,
        precompute_large_lexemes=True,
        verbose_errors=False,
    )


def _tokens(model: NativeModel) -> Any:
    """Return what llguidance knows of the vocabulary.

    As its own module for llama.cpp does, which imports all of llama_cpp and with it takes over llama.cpp's log.
    """
    build: Any = getattr(LLTokenizer, "from_llamacpp")  # noqa: B009  # not in its type stubs
    tokenize = ctypes.cast(lib._lib.llama_tokenize, ctypes.c_void_p).value  # noqa: SLF001  # its address
    return build(
        tokens=[_spelling(model, token) for token in range(model.vocabulary_size)],
        vocab_ptr=model.vocabulary_handle,
        tokenize_fptr=tokenize,
        eos_token=list(model.ends),
        slices=None,
    )


def _spelling(model: NativeModel, token: int) -> bytes:
    attributes = lib.llama_vocab_get_attr(model.vocabulary_handle, token)
    text = model.piece(token, special=True)
    looks_special = text.startswith(b"<") and text.endswith(b">")
    special = attributes & _CONTROL or (attributes & _USER_DEFINED and looks_special)
    return _SPECIAL + text if special else text
