"""The only module that imports mlx: a loaded model, its cache and its sampling, as a few typed methods.

Tokens in, tokens out. MLX ties its streams and random state to threads: everything here, the import too, belongs to
the one thread that loads.
"""

import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rbee_core.backend import Accelerator, GenerateRequest, Progress, TokenLogprob
from rbee_plugins.mlx.text import ForeignText, TokenText, pieces

# Optional and untyped dependencies.
_mx: Any = import_module("mlx.core")
_utils: Any = import_module("mlx_lm.utils")
_generate: Any = import_module("mlx_lm.generate")
_caches: Any = import_module("mlx_lm.models.cache")
_sampling: Any = import_module("mlx_lm.sample_utils")
_tree_flatten: Any = import_module("mlx.utils").tree_flatten

_LEAST_TOP_P = 1e-6  # mlx-lm reads 0 as "off"; what is meant is the most likely token


Chosen = tuple[int, tuple[TokenLogprob, ...]]
"""A token, and where they are wanted: how likely it was, and then the likeliest ones."""

Processor = Callable[[Any, Any], Any]
"""What changes logits. The tokens it is given begin with the last one of the prompt."""


class GivenUp(Exception):
    """Raised when the receiver of the load's progress wants no more of it."""


class Model:
    """A loaded model with one cache, which holds the last prompt for the next one to begin with."""

    def __init__(self, network: Any, tokenizer: Any, chunk_tokens: int) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._chunk_tokens = chunk_tokens
        self._cache: Any = None
        self._cached: list[int] = []
        self._piece = pieces(tokenizer, _decoder_of(tokenizer))
        self.ends = frozenset[int](tokenizer.eos_token_ids)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model was trained for conversations."""
        return bool(self._tokenizer.has_chat_template)

    def chat_tokens(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return the prompt for `messages`. May raise whatever the template, a stranger's code in a sandbox, raises."""
        return list(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True))

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of `text`, with those in front that the model wants unless the text has them."""
        clean = text.encode(errors="replace").decode()
        bos: str | None = self._tokenizer.bos_token
        special = not (bos and clean.startswith(bos))
        return list(self._tokenizer.encode(clean, add_special_tokens=special))

    def new_text(self) -> TokenText | ForeignText:
        """Return what turns one answer's tokens into text."""
        return TokenText(self._piece) if self._piece else ForeignText(self._tokenizer.detokenizer)

    def begin(self, prompt: Sequence[int]) -> int:
        """Prepare the cache for `prompt`; return how many of its tokens it holds already.

        Only whole chunks are kept, as they were computed the first time: then the numbers are the same to the last
        bit, and a prompt that was seen before cannot change the text. Tokens that were generated one at a time are
        computed again, because chunks round differently from single tokens.
        """
        chunk, known = self._chunk_tokens, 0
        limit = min(len(self._cached), len(prompt) - 1)
        while known + chunk <= limit and self._cached[known : known + chunk] == list(prompt[known : known + chunk]):
            known += chunk
        if not (known and self._trim_to(known)):
            self._cache, known = _caches.make_prompt_cache(self._network), 0
        self._cached = self._cached[:known]
        return known

    def _trim_to(self, tokens: int) -> bool:
        if not _caches.can_trim_prompt_cache(self._cache):
            return False
        surplus = int(self._cache[0].offset) - tokens
        return _caches.trim_prompt_cache(self._cache, surplus) == surplus

    def read(self, tokens: list[int]) -> None:
        """Compute a chunk of prompt that follows what was read so far."""
        with _mx.stream(_generate.generation_stream):
            self._network(_mx.array(tokens)[None], cache=self._cache)
            _mx.eval([layer.state for layer in self._cache])
        _mx.clear_cache()
        if len(tokens) == self._chunk_tokens:
            self._cached.extend(tokens)

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are."""
        return len(self._tokenizer)

    def generate(self, last: int, request: GenerateRequest, limit: int) -> Iterator["Chosen"]:
        """Yield up to `limit` tokens that follow the prompt, whose token `last` was not read yet.

        The random state is the thread's, so it is set for every request, also for one that wants no seed.
        """
        _mx.random.seed(secrets.randbits(32) if request.seed is None else request.seed)
        rows: deque[Any] = deque()
        steps = _generate.generate_step(
            _mx.array([last]),
            self._network,
            max_tokens=limit,
            sampler=_sampler(request, len(self._tokenizer)),
            logits_processors=_processors(request, self.ends, rows),
            prompt_cache=self._cache,
        )
        with _generate.wired_limit(self._network, [_generate.generation_stream]):
            for token, _ in steps:
                yield int(token), self._likely(rows.popleft(), int(token), request.logprobs) if rows else ()

    def _likely(self, row: Any, token: int, top: int | None) -> tuple[TokenLogprob, ...]:
        """Return how likely `token` was, and then the `top` likeliest tokens."""
        first = [int(one) for one in _mx.argsort(-row)[: top or 0]]
        return tuple(TokenLogprob(one, self._bytes(one), float(row[one])) for one in (token, *first))

    def _bytes(self, token: int) -> bytes:
        known = self._piece(token) if self._piece else b""
        return known or str(self._tokenizer.decode([token])).encode()


def load(path: Path, chunk_tokens: int, progress: Progress) -> Model:
    """Load the folder `path`, which was checked. Raises `GivenUp`, and whatever mlx-lm raises for what it dislikes."""
    _report(progress, 0.1, "building the model")
    on_cpu = accelerator() == "cpu"
    if on_cpu:
        _mx.disable_compile()  # on the processor it would start a C++ compiler for every fused operation
    network, config = _utils.load_model(path, lazy=True, trust_remote_code=False)
    if on_cpu:
        network.set_dtype(_mx.float32)  # x86 computes 16-bit floats in software, 40 times slower when measured
    tensors: list[tuple[str, Any]] = _tree_flatten(network.parameters())
    for done, (_, tensor) in enumerate(tensors):
        _report(progress, 0.15 + 0.75 * done / len(tensors), "loading weights")
        _mx.eval(tensor)
    _report(progress, 0.9, "loading the tokenizer")
    extra = {"trust_remote_code": False, "local_files_only": True}
    tokenizer = _utils.load_tokenizer(path, extra, eos_token_ids=config.get("eos_token_id"))
    return Model(network, tokenizer, chunk_tokens)


def _report(progress: Progress, fraction: float, detail: str) -> None:
    if not progress(fraction, detail):
        raise GivenUp


def accelerator() -> Accelerator:
    """Return where MLX really computes."""
    if _mx.default_device() == _mx.Device(_mx.cpu, 0):
        return "cpu"
    return "metal" if _mx.metal.is_available() else "cuda"


def _decoder_of(tokenizer: Any) -> str:
    """Return the JSON text of a tokenizer's decoder, "" for one that is not of the `tokenizers` library."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    return decoder.__getstate__().decode() if decoder is not None else ""


def _sampler(request: GenerateRequest, vocabulary_size: int) -> Any:
    return _sampling.make_sampler(
        temp=request.temperature,
        top_p=max(request.top_p, _LEAST_TOP_P),
        min_p=request.min_p,
        top_k=request.top_k if request.top_k < vocabulary_size else 0,
        xtc_probability=request.xtc_probability,
        xtc_threshold=request.xtc_threshold,
    )


def _processors(request: GenerateRequest, ends: frozenset[int], rows: "deque[Any]") -> list[Processor]:
    """Return what is done to the logits; the model's own log probabilities go into `rows` first, if they are wanted."""
    window = request.penalty_window
    penalties: list[Processor] = _sampling.make_logits_processors(
        repetition_penalty=None if request.repeat_penalty == 1.0 else request.repeat_penalty,
        repetition_context_size=window,
        presence_penalty=request.presence_penalty,
        presence_context_size=window,
        frequency_penalty=request.frequency_penalty,
        frequency_context_size=window,
    )
    made = [_keeping(rows)] if request.logprobs is not None else []
    made += _sampling.make_logits_processors(logit_bias=dict(request.logit_bias))
    made += [_of_generated(penalty) for penalty in penalties]
    if ends and (request.ignore_eos or request.min_tokens):
        [forbid] = _sampling.make_logits_processors(logit_bias=dict.fromkeys(sorted(ends), float("-inf")))
        made.append(forbid if request.ignore_eos else _for_the_first(request.min_tokens, forbid))
    return made


def _keeping(rows: "deque[Any]") -> Processor:
    def keep(_tokens: Any, logits: Any) -> Any:
        rows.append((logits - _mx.logsumexp(logits, axis=-1, keepdims=True)).squeeze(0))
        return logits

    return keep


def _of_generated(penalty: Processor) -> Processor:
    def punish(tokens: Any, logits: Any) -> Any:
        return penalty(tokens[1:], logits) if len(tokens) > 1 else logits

    return punish


def _for_the_first(count: int, processor: Processor) -> Processor:
    def process(tokens: Any, logits: Any) -> Any:
        return processor(tokens, logits) if len(tokens) <= count else logits

    return process
