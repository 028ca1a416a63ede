"""llama.cpp without rbee: a process that holds one model and runs bare loops over the low-level API when it is told to.

Run as ``python -m tests.bench.bare MODEL THREADS SEQUENCES CONTEXT``; each line on stdin is a JSON object
``{"prompts": [...], "tokens": N, "chain": "greedy"|"default"}``, answered by one with `prefill_s`, `decode_s` and
`prompt_tokens`.
Nothing but llama.cpp's own calls happens between two tokens: what rbee adds shows as the difference.
"""

import ctypes
import json
import sys
import time
from typing import Any

from rbee_core.backend import GenerateRequest
from rbee_plugins.llamacpp import sampling

llama: Any = __import__("llama_cpp.llama_cpp", fromlist=["llama_cpp"])
SILENT = llama.llama_log_callback(lambda *_: None)


class Bare:
    """One model with one context of several sequences."""

    def __init__(self, path: str, threads: int, sequences: int, context_tokens: int) -> None:
        llama.llama_log_set(SILENT, None)
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max = context_tokens * sequences, sequences
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self.context = llama.llama_init_from_model(self.model, params)
        self.vocabulary = llama.llama_model_get_vocab(self.model)
        self.batch = llama.llama_batch_init(512, 0, 1)

    def tokens(self, text: str) -> list[int]:
        raw = text.encode()
        room = (llama.llama_token * (len(raw) + 16))()
        return room[: llama.llama_tokenize(self.vocabulary, raw, len(raw), room, len(room), True, True)]

    def chain(self, name: str) -> Any:
        """Build the samplers that rbee would use for the same request."""
        request = GenerateRequest(prompt="x", temperature=0.0) if name == "greedy" else GenerateRequest(prompt="x")
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for step in sampling.chain(request, llama.llama_vocab_n_tokens(self.vocabulary)):
            make = getattr(llama, f"llama_sampler_init_{step.name}")
            llama.llama_sampler_chain_add(chain, make(*step.arguments))
        return chain

    def decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Compute rows of (token, position, sequence, whether its logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for index, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = wanted
        if status := llama.llama_decode(self.context, batch):
            raise RuntimeError(f"llama_decode: {status}")

    def run(self, prompts: list[str], tokens: int, chain: str) -> dict[str, float]:
        """Read all prompts, then take `tokens` steps with all of them in each."""
        llama.llama_memory_clear(llama.llama_get_memory(self.context), False)
        chains = [self.chain(chain) for _ in prompts]
        started = time.perf_counter()
        texts = [self.tokens(prompt) for prompt in prompts]
        last = [self._read(text, sequence, chains[sequence]) for sequence, text in enumerate(texts)]
        read = time.perf_counter()
        piece = ctypes.create_string_buffer(256)
        for step in range(tokens - 1):
            self.decode([(token, len(texts[s]) + step, s, True) for s, token in enumerate(last)])
            last = [llama.llama_sampler_sample(chains[s], self.context, s) for s in range(len(last))]
            for token in last:
                llama.llama_token_to_piece(self.vocabulary, token, piece, 256, 0, False)
        ended = time.perf_counter()
        for one in chains:
            llama.llama_sampler_free(one)
        return {"prefill_s": read - started, "decode_s": ended - read, "prompt_tokens": sum(map(len, texts))}

    def _read(self, text: list[int], sequence: int, chain: Any) -> int:
        for start in range(0, len(text), 512):
            part = text[start : start + 512]
            ends = start + len(part) == len(text)
            self.decode([(t, start + i, sequence, ends and i == len(part) - 1) for i, t in enumerate(part)])
        return llama.llama_sampler_sample(chain, self.context, -1)


def main() -> None:
    path, threads, sequences, context_tokens = sys.argv[1], *map(int, sys.argv[2:5])
    bare = Bare(path, threads, sequences, context_tokens)
    for line in sys.stdin:
        print(json.dumps(bare.run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
