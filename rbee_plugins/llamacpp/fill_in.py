"""The prompt for a text that is missing between two others, for models that were trained to write it."""

from rbee_core.errors import InvalidRequest
from rbee_plugins.llamacpp.native import NativeModel
from rbee_plugins.llamacpp.tokens import Tokens


def tokens(model: NativeModel, texts: Tokens, prefix: str, suffix: str) -> list[int]:
    """Return the tokens that ask for what belongs between; what looks like a special token in the texts is only text.

    Raises `InvalidRequest` for a model that was not trained for this, and `PromptTooLong`.
    """
    marks = model.fill_in_tokens
    if marks is None:
        raise InvalidRequest(
            "This model was not made to fill in a text: it has no marks for a beginning and an end",
            hint="leave the suffix out, or use a model for code such as Qwen2.5-Coder",
        )
    before, after, between = marks
    begin = model.tokenize("", add_special=True)[:1] if model.adds_bos() else []
    first, second = (texts.plain(text.encode(errors="replace")) for text in (prefix, suffix))
    return [*begin, before, *first, after, *second, between]
