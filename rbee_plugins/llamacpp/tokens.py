"""Turns texts into tokens that may be longer than a model can take: nobody waits for what cannot fit.

Turning a megabyte into tokens takes seconds, or minutes where it is full of special ones. So a text's length is bounded
before that, and what is long is done in pieces, between which it is looked whether anybody still waits.
"""

from rbee_core.backend import CancelToken
from rbee_core.errors import PromptTooLong
from rbee_plugins.llamacpp.native.model import NativeModel
from rbee_plugins.llamacpp.splitting import PIECE_BYTES, pieces


class Tokens:
    """The tokens of one model's texts, of which `limit` are the most that one text may have. For any thread."""

    def __init__(self, model: NativeModel, limit: int) -> None:
        self._model = model
        self._limit = limit

    def of(self, text: bytes, cancel: CancelToken, *, add_special: bool) -> list[int]:
        """Return the tokens of `text`, with those in front that the model wants; only some of them once cancelled.

        Raises `PromptTooLong` for a text that cannot fit, whatever is in it.
        """
        if len(text) <= PIECE_BYTES:
            return self._model.tokenize(text, add_special=add_special)
        self._check(text)
        tokens: list[int] = []
        for number, piece in enumerate(pieces(text, self._model.vocabulary.specials)):
            if cancel.is_set():
                break
            tokens += self._model.tokenize(piece, add_special=add_special and number == 0)
        return tokens

    def plain(self, text: bytes) -> list[int]:
        """Return the tokens of `text` alone; what looks like a special one in it is only text. Raises as `of`."""
        if len(text) > PIECE_BYTES:
            self._check(text)
        return self._model.tokenize(text, add_special=False, plain=True)

    def _check(self, text: bytes) -> None:
        if (fewest := self._model.vocabulary.fewest_tokens(text)) > self._limit:
            raise PromptTooLong(prompt_tokens=fewest, context_tokens=self._limit, at_least=True)
