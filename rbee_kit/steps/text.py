"""Steps about one text: asking for it, and what its stream says."""

from concurrent.futures import ThreadPoolExecutor

from pytest_bdd import given, parsers, then, when

from rbee_core.client import HiveClient
from rbee_kit.asking import PROMPT
from rbee_kit.loaded import WORD, Loaded, Text, load
from rbee_kit.program import Hive

BEES = "Grüße, 蜂蜜 🐝🐝🐝 пчела μέλισσα 🐝🐝🐝🐝🐝🐝"
REPLACED = "\N{REPLACEMENT CHARACTER}"
MISCOUNTED = 0.25
SOON_S = 0.2
SEEDED_TOKENS = 8
FILLING_S = 240.0
BRIM = 2  # so many tokens may stay free in a context that counts as full


@given(parsers.parse("{tokens:d} tokens were asked for"), target_fixture="earlier")
@when(parsers.parse("{tokens:d} tokens are asked for"), target_fixture="text")
def ask_for_text(loaded: Loaded, tokens: int) -> Text:
    return loaded.ask(prompt=PROMPT, max_tokens=tokens)


@when("the same text is asked for again", target_fixture="text")
def ask_again(loaded: Loaded, earlier: Text) -> Text:
    return loaded.ask(prompt=PROMPT, max_tokens=earlier.end.total_tokens)


@given("they were the same when they were asked for again, as temperature 0 is greedy")
def greedy(loaded: Loaded, earlier: Text) -> None:
    again = ask_again(loaded, earlier)
    assert again.text == earlier.text, (
        f"at temperature 0 one request gave two texts, {earlier.text!r} and {again.text!r}: the likeliest token is "
        "always the same"
    )


@when("the same text is asked for up to a word in it", target_fixture="text")
def ask_up_to_word(loaded: Loaded, earlier: Text) -> Text:
    return loaded.ask(prompt=PROMPT, max_tokens=earlier.end.total_tokens, stop=[word_in(earlier)])


@when("a text is asked for that goes on from bees in many scripts", target_fixture="text")
def ask_in_scripts(loaded: Loaded) -> Text:
    return loaded.ask(prompt=BEES, max_tokens=32)


@when(parsers.parse("a text is asked for with a prompt of {words:d} words"), target_fixture="text")
def ask_with_long_prompt(loaded: Loaded, words: int) -> Text:
    return loaded.ask(prompt=WORD * words, max_tokens=4)


@when(parsers.parse("a text is asked for that has room for {tokens:d} tokens"), target_fixture="text")
def ask_for_brim(loaded: Loaded, tokens: int) -> Text:
    # One word again and again: a model goes on with that for longer than there is room.
    wanted = loaded.worker.context_tokens - tokens
    text = loaded.ask(prompt=loaded.prompt_of(wanted), timeout_s=FILLING_S)
    assert text.error is None or text.error.code != "PROMPT_TOO_LONG", (
        f"short prompts are counted wrongly: by their counts this one has {wanted} tokens at most, and it is refused "
        f"as one of {text.error.details['prompt_tokens']}"
    )
    return text


@when(parsers.parse("a text is asked for with each of the seeds {seeds}"), target_fixture="texts")
def ask_with_seeds(loaded: Loaded, seeds: str) -> list[tuple[str, str]]:
    return [(seed, ask_with_seed(loaded, int(seed))) for seed in seeds.split(", ")]


@when(parsers.parse("two people at a time ask for a text with each of the seeds {seeds}"), target_fixture="texts")
def ask_with_seeds_at_once(loaded: Loaded, seeds: str) -> list[tuple[str, str]]:
    named = seeds.split(", ")
    with ThreadPoolExecutor(2) as people:
        texts = [people.submit(ask_with_seed, loaded, int(seed), loaded.hive.connect()) for seed in named]
        return [(seed, text.result()) for seed, text in zip(named, texts, strict=True)]


def ask_with_seed(loaded: Loaded, seed: int, client: HiveClient | None = None) -> str:
    text = loaded.ask(client, prompt=PROMPT, max_tokens=SEEDED_TOKENS, temperature=1.5, seed=seed)
    assert text.error is None, str(text.error)
    return text.text


@given(parsers.parse('the model was asked in a conversation "{question}"'), target_fixture="earlier")
@when(parsers.parse('the model is asked in a conversation "{question}"'), target_fixture="text")
def ask_in_conversation(loaded: Loaded, question: str) -> Text:
    return loaded.ask(messages=[{"role": "user", "content": question}], max_tokens=16)


@when(parsers.parse('the model is asked, through its template if it has one, "{question}"'), target_fixture="text")
def ask_a_question(loaded: Loaded, question: str) -> Text:
    return loaded.ask(prompt=question, chat_template="if_any", max_tokens=16)


def word_in(text: Text) -> str:
    """Return a word from the middle of a text."""
    words = text.text.split()
    assert words, "the text has no words"
    return words[len(words) // 2]


@then("a text can be had")
def text_can_be_had(loaded: Loaded) -> None:
    text = loaded.ask(prompt=PROMPT, max_tokens=4)
    assert text.end.total_tokens > 0


@then("the text came whole")
def came_whole(text: Text) -> None:
    assert text.error is None, str(text.error)
    assert text.end.finish_reason in ("stop", "length")


@then("its tokens are numbered in order")
def numbered(text: Text) -> None:
    numbers = [token.index for token in text.tokens]
    assert numbers == sorted(set(numbers))
    assert all(0 <= number < text.end.total_tokens for number in numbers)


@then("it has exactly one last word")
def one_last_word(text: Text) -> None:
    assert text.last_words == [text.events[-1]]


@then(parsers.parse("it has at most {tokens:d} tokens"))
def at_most(text: Text, tokens: int) -> None:
    assert len(text.tokens) <= text.end.total_tokens <= tokens


@then(parsers.parse("a text that ended for its length has all {tokens:d} tokens"))
def length_is_length(text: Text, tokens: int) -> None:
    had = text.end.total_tokens
    assert text.end.finish_reason != "length" or had == tokens, (
        f"it ended for its length after {had} of {tokens} tokens"
    )


@then("reading it back as a prompt takes about as many tokens as it had")
def counted_truly(loaded: Loaded, text: Text) -> None:
    before, after = loaded.prompt_tokens(PROMPT), loaded.prompt_tokens(PROMPT + text.text)
    had = text.end.total_tokens
    tolerance = max(2, had * MISCOUNTED)
    assert (before, after) == (0, 0) or abs(after - before - had) <= tolerance, (
        f"{had} tokens were counted as they came, {after - before} as they were read back"
    )


@then("no character of it is broken")
def whole_characters(text: Text) -> None:
    # The last one may be: the text ended at a number of tokens, which may be in the middle of a character.
    whole = text.text.rstrip(REPLACED)
    assert REPLACED not in whole, f"a character is broken: {text.text!r}"
    assert len(text.text) - len(whole) <= 1, f"the last characters are broken: {text.text!r}"


@then("it is what came before that word")
def before_word(text: Text, earlier: Text) -> None:
    assert text.end.finish_reason == "stop"
    assert text.text == earlier.text.partition(word_in(earlier))[0]


@then("it is refused because the prompt is too long")
def prompt_too_long(text: Text) -> None:
    assert text.error is not None, "it was not refused"
    assert (text.error.code, text.tokens) == ("PROMPT_TOO_LONG", [])


@then("the refusal names the tokens of the prompt and the tokens that fit")
def both_numbers(loaded: Loaded, text: Text) -> None:
    assert text.error is not None
    told = text.error.details
    prompt, context, real = told["prompt_tokens"], told["context_tokens"], loaded.worker.context_tokens
    assert prompt > context, (
        f"it says that a prompt of {prompt} tokens is too long for {context}: are the two numbers of PromptTooLong "
        "swapped?"
    )
    assert context == real, f"it says that {context} tokens fit, the worker's context has {real}"
    assert all(str(number) in str(text.error) for number in told.values())


@then("prompt and text were counted truly, and no more than fit")
def counted_to_the_brim(loaded: Loaded, text: Text) -> None:
    prompt, tokens, context = text.end.prompt_tokens, text.end.total_tokens, loaded.worker.context_tokens
    assert prompt > 0, "it does not say how many tokens a prompt has: `generate` should yield PromptDone"
    assert prompt + tokens <= context + 1, (
        f"a prompt of {prompt} tokens and a text of {tokens} are more than a context of {context} holds: the prompt is "
        "miscounted, or the context not kept"
    )
    assert text.end.finish_reason != "length" or prompt + tokens >= context - BRIM, (
        f"the text ended for its length with {prompt} tokens of prompt and {tokens} of its own, in a context of "
        f"{context}: the prompt is miscounted, or the text ended early"
    )


@then("it says that it ended for its length")
def ended_for_length(loaded: Loaded, text: Text) -> None:
    full = text.end.prompt_tokens + text.end.total_tokens >= loaded.worker.context_tokens - BRIM
    assert text.end.finish_reason == "length" or not full, (
        "the context was full, and the text ended with stop: Finished should say length there"
    )


@then("its first token came in the first half of the time")
def first_token_is_early(text: Text) -> None:
    first, last = text.arrived_s[0], text.arrived_s[-1]
    assert first < last / 2 or last < SOON_S, f"the first token came after {first:.2f} of {last:.2f} s"


@then("it is the same text")
def same_text(text: Text, earlier: Text) -> None:
    assert text.text == earlier.text, f"it is another text: {earlier.text!r} before, then {text.text!r}"


@then("its last word says that it went through the template")
def says_template(text: Text) -> None:
    assert text.end.chat_template, "EngineInfo.chat_template does not say that the model has a template"


@then("each seed gave one text")
def each_seed_one_text(texts: list[tuple[str, str]]) -> None:
    for seed, text in texts:
        first = dict(reversed(texts))[seed]
        assert text == first, f"a seed gave two texts: with {seed} it was {first!r}, then {text!r}"


@then("each gives the same text in the next worker")
def same_in_next_worker(hive: Hive, model: str, backend: str, loaded: Loaded, texts: list[tuple[str, str]]) -> None:
    hive.client.stop_worker(loaded.worker.worker_id)
    following = load(hive, model, backend)
    for seed, text in dict(texts).items():
        again = ask_with_seed(following, int(seed))
        assert again == text, f"seed {seed} gave another text in the next worker's process: {text!r}, then {again!r}"


@then("the seeds did not all give the same text")
def seeds_differ(texts: list[tuple[str, str]]) -> None:
    assert len({text for _, text in texts}) > 1, f"all seeds gave one text: {texts}"


@then("the conversation took more tokens than the question alone")
def template_was_used(loaded: Loaded, text: Text) -> None:
    alone = loaded.prompt_tokens("What is 2 + 2?")
    assert text.end.prompt_tokens > alone, f"{text.end.prompt_tokens} and {alone} tokens"
