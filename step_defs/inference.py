"""Steps about asking for text, alone or in the background, and about what comes back."""

import json
import re
import signal

from pytest_bdd import given, parsers, then, when

from rbee_core import wire
from rbee_kit.asking import PROMPT, UNTIL_KILLED, Asking
from step_defs.support import Home, Program, Result, eventually

Table = list[list[str]]

# How they go on is beyond doubt, whatever the last bits say.
ALPHABET = "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 6 + "a b c"
COUNTING = "1 2 3 4 5 6 7 8 9 " * 9 + "1 2 3"


def flags(table: Table) -> list[str]:
    """Turn a table of options into a command line."""
    return [word for name, *values in table for word in (f"--{name}", *values)]


@given("somebody is receiving its text", target_fixture="program")
def receiving(asking: Asking) -> Program:
    program = asking.start("--max-tokens", UNTIL_KILLED)
    eventually(lambda: program.stdout or not program.running(), 20, what="the first word")
    assert program.running(), program.stderr
    return program


@given("somebody is waiting for its text", target_fixture="program")
def waiting(asking: Asking) -> Program:
    program = asking.start("--max-tokens", UNTIL_KILLED)
    eventually(lambda: "[Phase 7] Waiting" in program.stderr or not program.running(), 20, what="phase 7")
    assert program.running(), program.stderr
    return program


@given(parsers.parse("a text was asked for with seed {seed:d}"), target_fixture="earlier")
def asked_before(asking: Asking, seed: int) -> Result:
    return asking.run("--seed", str(seed))


@given("two long prompts were answered by a worker with one slot", target_fixture="earlier")
def two_were_answered(asking: Asking) -> Result:
    first, _second = (
        asking.run("--slots", "1", "--temperature", "0", prompt=prompt) for prompt in (ALPHABET, COUNTING)
    )
    return first


@when("the first of them is given to it again", target_fixture="result")
def give_first_again(asking: Asking) -> Result:
    return asking.run("--slots", "1", "--temperature", "0", prompt=ALPHABET)


@when("a text is asked for", target_fixture="result")
def ask(asking: Asking) -> Result:
    return asking.run()


@when("a text is asked for without queueing", target_fixture="result")
def ask_without_queueing(asking: Asking) -> Result:
    return asking.run("--no-queue")


@when("a text is asked for with", target_fixture="result")
def ask_with(asking: Asking, datatable: Table) -> Result:
    return asking.run(*flags(datatable))


@when(parsers.parse("a text of {tokens:d} tokens is asked for"), target_fixture="result")
def ask_for_tokens(asking: Asking, tokens: int) -> Result:
    return asking.run("--max-tokens", str(tokens))


@when(parsers.parse("a text of {tokens:d} tokens is asked for with"), target_fixture="result")
def ask_for_tokens_with(asking: Asking, tokens: int, datatable: Table) -> Result:
    return asking.run("--max-tokens", str(tokens), *flags(datatable))


@when("a text is asked for through a pipe", target_fixture="result")
def ask_through_pipe(asking: Asking) -> Result:
    return asking.run(prompt=None, stdin=PROMPT.encode())


@when("bytes that are no text are piped in", target_fixture="result")
def pipe_rubbish(asking: Asking) -> Result:
    return asking.run(prompt=None, stdin=b"\xff\xfe\x00")


@when("a text is asked for that stops at a word of that text", target_fixture="result")
def ask_with_stop(asking: Asking, earlier: Result) -> Result:
    return asking.run("--seed", "7", "--stop", earlier.stdout.split()[3])


@when("a text is asked for on that node", target_fixture="result")
def ask_on_node(asking: Asking, port: int) -> Result:
    return asking.run("--node", f"127.0.0.1:{port}")


@when(parsers.parse('the model is asked "{question}"'), target_fixture="result")
def ask_question(asking: Asking, question: str) -> Result:
    return asking.run("--temperature", "0", "--max-tokens", "40", prompt=question, raw=False)


@when("a conversation is insisted on", target_fixture="result")
def insist_on_conversation(asking: Asking) -> Result:
    return asking.run("--chat", raw=False)


@when(parsers.re(r"the model is given (?P<what>no text|blanks|no chat text)"), target_fixture="result")
def give_empty_prompt(asking: Asking, what: str) -> Result:
    prompt, options = {"no text": ("", []), "blanks": (" \n\t", []), "no chat text": ("", ["--chat"])}[what]
    return asking.run(*options, prompt=prompt, raw=not options)


@when(parsers.parse("a prompt of {words:d} words is given to a context of {tokens:d} tokens"), target_fixture="result")
def give_long_prompt(asking: Asking, words: int, tokens: int) -> Result:
    return asking.run("--context", str(tokens), prompt="word " * words)


@when(parsers.re(r"the command gets (?P<name>SIG\w+)"), target_fixture="result")
def signal_command(program: Program, name: str) -> Result:
    program.signal(signal.Signals[name])
    return program.finish()


@when("the command is interrupted twice", target_fixture="result")
def interrupt_twice(home: Home, program: Program) -> Result:
    program.signal(signal.SIGINT)
    eventually(lambda: "the hive is shutting down" in home.log("hive"), what="the first Ctrl+C was taken")
    program.signal(signal.SIGINT)
    return program.finish()


@then(parsers.parse("the command ends with exit code {code:d}"), target_fixture="result")
def command_ends(program: Program, code: int) -> Result:
    result = program.finish(10)
    assert result.exit_code == code
    return result


@then("the text was received whole")
def received_whole(program: Program) -> None:
    assert program.finish().exit_code == 0
    assert len(program.stdout.split()) == 30


@then("stdout holds the generated text and nothing else")
def only_text(result: Result) -> None:
    assert result.stdout.strip()
    assert not re.search(r"Phase|✓|Tokens:|Speed|tokens/sec", result.stdout)


@then("stdout holds a text")
def some_text(result: Result) -> None:
    assert result.stdout.strip()


@then(parsers.re(r"stdout holds (?P<count>\d+) words"), converters={"count": int})
def words_on_stdout(result: Result, count: int) -> None:
    assert len(result.stdout.split()) == count


@then(parsers.parse('stdout is "{text}"'))
def stdout_is(result: Result, text: str) -> None:
    assert result.stdout.strip() == text


@then("stderr is empty")
def stderr_is_empty(result: Result) -> None:
    assert result.stderr == ""


@then("the summary counts tokens, time and speed")
def summary(result: Result) -> None:
    counts = r"Total tokens: \d+\nDuration: \d+ ms\nSpeed: \d+\.\d\d tokens/sec\n"
    prompt = r"(Prompt: \d+ tokens(, \d+ of them cached)?(, \d+\.\d\d tokens/sec)?\n)?"
    apart = prompt + r"(Generation: \d+ tokens, \d+\.\d\d tokens/sec\n)?"
    last = re.compile(counts + apart + r"(Context: \d+ tokens\n)?$")
    assert last.search(result.stderr)


@then(parsers.parse("stdout is one object with the text and {tokens:d} tokens"))
def one_object(result: Result, tokens: int) -> None:
    answer = json.loads(result.stdout)
    assert answer["text"].strip()
    assert answer["tokens"] == tokens


@then("the object names model, backend, worker and the phases with their durations")
def object_names(result: Result) -> None:
    answer = json.loads(result.stdout)
    assert all(answer[name] for name in ("model", "backend", "worker"))
    assert [phase["phase"] for phase in answer["phases"]] == ["1", "2", "3-5", "6", "7", "8"]
    assert all(phase["duration_ms"] >= 0 for phase in answer["phases"])


@then(parsers.re(r'phase (?P<number>\d) is "(?P<words>.*)"'))
def phase_is(result: Result, number: str, words: str) -> None:
    assert f"[Phase {number}] {words}\n" in result.stderr


@then(parsers.re(r'phase (?P<number>\d) ends with "(?P<words>.*)"'))
def phase_ends_with(result: Result, number: str, words: str) -> None:
    assert re.search(rf"^\[Phase {number}\].*{re.escape(words)}$", result.stderr, re.MULTILINE)


@then("phase 1 found that worker")
def phase_1_found(result: Result, worker: wire.WorkerInfo) -> None:
    assert result.stderr.startswith(f"[Phase 1] ✓ Found idle worker: {worker.worker_id}\n")


@then("phase 8 followed")
def phase_8_followed(result: Result) -> None:
    assert re.findall(r"\[Phase ([\d-]+)\]", result.stderr) == ["1", "8"]


@then("the text is the same as before")
def same_text(result: Result, earlier: Result) -> None:
    assert result.stdout == earlier.stdout


@then("the text is another one than before")
def another_text(result: Result, earlier: Result) -> None:
    assert result.stdout != earlier.stdout


@then("the text is what came before that word")
def text_before_stop(result: Result, earlier: Result) -> None:
    assert result.stdout.strip() == earlier.stdout.partition(earlier.stdout.split()[3])[0].strip()


@then(parsers.parse('the text mentions "{word}"'))
def text_mentions(result: Result, word: str) -> None:
    assert word in result.stdout


@then("the text ended by itself")
def ended_by_itself(result: Result) -> None:
    assert "Total tokens: 40" not in result.stderr


@then("both numbers of tokens are named")
def both_numbers(result: Result) -> None:
    assert re.search(r"The prompt has 30\d tokens, the context holds 256", result.stderr)


@then(parsers.parse("it was tried again {times:d} times"))
def tried_again(result: Result, times: int) -> None:
    assert result.stderr.count("trying again in") == times
