"""Many requests at once: rbee's hive beside the bare loop and two other servers, all in one run.

Run as ``python -m tests.bench.many [--rounds N] [--xllamacpp FOLDER] [--server FOLDER PROGRAM] [--only ROW …] [--json]
[--page FILE]``: the FOLDERs hold xllamacpp, and what llama-cpp-python's ``examples/server/server.py`` imports, as
`pip install --target` puts them. In each round every side does the same, one after the other; a row is the median of
the rounds' ratios. `--page` writes the table for people. Exits with 1 if a row falls short.
"""

import itertools
import random
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from statistics import median

from tests.bench import page, peers
from tests.bench.decode import add_threads
from tests.bench.measure import Goal, arguments, exit_with, interleaved, ratio, report
from tests.bench.peers import BareLoop, Server, Terms
from tests.bench.streams import Stream, ask_all, rate

TOKENS = 96
STREAMS = 8
LONG_TOKENS = 4000
PREFIX_TOKENS = 1000
ROOMY_SLOTS = 2
SUBJECTS = ("bees", "the sea", "a lighthouse", "old maps", "winter", "a train", "bread", "the moon", "a river", "chess")
NUMBERS = itertools.count(1)
FABLE = (
    "A crow was thirsty and found a jug with a little water at the bottom. She could not reach it with her "
    "beak, so she dropped stones into the jug, one by one, until the water rose and she could drink. A fox who"
    " had watched from behind a bush asked her who had taught her that. Nobody, said the crow, I was thirsty. "
    "The fox went home and filled his own jug with stones, and wondered why no water came. His wife looked "
    "into it and laughed. You have to begin with water, she said, and emptied it out over the flowers in front"
    " of their door."
)

Found = tuple[dict[str, float], list[Goal]]


def prompt() -> str:
    """Return a prompt of some fifteen tokens that was not asked before: nothing of it is in any cache."""
    number = next(NUMBERS)
    return f"{number}. Once upon a time somebody told a story about {SUBJECTS[number % len(SUBJECTS)]}, and it began"


def words(tokens: int) -> str:
    """Return a text of about so many tokens that was not asked before."""
    chosen = random.Random(next(NUMBERS))
    return " ".join(chosen.choice(("bee", "sea", "map", "snow", "train", "bread", "moon")) for _ in range(tokens))


def decode_rate(stream: Stream) -> float:
    return (stream.tokens - 1) / (stream.last_s - stream.first_s)


class Sides:
    """The servers and the loop, each started when it is first needed, all ended with the bench."""

    def __init__(self, options: Namespace, stack: ExitStack) -> None:
        self._options = options
        self._stack = stack
        self._terms = Terms(options.threads, slots=STREAMS)

    @cached_property
    def hive(self) -> Server:
        """A hive that guesses nothing: it does the work that the others do."""
        return self._stack.enter_context(peers.through_hive(self._terms, speculation="off"))

    @cached_property
    def guessing_hive(self) -> Server:
        return self._stack.enter_context(peers.through_hive(self._terms))

    @cached_property
    def roomy_hive(self) -> Server:
        """A hive whose requests may be long."""
        terms = Terms(self._options.threads, slots=ROOMY_SLOTS, context_tokens=LONG_TOKENS + 1000)
        return self._stack.enter_context(peers.through_hive(terms, speculation="off"))

    @cached_property
    def bare(self) -> BareLoop:
        return self._stack.enter_context(peers.bare_loop(self._terms))

    @cached_property
    def others(self) -> dict[str, Server]:
        """Those that were named on the command line."""
        options, enter, found = self._options, self._stack.enter_context, dict[str, Server]()
        if options.xllamacpp:
            found["llama-server"] = enter(peers.llama_server(options.xllamacpp, self._terms))
        if options.server:
            folder, program = map(Path, options.server)
            found["server.py"] = enter(peers.python_server(folder, program, self._terms))
        return found


def one_stream(sides: Sides, rounds: int) -> Found:
    """Decoding of one stream, the prompt left out; greedy, and with the default sampling."""
    hive, bare = sides.hive, sides.bare

    def looped(chain: str) -> float:
        return (TOKENS - 1) / bare.run([prompt()], TOKENS, chain)["decode_s"]

    def asked(chain: str) -> float:
        return decode_rate(hive.ask([prompt()], TOKENS, chain)[0])

    measures = [lambda c=c, m=m: m(c) for c in ("greedy", "default") for m in (asked, looped)]
    greedy, bare_greedy, default, bare_default = interleaved(rounds, *measures)
    numbers = {"1 stream, tokens/s": median(greedy), "1 stream, bare loop, tokens/s": median(bare_greedy)}
    return numbers, [
        Goal("1 stream, greedy / bare loop", ratio(greedy, bare_greedy), 0.97, at_least=True),
        Goal("1 stream, default sampling / bare loop with it", ratio(default, bare_default), 0.97, at_least=True),
        Goal("1 stream, default sampling / bare greedy loop", ratio(default, bare_greedy), 0.93, at_least=True),
    ]


def eight_streams(sides: Sides, rounds: int) -> Found:
    """All tokens of eight streams a second, reading their prompts included."""
    hive, bare = sides.hive, sides.bare

    def looped() -> float:
        taken = bare.run([prompt() for _ in range(STREAMS)], TOKENS)
        return STREAMS * TOKENS / (taken["prefill_s"] + taken["decode_s"])

    def asked() -> float:
        return rate(hive.ask([prompt() for _ in range(STREAMS)], TOKENS))

    ours, alone = interleaved(rounds, asked, looped)
    numbers = {"8 streams, tokens/s": median(ours), "8 streams, bare loop, tokens/s": median(alone)}
    return numbers, [Goal("8 streams / bare loop of 8", ratio(ours, alone), 0.95, at_least=True)]


def beside_others(sides: Sides, rounds: int) -> Found:
    """One and eight streams beside other servers, reading the prompts included."""
    numbers: dict[str, float] = {}
    goals: list[Goal] = []
    for name, other in sides.others.items():
        for streams in (1, STREAMS):

            def asked(server: Server, streams: int = streams) -> float:
                return rate(server.ask([prompt() for _ in range(streams)], TOKENS))

            ours, theirs = interleaved(rounds, lambda: asked(sides.hive), lambda other=other: asked(other))
            numbers[f"{streams} streams, {name}, tokens/s"] = median(theirs)
            goals.append(Goal(f"{streams} streams / {name}", ratio(ours, theirs), 1.0, at_least=True))
    return numbers, goals


def first_token(sides: Sides, rounds: int) -> Found:
    """What rbee adds to reading a prompt of forty tokens, with a worker that is loaded and idle."""
    hive, bare = sides.hive, sides.bare
    ours, alone = interleaved(
        rounds, lambda: hive.ask([words(40)], 2)[0].first_s, lambda: bare.run([words(40)], 1)["prefill_s"]
    )
    added_ms = 1000 * median(a - b for a, b in zip(ours, alone, strict=True))
    numbers = {"first token, s": median(ours), "the same, bare prefill, s": median(alone)}
    return numbers, [Goal("first token, warm: added to bare prefill", added_ms, 5, unit="ms")]


def shared_prefix(sides: Sides, rounds: int) -> Found:
    """The first token of a request that begins as an earlier one did; also once others have used all slots since."""
    hive = sides.roomy_hive
    first: list[float] = []
    second: list[float] = []
    third: list[float] = []
    for _ in range(rounds):
        text = words(PREFIX_TOKENS)
        first += [hive.ask([f"{text} one"], 2)[0].first_s]
        second += [hive.ask([f"{text} two"], 2)[0].first_s]
        for _other in range(ROOMY_SLOTS):
            hive.ask([words(PREFIX_TOKENS // 4)], 2)
        third += [hive.ask([f"{text} three"], 2)[0].first_s]
    numbers = {
        "1,000 tokens, first token, s": median(first),
        "the same prefix again, s": median(second),
        "the same, others had its slot since, s": median(third),
    }
    return numbers, [
        Goal("first token after a shared prefix / before", ratio(second, first), 0.1),
        Goal("the same, where others had its slot since", ratio(third, first), 0.1),
    ]


def long_prompt(sides: Sides, rounds: int) -> Found:
    """The worst gap of a running stream while a long prompt is read, beside its usual one."""
    hive = sides.roomy_hive

    def worst() -> float:
        bodies = [hive.body(prompt(), 4 * TOKENS, "greedy"), hive.body(words(LONG_TOKENS), 2, "greedy")]
        return max(ask_all(hive.url, bodies, [0.0, 0.5])[0].gaps)

    def usual() -> float:
        return median(hive.ask([prompt()], TOKENS)[0].gaps)

    worsts, usuals = interleaved(rounds, worst, usual)
    numbers = {"usual gap, s": median(usuals), "worst gap beside 4,000 tokens, s": median(worsts)}
    return numbers, [Goal("worst gap beside a long prompt / usual", ratio(worsts, usuals), 5)]


def guesses(sides: Sides, rounds: int) -> Found:
    """Decoding of one stream with guesses and without: of a text that quotes its prompt, and of free prose."""
    on, off = sides.guessing_hive, sides.hive

    def quoted() -> str:
        return f"Text {next(NUMBERS)}:\n{FABLE}\n\nThe same text again:\n{FABLE[:60]}"

    def written(server: Server, made: Callable[[], str], chain: str) -> float:
        return decode_rate(server.ask([made()], TOKENS, chain)[0])

    sides_of = [(quoted, "greedy"), (prompt, "default")]
    measures = [lambda s=s, m=m, c=c: written(s, m, c) for m, c in sides_of for s in (on, off)]
    quoting, quoting_off, prose, prose_off = interleaved(rounds, *measures)
    numbers = {"quotation, guessed, tokens/s": median(quoting), "quotation, tokens/s": median(quoting_off)}
    return numbers, [
        Goal("a text that quotes its prompt, guessed / not", ratio(quoting, quoting_off), 1.5, at_least=True),
        Goal("free prose, guessed / not", ratio(prose, prose_off), 0.98, at_least=True),
    ]


ROWS: dict[str, Callable[[Sides, int], Found]] = {
    "one_stream": one_stream,
    "eight_streams": eight_streams,
    "beside_others": beside_others,
    "first_token": first_token,
    "shared_prefix": shared_prefix,
    "long_prompt": long_prompt,
    "guesses": guesses,
}


def main() -> int:
    parser = arguments(__doc__, rounds=9)
    add_threads(parser)
    parser.add_argument("--xllamacpp", type=Path, metavar="FOLDER", help="where xllamacpp is installed")
    parser.add_argument("--server", nargs=2, metavar=("FOLDER", "PROGRAM"), help="what server.py needs, and itself")
    parser.add_argument("--only", nargs="+", choices=sorted(ROWS), help="some of the rows")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table there, as Markdown")
    options = parser.parse_args()
    goals: list[Goal] = []
    numbers: dict[str, float] = {}
    with ExitStack() as stack:
        sides = Sides(options, stack)
        for name in options.only or ROWS:
            found, wanted = ROWS[name](sides, options.rounds)
            numbers |= found
            goals += wanted
    if options.page:
        options.page.write_text(page.of(goals, numbers, rounds=options.rounds, threads=options.threads))
    return report(goals, numbers, as_json=options.json)


if __name__ == "__main__":
    exit_with(main)
