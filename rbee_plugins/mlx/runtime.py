"""A loaded model, and what is computed with it, as a few typed classes. Beside `choosing` the only module with mlx.

Tokens in, tokens out. MLX ties its streams and random state to threads: all that computes, the load too, belongs to
one thread, see `loop`; what only turns text into tokens and back may be called in any.
"""

import copy
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import structs

from rbee_core.backend import Accelerator, CancelToken, GenerateRequest, Progress, Style, TokenLogprob
from rbee_core.backend.talk import style_of, turns
from rbee_core.backend.templates import ChatTemplate
from rbee_plugins.mlx import choosing
from rbee_plugins.mlx.text import ForeignText, TokenText, pieces

# Optional and untyped dependencies.
_mx: Any = import_module("mlx.core")
_utils: Any = import_module("mlx_lm.utils")
_generate: Any = import_module("mlx_lm.generate")
_caches: Any = import_module("mlx_lm.models.cache")
_TokenizerBase: Any = import_module("transformers.tokenization_utils_base").PreTrainedTokenizerBase
_tree_flatten: Any = import_module("mlx.utils").tree_flatten

_SEED_BITS = 32


class Chosen(NamedTuple):
    """A token, and where they are wanted: how likely it was, and then the likeliest ones."""

    token: int
    likely: tuple[TokenLogprob, ...] = ()


class GivenUp(Exception):
    """Raised when the receiver of the load's progress wants no more of it."""


class Memory:
    """What the model has computed of one text, layer by layer."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers

    def copy(self) -> "Memory":
        """Return another one that holds the same; the numbers are shared until one of them goes on."""
        return Memory(copy.deepcopy(self.layers))

    @property
    def cuttable(self) -> bool:
        """Whether it can be cut back. A layer that looks back only a little way, or keeps a state, cannot."""
        return bool(_caches.can_trim_prompt_cache(self.layers))

    def cut(self, tokens: int) -> None:
        """Forget so many of the last tokens."""
        if tokens:
            _caches.trim_prompt_cache(self.layers, tokens)

    @property
    def size_bytes(self) -> int:
        """What it takes."""
        return sum(int(layer.nbytes) for layer in self.layers)


class Model:
    """A loaded model with its vocabulary."""

    def __init__(self, network: Any, tokenizer: Any, chat_template: str | None = None) -> None:
        self.network = network
        self._tokenizer = tokenizer
        self._tokenizing = threading.Lock()  # the tokenizers library fails if two threads change its settings at once
        self._piece = pieces(tokenizer, _decoder_of(tokenizer))
        self._jinja = chat_template or _template_of(tokenizer)
        self._template = ChatTemplate(self._jinja)
        self.ends = frozenset[int](tokenizer.eos_token_ids)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model was trained for conversations, or was given a template."""
        return bool(self._jinja or self._tokenizer.has_chat_template)

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are."""
        return len(self._tokenizer)

    def chat_tokens(self, request: GenerateRequest, cancel: CancelToken) -> tuple[list[int], Style]:
        """Return the prompt for a request's messages, and how it will be answered.

        Raises `InvalidRequest` if the model's template refuses them. For a few kinds of models a library has code of
        its own in place of a template; that may raise what it likes.
        """
        if not self._jinja:
            told = turns(request.messages, request.tools, "")
            with self._tokenizing:
                tokens = list(self._tokenizer.apply_chat_template(told, add_generation_prompt=True))
            return tokens, style_of("", "", tools=bool(request.tools))
        thinking = {self._tokenizer._thinking_kwarg: self._tokenizer.has_thinking}  # noqa: SLF001  # as mlx-lm does
        text = self._template.render(
            request.messages,
            dict(self._tokenizer.special_tokens_map),
            cancel,
            tools=request.tools,
            arguments={**thinking, **request.template_arguments},
        )
        style = self._template.style(text, request.tools)
        if style.marked:  # by control tokens, which are no text here
            style = structs.replace(style, tools="")
        with self._tokenizing:
            return list(self._tokenizer.encode(text, add_special_tokens=False)), style

    def close(self) -> None:
        """End what runs beside it."""
        self._template.close()

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of `text`, with those in front that the model wants unless the text has them."""
        clean = text.encode(errors="replace").decode()
        bos: str | None = self._tokenizer.bos_token
        special = not (bos and clean.startswith(bos))
        with self._tokenizing:
            return list(self._tokenizer.encode(clean, add_special_tokens=special))

    def new_text(self) -> TokenText | ForeignText:
        """Return what turns one answer's tokens into text."""
        return TokenText(self._piece) if self._piece else ForeignText(self._tokenizer.detokenizer)

    def new_memory(self) -> Memory:
        """Return the memory of an empty text."""
        return Memory(_caches.make_prompt_cache(self.network))

    def can_batch(self) -> bool:
        """Whether mlx-lm can put this model's memories side by side: it has no way to for some kinds of layers."""
        return all(_merges(layer) for layer in self.new_memory().layers)

    def read(self, tokens: list[int], memory: Memory) -> None:
        """Compute `tokens`, which follow what `memory` holds."""
        with _mx.stream(_generate.generation_stream):
            self.network(_mx.array(tokens)[None], cache=memory.layers)
            _mx.eval([layer.state for layer in memory.layers])
        _mx.clear_cache()

    def alone(self, last: int, memory: Memory, request: GenerateRequest, limit: int) -> Iterator[Chosen]:
        """Yield up to `limit` tokens that follow `memory` and the token `last`, computed without any other text's.

        The random state is the thread's, and other requests draw from it between these tokens. So it is set before
        each of them, from seed and place: nobody else's draws count here.
        """
        rows: deque[Any] = deque()
        steps = _generate.generate_step(
            _mx.array([last]),
            self.network,
            max_tokens=limit,
            sampler=choosing.sampler(request, self.vocabulary_size),
            logits_processors=choosing.processors(request, self.ends, rows),
            prompt_cache=memory.layers,
        )
        seed = secrets.randbits(_SEED_BITS) if request.seed is None else request.seed
        for place in range(limit):
            _mx.random.seed((place << _SEED_BITS) + seed)
            token = int(next(steps)[0])
            randomize()
            yield self.chosen(token, rows, request.logprobs)

    def chosen(self, token: int, rows: "deque[Any]", top: int | None) -> Chosen:
        """Return `token` with how likely it was, and then the `top` likeliest tokens, if `rows` has its numbers."""
        if not rows:
            return Chosen(token)
        row = rows.popleft()
        first = [int(one) for one in _mx.argsort(-row)[: top or 0]]
        return Chosen(token, tuple(TokenLogprob(one, self._bytes(one), float(row[one])) for one in (token, *first)))

    def _bytes(self, token: int) -> bytes:
        known = self._piece(token) if self._piece else b""
        return known or str(self._tokenizer.decode([token])).encode()


@dataclass(frozen=True, slots=True)
class _Member:
    logprobs: int | None
    rows: "deque[Any]" = field(default_factory=deque[Any])


class Batch:
    """Texts that share their steps, with mlx-lm's batch generator. Prompts are read before they get here."""

    def __init__(self, model: Model, slots: int) -> None:
        self._model = model
        self._steps = _generate.BatchGenerator(
            model.network,
            stop_tokens=[[end] for end in sorted(model.ends)],
            completion_batch_size=slots,
            prefill_batch_size=slots,
        )
        self._members: dict[int, _Member] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, last: int, memory: Memory, request: GenerateRequest, limit: int) -> int:
        """Take in a text that goes on after `memory` and the token `last`; return its number."""
        member = _Member(request.logprobs)
        [number] = self._steps.insert(
            [[last]],
            [limit],
            caches=[memory.layers],
            samplers=[choosing.sampler(request, self._model.vocabulary_size)],
            logits_processors=[choosing.processors(request, self._model.ends, member.rows)],
        )
        self._members[number] = member
        return number

    def drop(self, number: int) -> None:
        """Let go of that text before its end."""
        del self._members[number]
        self._steps.remove([number])

    def step(self) -> list[tuple[int, Chosen, bool]]:
        """Compute a token for each text: its number, the token, and whether it is the last one. A new text has none."""
        found: list[tuple[int, Chosen, bool]] = []
        for response in self._steps.next()[1]:
            last = response.finish_reason is not None
            member = self._members.pop(response.uid) if last else self._members[response.uid]
            chosen = self._model.chosen(response.token, member.rows, member.logprobs)
            found.append((response.uid, chosen, last))
        return found

    def close(self) -> None:
        """Give back what it holds."""
        self._steps.close()


def load(path: Path, progress: Progress, chat_template: str | None = None) -> Model:
    """Load the folder `path`, which was checked; `chat_template` stands in for its own.

    Raises `GivenUp`, and whatever mlx-lm raises for what it dislikes.
    """
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
    return Model(network, tokenizer, chat_template)


def randomize() -> None:
    """Make what this thread draws next unforeseeable."""
    _mx.random.seed(secrets.randbits(2 * _SEED_BITS))


def leave_thread() -> None:
    """End MLX's own threads that serve this one. Without it, a process whose thread has ended aborts at its end."""
    with suppress(RuntimeError):
        _mx.clear_streams()


def accelerator() -> Accelerator:
    """Return where MLX really computes."""
    if _mx.default_device() == _mx.Device(_mx.cpu, 0):
        return "cpu"
    return "metal" if _mx.metal.is_available() else "cuda"


def _report(progress: Progress, fraction: float, detail: str) -> None:
    if not progress(fraction, detail):
        raise GivenUp


def _merges(layer: Any) -> bool:
    return hasattr(layer, "merge") and all(_merges(one) for one in getattr(layer, "caches", ()))


def _template_of(tokenizer: Any) -> str:
    """Return the Jinja text that makes a prompt of a conversation, "" if there is none or a library's code does it."""
    kind: Any = tokenizer._tokenizer.__class__  # noqa: SLF001  # mlx-lm wraps one of transformers
    theirs = tokenizer._chat_template or kind.apply_chat_template is not _TokenizerBase.apply_chat_template  # noqa: SLF001
    return "" if theirs or tokenizer.chat_template is None else str(tokenizer.get_chat_template())


def _decoder_of(tokenizer: Any) -> str:
    """Return the JSON text of a tokenizer's decoder, "" for one that is not of the `tokenizers` library."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    return decoder.__getstate__().decode() if decoder is not None else ""
