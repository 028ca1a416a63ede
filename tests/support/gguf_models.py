"""Tiny models and adapters that llama.cpp really loads: random weights, a vocabulary of a few words, or of bytes."""

import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.gguf_files import ARRAY, BOOL, F32, I32, STRING, U32, Gguf, array, entry, tensor

SPOKEN = ("bee", "hive", "honey", "bear", "tax", "law", "a", "the")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"\u2581{word}" for word in SPOKEN))
WIDTH, HEADS, CONTEXT, FORWARD = 32, 2, 64, 64
BYTES = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
WINDOW = 32


@dataclass
class Weights:
    """Tensors with random values, the same ones each time."""

    seed: int = 1
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def write(self, path: Path, entries: list[bytes]) -> Path:
        chance, tensors, data = random.Random(self.seed), [], bytearray()
        for name, shape in self.shapes.items():
            count = shape[0] * (shape[1] if len(shape) > 1 else 1)
            middle = 1.0 if "norm.weight" in name else 0.0
            tensors.append(tensor(name, shape, offset=len(data)))
            data += struct.pack(f"<{count}f", *(chance.gauss(middle, 0.3) for _ in range(count)))
            data += bytes(-len(data) % 32)
        header = Gguf(entries=entries, tensors=tensors).header()
        path.write_bytes(header + bytes(-len(header) % 32) + bytes(data))
        return path


def ranker(path: Path, *, pooling: int = 4, scores: bool = True) -> Path:
    """A model of one layer that reads a text as a whole: `pooling` 4 is for scores, 1 and 2 for vectors."""
    weights = Weights()
    weights.shapes |= {
        "token_embd.weight": (WIDTH, len(WORDS)),
        "token_types.weight": (WIDTH, 2),
        "position_embd.weight": (WIDTH, CONTEXT),
        "token_embd_norm.weight": (WIDTH,),
        "token_embd_norm.bias": (WIDTH,),
    }
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        weights.shapes |= {f"blk.0.{name}.weight": (WIDTH, WIDTH), f"blk.0.{name}.bias": (WIDTH,)}
    weights.shapes |= {"blk.0.ffn_up.weight": (WIDTH, FORWARD), "blk.0.ffn_up.bias": (FORWARD,)}
    weights.shapes |= {"blk.0.ffn_down.weight": (FORWARD, WIDTH), "blk.0.ffn_down.bias": (WIDTH,)}
    for name in ("attn_output_norm", "layer_output_norm"):
        weights.shapes |= {f"blk.0.{name}.weight": (WIDTH,), f"blk.0.{name}.bias": (WIDTH,)}
    if scores:
        weights.shapes |= {"cls.weight": (WIDTH, WIDTH), "cls.bias": (WIDTH,)}
        weights.shapes |= {"cls.output.weight": (WIDTH, 1), "cls.output.bias": (1,)}
    return weights.write(path, [
        entry("general.architecture", STRING, "bert"),
        entry("bert.block_count", U32, 1),
        entry("bert.context_length", U32, CONTEXT),
        entry("bert.embedding_length", U32, WIDTH),
        entry("bert.feed_forward_length", U32, FORWARD),
        entry("bert.attention.head_count", U32, HEADS),
        entry("bert.attention.layer_norm_epsilon", F32, 1e-12),
        entry("bert.attention.causal", BOOL, False),
        entry("bert.pooling_type", U32, pooling),
        entry("tokenizer.ggml.model", STRING, "bert"),
        entry("tokenizer.ggml.pre", STRING, "default"),
        entry("tokenizer.ggml.tokens", ARRAY, array(STRING, WORDS)),
        entry("tokenizer.ggml.scores", ARRAY, array(F32, [0.0] * len(WORDS))),
        entry("tokenizer.ggml.token_type", ARRAY, array(I32, [3] * 5 + [1] * (len(WORDS) - 5))),
        entry("tokenizer.ggml.token_type_count", U32, 2),
        entry("tokenizer.ggml.padding_token_id", U32, 0),
        entry("tokenizer.ggml.unknown_token_id", U32, 1),
        entry("tokenizer.ggml.bos_token_id", U32, 2),
        entry("tokenizer.ggml.cls_token_id", U32, 2),
        entry("tokenizer.ggml.seperator_token_id", U32, 3),
        entry("tokenizer.ggml.eos_token_id", U32, 3),
        entry("tokenizer.ggml.mask_token_id", U32, 4),
    ])  # fmt: skip


def lora(path: Path, *, tensors: tuple[str, ...], shapes: tuple[int, int], architecture: str = "llama") -> Path:
    """An adapter of rank 4 for tensors of `shapes`, which is how wide they are at their way in and out."""
    weights = Weights(seed=2)
    for name in tensors:
        weights.shapes |= {f"{name}.lora_a": (shapes[0], 4), f"{name}.lora_b": (4, shapes[1])}
    return weights.write(path, [
        entry("general.architecture", STRING, architecture),
        entry("general.type", STRING, "adapter"),
        entry("adapter.type", STRING, "lora"),
        entry("adapter.lora.alpha", F32, 8.0),
    ])  # fmt: skip


def windowed(path: Path) -> Path:
    """A model of one layer that writes, and looks back `WINDOW` tokens only. Each byte of a text is a token."""
    weights, head = Weights(), WIDTH // HEADS
    weights.shapes |= {f"blk.0.{name}.weight": (WIDTH, WIDTH) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    weights.shapes |= {f"blk.0.{name}.weight": (head,) for name in ("attn_q_norm", "attn_k_norm")}
    norms = ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")
    weights.shapes |= {f"blk.0.{name}.weight": (WIDTH,) for name in norms}
    weights.shapes |= {f"blk.0.{name}.weight": (WIDTH, FORWARD) for name in ("ffn_gate", "ffn_up")}
    weights.shapes |= {"blk.0.ffn_down.weight": (FORWARD, WIDTH)}
    return _writer(path, "gemma3", weights, {
        "attention.head_count": HEADS, "attention.sliding_window": WINDOW, "feed_forward_length": FORWARD,
    })  # fmt: skip


def recurrent(path: Path) -> Path:
    """A model of one layer that writes, and remembers a text as one state. Each byte of a text is a token."""
    weights, inner, state, rolled, rank = Weights(), 2 * WIDTH, 16, 4, 2
    weights.shapes |= {
        "blk.0.attn_norm.weight": (WIDTH,),
        "blk.0.ssm_in.weight": (WIDTH, 2 * inner),
        "blk.0.ssm_conv1d.weight": (rolled, inner),
        "blk.0.ssm_conv1d.bias": (inner,),
        "blk.0.ssm_x.weight": (inner, rank + 2 * state),
        "blk.0.ssm_dt.weight": (rank, inner),
        "blk.0.ssm_dt.bias": (inner,),
        "blk.0.ssm_a": (state, inner),
        "blk.0.ssm_d": (inner,),
        "blk.0.ssm_out.weight": (inner, WIDTH),
    }
    return _writer(path, "mamba", weights, {
        "ssm.conv_kernel": rolled, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": rank,
        "attention.head_count": 0, "feed_forward_length": 0,
    })  # fmt: skip


def _writer(path: Path, architecture: str, weights: Weights, numbers: dict[str, int]) -> Path:
    weights.shapes |= {"token_embd.weight": (WIDTH, len(BYTES)), "output_norm.weight": (WIDTH,)}
    numbers = {"block_count": 1, "context_length": 4096, "embedding_length": WIDTH, **numbers}
    return weights.write(path, [
        entry("general.architecture", STRING, architecture),
        *(entry(f"{architecture}.{name}", U32, number) for name, number in numbers.items()),
        entry(f"{architecture}.attention.layer_norm_rms_epsilon", F32, 1e-6),
        entry("tokenizer.ggml.model", STRING, "llama"),
        entry("tokenizer.ggml.tokens", ARRAY, array(STRING, BYTES)),
        entry("tokenizer.ggml.scores", ARRAY, array(F32, [-float(n) for n in range(len(BYTES))])),
        entry("tokenizer.ggml.token_type", ARRAY, array(I32, [2, 3, 3, *[6] * 256])),
        entry("tokenizer.ggml.bos_token_id", U32, 1),
        entry("tokenizer.ggml.eos_token_id", U32, 2),
        entry("tokenizer.ggml.unknown_token_id", U32, 0),
    ])  # fmt: skip
