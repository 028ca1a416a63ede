"""Steps about what a request may ask for, and what becomes of what it asks for again."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from pytest_bdd import then, when

from rbee_core import wire
from rbee_core.backend import needs
from rbee_core.domain.tuning import Adapter, Tuning
from rbee_core.errors import NotSupported, RbeeError
from rbee_kit.asking import PROMPT
from rbee_kit.judge import SUBJECT
from rbee_kit.loaded import NUMBERS, WORD, Loaded, Text
from rbee_kit.steps import numbers

ASKED: Mapping[str, Any] = {
    "typical_p": 0.5,
    "mirostat": 2,
    "dry_multiplier": 1.0,
    "logprobs": 1,
    "regex": "a+",
    "json_schema": {"type": "integer"},
    "suffix": "the end",
}
"""For fields that are one of a kind: what asks for something."""
TUNED: Mapping[str, Tuning] = {
    "speculation": Tuning(speculation="auto"),
    "chat_template": Tuning(chat_template="{{ messages }}"),
    "cache_types": Tuning(cache_type_k="q8_0"),
    "flash_attention": Tuning(flash_attention=True),
    "lora": Tuning(lora=(Adapter("/nowhere"),)),
}
"""The same for how a worker is to be started."""
NUMBERS_OF_TEXTS = ("embeddings", "rerank")
KEPT_WORDS, FEW = 48, 8


@when("everything is asked for that is not declared", target_fixture="asked")
def ask_for_undeclared(loaded: Loaded, pytestconfig: pytest.Config) -> Mapping[str, RbeeError | None]:
    subject = pytestconfig.stash[SUBJECT]
    words = [word for word in needs.WORDS if word not in subject.capabilities]
    fields = {word: {name for name in needs.WORDS[word] if name in ASKED} - subject.obeys for word in words}
    asked = [word for word in words if fields[word] or word in NUMBERS_OF_TEXTS]
    started = [word for word in TUNED if word not in subject.capabilities]
    return {word: refusal(loaded, word, fields.get(word, set())) for word in (*asked, *started)}


def refusal(loaded: Loaded, word: str, fields: set[str]) -> RbeeError | None:
    """Ask for something that needs `word`, by one of `fields`, and return what it ended with."""
    try:
        if word in TUNED:
            worker = loaded.worker
            wanted = wire.SpawnRequest(worker.model_ref, backend=worker.backend, tuning=TUNED[word])
            loaded.hive.client.stop_worker(loaded.hive.client.spawn(wanted).worker_id)
        elif word == "embeddings":
            numbers.vectors(loaded, ["a bee"])
        elif word == "rerank":
            numbers.scores(loaded, ["a bee"], query="a hive")
        else:
            field = min(fields)
            asked: dict[str, Any] = {"prompt": PROMPT, "temperature": 1.0, field: ASKED[field]}
            return loaded.ask(max_tokens=1, **asked).error
    except RbeeError as error:
        return error
    return None


@then("each is refused with the word that it needs")
def refused_by_name(asked: Mapping[str, RbeeError | None]) -> None:
    for word, error in asked.items():
        assert error is not None, f"it was not refused, and {word} is not declared"
        assert error.code == NotSupported.code, f"without {word} it ended with {error.code}: {error.message}"
        assert word in error.message, f"the refusal does not name {word}: {error.message}"


@when("a text is asked for, and again, and again with nothing kept of its prompt", target_fixture="three")
def ask_three_times(loaded: Loaded, pytestconfig: pytest.Config) -> Sequence[Text]:
    seeded = "seed" in pytestconfig.stash[SUBJECT].capabilities
    request: dict[str, Any] = {
        "prompt": f"{next(NUMBERS)} {WORD * KEPT_WORDS}",
        "max_tokens": FEW,
        **({"temperature": 1.5, "seed": 7} if seeded else {}),
    }
    texts = [loaded.ask(**request, reuse_prompt=reuse) for reuse in (True, True, False)]
    for text in texts:
        assert text.error is None, str(text.error)
    return texts


@then("all three are the same text")
def all_the_same(three: Sequence[Text]) -> None:
    first, again, anew = (text.text for text in three)
    assert again == first, f"what is kept of a prompt changes the text: {first!r} at first, {again!r} again"
    assert anew == first, f"with nothing kept of its prompt, a text is another: {first!r} at first, then {anew!r}"


@then("each says how many tokens its prompt has, and how many were kept")
def counts_kept(three: Sequence[Text]) -> None:
    counts = [(text.end.prompt_tokens, text.end.cached_tokens) for text in three]
    prompts, kept = zip(*counts, strict=True)
    assert len(set(prompts)) == 1, f"one prompt has {prompts} tokens: those that were kept count too"
    assert all(0 <= one <= prompt for prompt, one in counts), f"more tokens were kept than a prompt has: {counts}"
    assert kept[-1] == 0, f"{kept[-1]} tokens were kept, and `reuse_prompt` was false"
