"""Steps about what a worker is started with beside its model."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from pytest_bdd import given, parsers, then, when

from rbee_core.domain.tuning import Tuning
from rbee_core.errors import InvalidRequest, ModelLoadFailed, RbeeError
from rbee_kit.asking import PROMPT, Asking
from rbee_kit.judge import SUBJECT
from rbee_kit.loaded import WORD, Loaded, Text, load
from rbee_kit.program import Hive, Home, Result

VERSE = "one two three four five six seven eight nine ten. " * 4
GUESSED_TOKENS, FEW = 24, 4
RUBBISH_BYTES = 4096
REFUSALS = (InvalidRequest.code, ModelLoadFailed.code)
REFUSED, ENDLESS = "refused", "endless"
SAYS_NO = "the kit wants no answer"
TEMPLATE = (
    "{% if how == 'refused' %}{{ raise_exception('" + SAYS_NO + "') }}{% endif %}"
    "{% if how == 'endless' %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}"
    "{{ messages[0].content }}{{ ' word' * (words or 0) }}"
)
"""Writes as many words as it is told to, and is not always as good as that."""


def instead(loaded: Loaded, model: str, backend: str, tuning: Tuning) -> Loaded:
    """Load the model in another way. There may be no memory for both, so what is loaded goes first."""
    loaded.hive.client.stop_worker(loaded.worker.worker_id)
    return load(loaded.hive, model, backend, tuning=tuning)


@given("the model is loaded with speculation off", target_fixture="loaded")
def load_without_speculation(hive: Hive, model: str, backend: str) -> Loaded:
    return load(hive, model, backend, tuning=Tuning(speculation="off"))


@given("texts were asked for that quote their prompt", target_fixture="plain")
def ask_for_quotes(loaded: Loaded, pytestconfig: pytest.Config) -> Sequence[Text]:
    seeded = "seed" in pytestconfig.stash[SUBJECT].capabilities
    chosen: list[dict[str, Any]] = [{}, {"temperature": 1.0, "seed": 7}][: 1 + seeded]
    # Guesses begin where their worth is known: a text before these shows it.
    texts = [loaded.ask(prompt=VERSE, max_tokens=GUESSED_TOKENS, **fields) for fields in ({}, *chosen)]
    for text in texts:
        assert text.error is None, str(text.error)
    return texts


@when("they are asked for again with speculation auto", target_fixture="guessed")
def ask_for_guessed(
    loaded: Loaded, model: str, backend: str, plain: Sequence[Text], pytestconfig: pytest.Config
) -> Sequence[Text]:
    del plain
    return ask_for_quotes(instead(loaded, model, backend, Tuning(speculation="auto")), pytestconfig)


@then("each is the text that it was")
def same_when_guessed(plain: Sequence[Text], guessed: Sequence[Text]) -> None:
    for before, after in zip(plain, guessed, strict=True):
        assert after.text == before.text, (
            f"guessing ahead changes a text: {before.text!r} without, {after.text!r} with it. Is every guess held "
            "against what the model would have chosen?"
        )


@then("no more guesses were right than were made, and none were made without")
def guesses_add_up(plain: Sequence[Text], guessed: Sequence[Text]) -> None:
    for text in plain:
        made = text.end.drafted_tokens
        assert not made, f"{made} guesses were made with speculation off"
    for text in guessed:
        made, right, tokens = text.end.drafted_tokens, text.end.accepted_tokens, text.end.total_tokens
        assert right <= min(made, tokens), f"{right} guesses were right of {made}, in a text of {tokens} tokens"


@given("the model is loaded with a template of the kit's own", target_fixture="loaded")
def load_with_template(hive: Hive, model: str, backend: str) -> Loaded:
    return load(hive, model, backend, tuning=Tuning(chat_template=TEMPLATE))


@when(
    parsers.parse("the template is told to write {words:d} words, to refuse, and never to end"), target_fixture="told"
)
def tell_template(loaded: Loaded, words: int) -> Mapping[str, Text]:
    def ask(**arguments: Any) -> Text:
        messages = [{"role": "user", "content": PROMPT}]
        return loaded.ask(messages=messages, template_arguments=arguments, max_tokens=1)

    return {
        "short": ask(),
        "long": ask(words=words),
        "short prompt": loaded.ask(prompt=PROMPT, max_tokens=1),
        "long prompt": loaded.ask(prompt=PROMPT + f" {WORD.strip()}" * words, max_tokens=1),
        REFUSED: ask(how=REFUSED),
        ENDLESS: ask(how=ENDLESS),
    }


@then("so many words are read as the prompt")
def words_are_read(told: Mapping[str, Text]) -> None:
    tokens = {name: told[name].end.prompt_tokens for name in ("short", "long", "short prompt", "long prompt")}
    said, written = tokens["long"] - tokens["short"], tokens["long prompt"] - tokens["short prompt"]
    assert said == written, (
        f"words that the template wrote took {said} tokens, and the same in a prompt {written}: is the given template "
        "used, and told of `template_arguments`?"
    )


@then("the other two are refused as requests that are wrong")
def both_refused(told: Mapping[str, Text]) -> None:
    for how in (REFUSED, ENDLESS):
        error = told[how].error
        assert error is not None, f"a template that {how} the messages gave {told[how].text!r}"
        assert error.code == InvalidRequest.code, (
            f"a template that is {how} ends its own request, with InvalidRequest; it ended with {error.code}: {error}"
        )
    why = str(told[REFUSED].error)
    assert SAYS_NO in why, f"why the template refuses is not said: {why}"


@when("it is loaded with keys and values of 8 bits", target_fixture="smaller")
def load_in_fewer_bits(loaded: Loaded, model: str, backend: str) -> Loaded:
    try:
        return instead(loaded, model, backend, Tuning(cache_type_k="q8_0", cache_type_v="q8_0", flash_attention=True))
    except RbeeError as error:
        return skip_if_refused(error)


def skip_if_refused(error: RbeeError) -> Any:
    """Skip what this model has not got. Any other error is a failure."""
    if error.code in REFUSALS:
        pytest.skip(f"this model is not to be run like that: {error.message}")
    raise error


@then("less memory is set aside for it")
def less_memory(loaded: Loaded, smaller: Loaded) -> None:
    before, after = loaded.worker.reserved_bytes, smaller.worker.reserved_bytes
    assert after < before, (
        f"{before} bytes were set aside for keys and values of 16 bits, and {after} for those of 8: `estimate` should "
        "look at `LoadOptions.tuning`"
    )
    loaded.worker = smaller.worker  # of the two, the one that is there


@when("the model is loaded with flash attention, and without", target_fixture="ways")
def load_both_ways(hive: Hive, model: str, backend: str) -> Mapping[str, Text | RbeeError]:
    return {f"flash attention {on}": way(hive, model, backend, on=on == "on") for on in ("on", "off")}


def way(hive: Hive, model: str, backend: str, *, on: bool) -> Text | RbeeError:
    try:
        loaded = load(hive, model, backend, tuning=Tuning(flash_attention=on))
    except RbeeError as error:
        return error
    text = loaded.ask(prompt=PROMPT, max_tokens=FEW)
    hive.client.stop_worker(loaded.worker.worker_id)
    return text


@then("a text can be had in one of the two ways, and the other gives one too or is refused")
def had_one_way(ways: Mapping[str, Text | RbeeError]) -> None:
    for name, came in ways.items():
        error = came if isinstance(came, RbeeError) else came.error
        assert error is None or error.code in REFUSALS, f"with {name} it ended with {error}"
    assert any(isinstance(came, Text) and came.end.total_tokens for came in ways.values()), f"no text came: {ways}"


@when("a text is asked for with an adapter of random bytes", target_fixture="result")
def ask_with_adapter(asking: Asking, home: Home) -> Result:
    adapter = home.folder / "adapter"
    adapter.write_bytes(os.urandom(RUBBISH_BYTES))
    return asking.run("--lora", str(adapter))
