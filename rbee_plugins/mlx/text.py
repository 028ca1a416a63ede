"""Turns generated tokens into text, whole characters only.

mlx-lm's own streaming detokenizers drop the space an answer begins with and write special tokens out; with the
bytes of each token known, both are easy to avoid, and texts compare with other engines'.
"""

import codecs
from collections.abc import Callable, Mapping
from typing import Any

_BYTE_TOKEN_LENGTH = len("<0x00>")


class TokenText:
    """The text of one answer. `piece` gives the bytes of a token, which may end within a character."""

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        self._piece = piece
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def add(self, token: int) -> str:
        """Return the characters that `token` completes."""
        return self._decode(self._piece(token))

    def rest(self) -> str:
        """Return what was kept back, a cut character as U+FFFD."""
        return self._decode(b"", True)


class ForeignText:
    """The same for tokenizers of another kind, with mlx-lm's detokenizer, which decodes the answer so far."""

    def __init__(self, detokenizer: Any) -> None:
        self._detokenizer = detokenizer

    def add(self, token: int) -> str:
        """Return the characters that `token` completes."""
        self._detokenizer.add_token(token)
        return str(self._detokenizer.last_segment)

    def rest(self) -> str:
        """Return what was kept back."""
        self._detokenizer.finalize()
        return str(self._detokenizer.last_segment)


def pieces(tokenizer: Any, decoder: str) -> Callable[[int], bytes] | None:
    """Return the function that gives a token's bytes, None for a `decoder` of a kind that is not known here.

    `tokenizer` is a Hugging Face tokenizer, `decoder` the JSON text of its decoder.
    """
    if '"ByteLevel"' in decoder:
        encode = _byte_level
    elif '"ByteFallback"' in decoder:
        encode = _byte_fallback
    else:
        return None
    silent = set(tokenizer.all_special_ids)
    added: Mapping[int, Any] = tokenizer.added_tokens_decoder

    def piece(token: int) -> bytes:
        if token in silent or (token in added and added[token].special):
            return b""
        if token in added:
            return str(added[token].content).encode()
        text: str | None = tokenizer.convert_ids_to_tokens(token)
        return encode(text) if text else b""

    return piece


def _byte_fallback(text: str) -> bytes:
    """SentencePiece's way: a visible space, and tokens that spell one byte."""
    if len(text) == _BYTE_TOKEN_LENGTH and text.startswith("<0x") and text.endswith(">"):
        return bytes.fromhex(text[3:5])
    return text.replace("▁", " ").encode()


def _byte_level(text: str) -> bytes:
    """GPT-2's way: each byte has a printable character that stands for it."""
    return b"".join(_BYTES[c] if c in _BYTES else c.encode() for c in text)


def _byte_characters() -> Mapping[str, bytes]:
    """GPT-2's table: printable bytes stand for themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(0x100) if b not in printable]
    table = {chr(b): bytes([b]) for b in printable}
    return table | {chr(0x100 + n): bytes([b]) for n, b in enumerate(others)}


_BYTES = _byte_characters()
