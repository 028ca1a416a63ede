"""How much context a model gets, and how much memory it then takes: arithmetic on its header, without llama.cpp."""

from rbee_core.backend import Estimate
from rbee_core.backend.gguf import GgufHeader
from rbee_core.errors import InvalidRequest

DEFAULT_CONTEXT_TOKENS = 4096
BATCH_TOKENS = 512  # prompt tokens computed at once; the compute buffers are sized for them

_CPU_CHUNK_BYTES = BATCH_TOKENS * 5_000_000_000  # of weights times tokens: whole batches up to a 7B model
_CACHE_VALUE_BYTES = 2  # keys and values are kept as f16
_CONTEXT_STEP = 256  # llama.cpp rounds a context up to a multiple of this

# Measured with SmolLM2-135M: the library with its Python side, and the vocabulary's tables for each token.
_RUNTIME_BYTES = 32_000_000
_TOKEN_BYTES = 400


def context_tokens(header: GgufHeader, asked: int | None) -> int:
    """Return the context to load `header`'s model with: what was asked, or 4096 if the model was trained for that.

    Raises `InvalidRequest` for more than the model was trained for: its text would quietly turn to noise.
    """
    trained = header.context_length
    if asked is None:
        return min(trained or DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS)
    if trained and asked > trained:
        raise InvalidRequest(
            f"A context of {asked} tokens was asked for, the model was trained for {trained}",
            hint=f"ask for at most {trained} tokens, or leave the context to rbee",
            context_tokens=asked,
            trained_tokens=trained,
        )
    return asked


def chunk_tokens(header: GgufHeader, *, on_cpu: bool) -> int:
    """Return how many prompt tokens to compute before the next sign of life: fewer for a larger model on a processor.

    One that reads 5 GB of weights a second and a half a token still says something every half minute. Depends on the
    model alone: how tokens are grouped shows in the last bits, and a seed promises the same text on a busy day.
    """
    if not on_cpu:
        return BATCH_TOKENS
    tokens = min(BATCH_TOKENS, max(1, _CPU_CHUNK_BYTES // max(1, header.tensor_bytes)))
    return 1 << (tokens.bit_length() - 1)


def estimate(header: GgufHeader, context: int, slots: int, weights_bytes: int) -> Estimate:
    """Return the memory for `slots` requests of `context` tokens each.

    An upper bound for models whose layers look back only a little way: they are counted as if all saw everything.
    """
    padded = -(-context // _CONTEXT_STEP) * _CONTEXT_STEP
    return Estimate(
        weights_bytes=weights_bytes,
        kv_cache_bytes=slots * padded * _cache_values_per_token(header) * _CACHE_VALUE_BYTES,
        compute_bytes=_compute_bytes(header, padded, slots),
        context_tokens=context,
    )


def _cache_values_per_token(header: GgufHeader) -> int:
    heads = max(header.head_counts, default=0)
    width = header.embedding_length // heads if heads else 0
    key = header.number("attention.key_length") or width
    value = header.number("attention.value_length") or width
    return sum(header.kv_head_counts) * (key + value)


def _compute_bytes(header: GgufHeader, padded_context: int, slots: int) -> int:
    """Activations of one batch as f32, its attention mask as f16, a row of logits a slot, and what is always there."""
    activations = BATCH_TOKENS * 4 * (7 * header.embedding_length + 2 * header.feed_forward_length)
    mask = BATCH_TOKENS * 2 * padded_context
    vocabulary = header.vocabulary_size * (_TOKEN_BYTES + 4 * slots)
    return _RUNTIME_BYTES + activations + mask + vocabulary
