"""Makes a text fit a grammar: llguidance says which tokens may follow.

Everything of it is bounded: `LIMITS` end a grammar that takes too many steps or states, here and in each step.
"""

import ctypes
import threading
from collections.abc import Mapping
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from rbee_core.errors import InvalidRequest, shorten
from rbee_plugins.llamacpp.native import logits
from rbee_plugins.llamacpp.native.bindings import lib
from rbee_plugins.llamacpp.native.model import NativeModel

_JSON_SPACE = r"( |\n[ \t]{0,20})?"  # or a model fills its answer with blanks
_CONTROL, _USER_DEFINED = 8, 16  # llama.cpp's attributes of tokens
_SPECIAL = b"\xff"  # llguidance's mark of a token that no text spells

COMPILE_S = 5.0
"""How long a grammar may take to be made ready."""


class Grammars:
    """The grammars of one model. Knowing its tokens takes half a second, when the first grammar comes."""

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._tokens: Any = None
        self._late: list[threading.Thread] = []

    def close(self) -> None:
        """Wait for grammars that were given up and are still being made ready: they look at the model."""
        with self._lock:
            late = self._late
        for thread in late:
            thread.join()

    def gbnf(self, lark: str) -> "Constraint":
        """Return what holds a text to this grammar. As the others, raises `InvalidRequest` if that cannot be done."""
        return self._constraint(LLMatcher.grammar_from_lark(lark))

    def json_schema(self, schema: Mapping[str, Any]) -> "Constraint":
        """Return what holds a text to JSON of this schema."""
        try:
            grammar = LLMatcher.grammar_from_json_schema(dict(schema), defaults={"whitespace_pattern": _JSON_SPACE})
        except ValueError as error:  # such as a number of more than 64 bits
            raise refused(str(error)) from None
        return self._constraint(grammar)

    def regex(self, regex: str) -> "Constraint":
        """Return what holds a text to this regular expression."""
        return self._constraint(LLMatcher.grammar_from_regex(regex))

    def _constraint(self, grammar: str) -> "Constraint":
        with self._lock:
            self._tokens = self._tokens or _tokens(self._model)
        done: list[Constraint | BaseException] = []

        def work() -> None:
            try:
                done.append(Constraint(self._tokens, grammar, self._model.vocabulary_size))
            except BaseException as error:  # noqa: BLE001  # raised again below
                done.append(error)

        thread = threading.Thread(target=work, name="grammar", daemon=True)
        thread.start()
        thread.join(COMPILE_S)
        match done:
            case [Constraint() as made]:
                return made
            case [BaseException() as error]:
                raise error
            case _:
                with self._lock:
                    self._late = [late for late in self._late if late.is_alive()] + [thread]
                raise refused(f"it took longer than {COMPILE_S:g} s to be made ready")


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
