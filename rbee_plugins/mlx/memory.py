"""How much context a model gets, how much memory it takes, and how much prompt is computed at once: arithmetic."""

from rbee_core.backend import Accelerator, Estimate, Tuning
from rbee_core.errors import InvalidRequest
from rbee_plugins.mlx.folder import ModelFolder

DEFAULT_CONTEXT_TOKENS = 4096
UNTUNED = Tuning()

_CPU_SLOTS, _GPU_SLOTS = 2, 4
_CONTEXT_STEP = 256  # mlx-lm's caches grow by this many tokens
_MAX_CHUNK_TOKENS = 512

# Measured with SmolLM2-135M: Python with mlx, transformers and a vocabulary, and the copies of a row of logits.
_RUNTIME_BYTES = 170_000_000
_LOGIT_ROWS = 16

# Weights times tokens that are computed in at most half a second: on two slow cores, and on a laptop's GPU.
_CPU_CHUNK_BYTES = 200_000_000
_GPU_CHUNK_BYTES = 400_000_000_000


def context_tokens(folder: ModelFolder, asked: int | None) -> int:
    """Return the context to load the model with: what was asked, or 4096 if the model was trained for that.

    Raises `InvalidRequest` for more than the model was trained for: its text would quietly turn to noise.
    """
    trained = folder.number("max_position_embeddings")
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


def slots(asked: int, accelerator: Accelerator) -> int:
    """Return how many texts to generate at a time: what was asked, or a few if that is 0.

    On two cores a step for four texts takes three times as long as one for a single text: batching is fair there, and
    hardly faster.
    """
    return asked or (_CPU_SLOTS if accelerator == "cpu" else _GPU_SLOTS)


def chunk_tokens(folder: ModelFolder, accelerator: Accelerator) -> int:
    """Return how many prompt tokens to compute before asking again whether anybody still waits.

    Depends on the model and nothing else: chunks of other sizes round differently, and a chunk that followed a
    measured speed would make the same seed give another text on a busy day.
    """
    budget = _CPU_CHUNK_BYTES if accelerator == "cpu" else _GPU_CHUNK_BYTES
    tokens = min(_MAX_CHUNK_TOKENS, max(1, budget // max(1, folder.tensor_bytes)))
    return 1 << (tokens.bit_length() - 1)


def estimate(
    folder: ModelFolder, context: int, slots: int, accelerator: Accelerator, tuning: Tuning = UNTUNED
) -> Estimate:
    """Return the memory for `slots` requests of `context` tokens each, and for the prompts that are kept.

    All of it is private: MLX reads the files into memory of its own. On the processor 16-bit floats become 32-bit
    ones, see `runtime`. An upper bound for models whose layers look
    back only a little way; nothing is added for models that keep a state of fixed size.
    """
    on_cpu = accelerator == "cpu"
    return Estimate(
        weights_bytes=folder.tensor_bytes + (folder.half_bytes if on_cpu else 0),
        kv_cache_bytes=slots * _text_bytes(folder, context, accelerator)
        + cache_bytes(folder, context, accelerator, tuning),
        compute_bytes=_RUNTIME_BYTES + _compute_bytes(folder, accelerator),
        context_tokens=context,
    )


def cache_bytes(folder: ModelFolder, context: int, accelerator: Accelerator, tuning: Tuning = UNTUNED) -> int:
    """Return how much memory the beginnings of prompts may take that are kept for later.

    Where nobody says, what one request may use.
    """
    if tuning.prompt_cache_bytes is not None:
        return tuning.prompt_cache_bytes
    return _text_bytes(folder, context, accelerator)


def _text_bytes(folder: ModelFolder, context: int, accelerator: Accelerator) -> int:
    padded = -(-context // _CONTEXT_STEP) * _CONTEXT_STEP
    return padded * _cache_values_per_token(folder) * (4 if accelerator == "cpu" else 2)


def _cache_values_per_token(folder: ModelFolder) -> int:
    heads = folder.number("num_attention_heads")
    width = folder.number("head_dim") or (folder.number("hidden_size") // heads if heads else 0)
    return 2 * folder.number("num_hidden_layers") * (folder.number("num_key_value_heads") or heads) * width


def _compute_bytes(folder: ModelFolder, accelerator: Accelerator) -> int:
    row = 7 * folder.number("hidden_size") + 2 * folder.number("intermediate_size")
    return 4 * (chunk_tokens(folder, accelerator) * row + _LOGIT_ROWS * folder.number("vocab_size"))
