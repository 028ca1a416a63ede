"""How a model is to be run, beside how much of it: what a client may ask for when a worker is started."""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
Speculation = Literal["auto", "off"]
Pooling = Literal["mean", "cls", "last"]


class Adapter(Struct, frozen=True, forbid_unknown_fields=True):
    """A LoRA adapter: a file on the node's disk, by its absolute path, and how strongly it counts."""

    path: Annotated[str, Meta(min_length=1, max_length=4096, pattern="^/")]
    scale: Annotated[float, Meta(ge=-100, le=100)] = 1.0


class Tuning(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is None or empty is left to the backend.

    `cache_type_k` and `cache_type_v` are how keys and values of the context are kept; `pooling` is how the tokens of a
    text become its one vector, where a request does not say; `speculation` is whether a text may be guessed ahead,
    where that pays; `embeddings` reserves the memory that they take. `prompt_cache_bytes` bounds what is kept of texts
    that had to leave the context, 0 for nothing; a backend that keeps no such thing has nothing to bound.
    `chat_template` stands in for the model's own, as Jinja.
    """

    cache_type_k: CacheType | None = None
    cache_type_v: CacheType | None = None
    flash_attention: bool | None = None
    lora: Annotated[tuple[Adapter, ...], Meta(max_length=16)] = ()
    pooling: Pooling | None = None
    chat_template: Annotated[str, Meta(min_length=1, max_length=1 << 18)] | None = None
    speculation: Speculation | None = None
    embeddings: bool = False
    prompt_cache_bytes: Annotated[int, Meta(ge=0)] | None = None

    def said(self) -> Iterator[tuple[str, str]]:
        """Yield each field that says something, with the word of the capability that it needs, "" for none."""
        for name in self.__struct_fields__:  # asked for each request and backend: looking up types would take longer
            if getattr(self, name) != getattr(UNTUNED, name):
                yield name, WORDS.get(name, "")

    def over(self, defaults: "Tuning") -> "Tuning":
        """Return this, with what it does not say as `defaults` have it."""
        both = {name: getattr(defaults, name) for name in self.__struct_fields__}
        return Tuning(**both | {name: getattr(self, name) for name, _word in self.said()})

    def only(self, words: frozenset[str]) -> "Tuning":
        """Return what of this a backend with the capabilities `words` can do."""
        return Tuning(**{name: getattr(self, name) for name, word in self.said() if word in ("", *words)})


UNTUNED = Tuning()

WORDS = {
    "cache_type_k": "cache_types",
    "cache_type_v": "cache_types",
    "flash_attention": "flash_attention",
    "lora": "lora",
    "pooling": "embeddings",
    "chat_template": "chat_template",
    "speculation": "speculation",
}
