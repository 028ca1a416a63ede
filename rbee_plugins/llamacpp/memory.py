"""How much context a model gets, and how much memory it then takes: arithmetic on its header, without llama.cpp."""

from rbee_core.backend import Estimate, Tuning
from rbee_core.backend.gguf import GgufHeader
from rbee_core.errors import InsufficientRam, InvalidRequest
from rbee_plugins.llamacpp.speculation import MOST_DRAFTED

DEFAULT_CONTEXT_TOKENS = 4096
BATCH_TOKENS = 512  # prompt tokens computed at once; the compute buffers are sized for them

_CPU_CHUNK_BYTES = BATCH_TOKENS * 5_000_000_000  # of weights times tokens: whole batches up to a 7B model
_MOST_SLOTS = 8
_SLOTS_SHARE = 16  # at most this part of the host's memory is spent on slots that nobody asked for
_SAVED_SHARE = 32  # at most this part of it on saved states of prompts
_SAVED_BYTES = 1 << 30
_CONTEXT_STEP = 256  # llama.cpp rounds a context up to a multiple of this

# Measured with SmolLM2-135M: the library with its Python side, and the vocabulary's tables for each token.
_RUNTIME_BYTES = 32_000_000
_TOKEN_BYTES = 400

# How keys and values may be kept: values in a block, bytes of a block.
_CACHE_BLOCKS = {
    "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q5_1": (32, 24), "q5_0": (32, 22),
    "q4_1": (32, 20), "q4_0": (32, 18), "iq4_nl": (32, 18),
}  # fmt: skip
_CACHE_DEFAULT = "f16"
UNTUNED = Tuning()


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


def slots(header: GgufHeader, context: int, cores: int, memory_bytes: int) -> int:
    """Return how many requests to serve at a time where nobody says: what cores feed, and little memory holds.

    On two cores four texts together are written a third faster than one after the other, and eight hardly faster still.
    """
    each = round(context * _cache_bytes_per_token(header, UNTUNED))
    fit = memory_bytes // _SLOTS_SHARE // each if each else _MOST_SLOTS
    return max(1, min(_MOST_SLOTS, 2 * cores, fit))


def saved_bytes(header: GgufHeader, context: int, slots: int, tuning: Tuning, memory_bytes: int) -> int:
    """Return how much to keep of texts that had to leave the context, where nobody says: as much as it holds itself.

    A little of the memory at most, and nothing of a model that reads texts as a whole.
    """
    if not _writes(header):
        return 0
    if tuning.prompt_cache_bytes is not None:
        return tuning.prompt_cache_bytes
    held = _kv_cache_bytes(header, context, slots, tuning)
    return min(held, memory_bytes // _SAVED_SHARE, _SAVED_BYTES)


def chunk_tokens(header: GgufHeader, *, on_cpu: bool) -> int:
    """Return how many prompt tokens to compute before the next sign of life: fewer for a larger model on a processor.

    One that reads 5 GB of weights a second and a half a token still says something every half minute. Depends on the
    model alone: how tokens are grouped shows in the last bits, and a seed promises the same text on a busy day.
    """
    if not on_cpu:
        return BATCH_TOKENS
    tokens = min(BATCH_TOKENS, max(1, _CPU_CHUNK_BYTES // max(1, header.tensor_bytes)))
    return 1 << (tokens.bit_length() - 1)


def drafted_tokens(tuning: Tuning) -> int:
    """Return how many guessed tokens are computed in a call, beside one of each text."""
    return 0 if tuning.speculation == "off" else MOST_DRAFTED


def check_tuning(header: GgufHeader, tuning: Tuning) -> None:
    """Raise `InvalidRequest` for a way to keep keys and values that llama.cpp would refuse for this model."""
    kinds = (tuning.cache_type_k or _CACHE_DEFAULT, tuning.cache_type_v or _CACHE_DEFAULT)
    for kind, width in zip(kinds, _head_widths(header), strict=True):
        if width % _CACHE_BLOCKS[kind][0]:
            raise InvalidRequest(
                f"A cache of {kind} goes by {_CACHE_BLOCKS[kind][0]} values, and the heads of this model have {width}",
                hint="leave it out, or take f16 or bf16",
            )
    if tuning.flash_attention is False and _CACHE_BLOCKS[kinds[1]][0] > 1:
        raise InvalidRequest(
            f"Values can be kept as {kinds[1]} with flash attention only",
            hint="leave flash_attention out, or cache_type_v",
        )


def estimate(header: GgufHeader, context: int, slots: int, weights_bytes: int, tuning: Tuning = UNTUNED) -> Estimate:
    """Return the memory for `slots` requests of `context` tokens each.

    An upper bound for models whose layers look back only a little way: they are counted as if all saw everything.
    """
    kv_cache_bytes = _kv_cache_bytes(header, context, slots, tuning)
    compute_bytes = _compute_bytes(header, _padded(context), slots, tuning)
    if tuning.embeddings or tuning.pooling:
        kept, computing = embedding_bytes(header, BATCH_TOKENS)
        kv_cache_bytes += kept
        compute_bytes += computing
    return Estimate(
        weights_bytes=weights_bytes,
        kv_cache_bytes=kv_cache_bytes,
        compute_bytes=compute_bytes,
        context_tokens=context,
    )


def _writes(header: GgufHeader) -> bool:
    return header.metadata.get(f"{header.architecture}.attention.causal") is not False


def _padded(context: int) -> int:
    return -(-context // _CONTEXT_STEP) * _CONTEXT_STEP


def _kv_cache_bytes(header: GgufHeader, context: int, slots: int, tuning: Tuning) -> int:
    return slots * (round(_padded(context) * _cache_bytes_per_token(header, tuning)) + _recurrent_bytes(header))


def _recurrent_bytes(header: GgufHeader) -> int:
    """Return what a recurrent layer remembers of a text however long, as f32, as if all layers were such ones."""
    inner, state = header.number("ssm.inner_size"), header.number("ssm.state_size")
    rolled = max(0, header.number("ssm.conv_kernel") - 1)
    width = inner + 2 * header.number("ssm.group_count") * state
    return 4 * header.block_count * (inner * state + rolled * width)


def _cache_bytes_per_token(header: GgufHeader, tuning: Tuning) -> float:
    kinds = (tuning.cache_type_k or _CACHE_DEFAULT, tuning.cache_type_v or _CACHE_DEFAULT)
    blocks = [_CACHE_BLOCKS[kind] for kind in kinds]
    widths = zip(_head_widths(header), blocks, strict=True)
    return sum(header.kv_head_counts) * sum(width * size / values for width, (values, size) in widths)


def _head_widths(header: GgufHeader) -> tuple[int, int]:
    """Return how many values a head's key and its value have."""
    heads = max(header.head_counts, default=0)
    width = header.embedding_length // heads if heads else 0
    return header.number("attention.key_length") or width, header.number("attention.value_length") or width


def _compute_bytes(header: GgufHeader, padded_context: int, slots: int, tuning: Tuning) -> int:
    """Activations of one batch as f32, its attention mask as f16, rows of logits, and what is always there.

    Without flash attention, also each head's scores of a batch as f32.
    """
    mask = BATCH_TOKENS * 2 * padded_context
    if tuning.flash_attention is False:
        mask += BATCH_TOKENS * 4 * padded_context * max(header.head_counts, default=0)
    vocabulary = header.vocabulary_size * (_TOKEN_BYTES + 4 * (slots + drafted_tokens(tuning)))
    return _RUNTIME_BYTES + _activation_bytes(header, BATCH_TOKENS) + mask + vocabulary


def _activation_bytes(header: GgufHeader, tokens: int) -> int:
    return tokens * 4 * (7 * header.embedding_length + 2 * header.feed_forward_length)


def embedding_bytes(header: GgufHeader, tokens: int) -> tuple[int, int]:
    """Return what a context for vectors of up to `tokens` tokens keeps, and what it computes with.

    A model that can write makes logits for every token there too.
    """
    logits = 2 * tokens * 4 * header.vocabulary_size if _writes(header) else 0
    kept = tokens * round(_cache_bytes_per_token(header, UNTUNED))
    return kept, _activation_bytes(header, tokens) + tokens * 2 * tokens + logits


def check_room(header: GgufHeader, tokens: int, free_bytes: int) -> None:
    """Raise `InsufficientRam` for a larger context than any estimate counts, if so much is not free.

    Logits of every token of a long text are gigabytes: taking them would end the worker, and with it everybody's text.
    """
    need_bytes = sum(embedding_bytes(header, tokens))
    if tokens > BATCH_TOKENS and need_bytes > free_bytes:
        raise InsufficientRam(need_bytes=need_bytes, have_bytes=free_bytes)
