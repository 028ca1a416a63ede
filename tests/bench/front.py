"""What the hive costs between a client and a worker: decoding through a dialect, first tokens, many streams, refusals.

Run as ``python -m tests.bench.front [--rounds N] [--only ROW …] [--json]``. All sides of a row are asked in turns, in
one run. Rows but `decode` and `cpu` have the stub engine of tests/support: what is measured is the hive's own share.
`ceiling` gives the hive the first core for itself. Exits with 1 if a row falls short.
"""

import asyncio
import cProfile
import json
import pstats
import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles
from urllib.parse import urlsplit

import msgspec
import psutil

from rbee_core import wire
from rbee_core.dialects.anthropic.messages import MessagesTalk
from rbee_core.dialects.ollama import work as ollama
from rbee_core.dialects.openai import chat, completions
from rbee_core.dialects.talk import Moment, Talk
from tests.bench import peers, stub
from tests.bench.decode import add_threads
from tests.bench.many import STREAMS, TOKENS, decode_rate, prompt
from tests.bench.measure import Goal, arguments, exit_with, interleaved, ratio, report
from tests.bench.peers import Server, Terms
from tests.bench.streams import Stream, ask, ask_all
from tests.bench.stub import WORKERS, cpu_s

Found = tuple[dict[str, float], list[Goal]]
MANY, PER_S, SECONDS = 256, 10, 5
EVENTS = 2000
CROWD, QUEUE = 1000, 64
OPEN = 200
HI = [{"role": "user", "content": "one two three"}]
DIALECTS: Mapping[str, tuple[str, Callable[[str], dict[str, object]]]] = {
    "native": ("/v1/inference", lambda model: {"model_ref": model, "prompt": "one two three"}),
    "openai": ("/v1/chat/completions", lambda model: {"model": model, "messages": HI, "stream": True}),
    "anthropic": (
        "/v1/messages",
        lambda model: {"model": model, "messages": HI, "stream": True, "max_tokens": 100_000},
    ),
    "ollama": ("/api/chat", lambda model: {"model": model, "messages": HI}),
}


def chatting(server: Server) -> Server:
    """Return the same hive, asked through OpenAI's chat."""

    def body(text: str, tokens: int, chain: str) -> dict[str, object]:
        said: dict[str, object] = {"model": "smollm2", "messages": [{"role": "user", "content": text}]}
        said |= {"max_tokens": tokens, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
        return said | ({"temperature": 0} if chain == "greedy" else {})

    return Server(server.url.replace("/v1/inference", "/v1/chat/completions"), body)


def decode(threads: int, rounds: int) -> Found:
    """Decoding through OpenAI's chat beside the bare loops, prompts left out."""
    terms = Terms(threads, slots=STREAMS)
    with peers.through_hive(terms, speculation="off") as server, peers.bare_loop(terms) as bare:
        hive = chatting(server)
        measures = [
            lambda: decode_rate(hive.ask([prompt()], TOKENS)[0]),
            lambda: (TOKENS - 1) / bare.run([prompt()], TOKENS)["decode_s"],
            lambda: sum(map(decode_rate, hive.ask([prompt() for _ in range(STREAMS)], TOKENS))),
            lambda: STREAMS * (TOKENS - 1) / bare.run([prompt() for _ in range(STREAMS)], TOKENS)["decode_s"],
        ]
        one, bare_one, eight, bare_eight = interleaved(rounds, *measures)
    numbers = {"1 stream of a chat, tokens/s": median(one), "8 streams of a chat, tokens/s": median(eight)}
    return numbers, [
        Goal("1 stream of a chat / bare loop", ratio(one, bare_one), 0.97, at_least=True),
        Goal("8 streams of a chat / bare loop", ratio(eight, bare_eight), 0.95, at_least=True),
    ]


def cpu(threads: int, rounds: int) -> Found:
    """What the hive computes for a token of eight streams, beside what its worker does."""
    shares: list[float] = []
    each_us: list[float] = []
    with peers.through_hive(Terms(threads, slots=STREAMS), speculation="off") as server:
        from tests.bench.soak import processes

        both = processes(server)
        for _ in range(rounds):
            before = {name: cpu_s(process) for name, process in both.items()}
            streams = chatting(server).ask([prompt() for _ in range(STREAMS)], TOKENS)
            taken = {name: cpu_s(process) - before[name] for name, process in both.items()}
            shares.append(100 * taken["hive"] / taken["worker"])
            each_us.append(1e6 * taken["hive"] / sum(s.tokens for s in streams))
    return {"hive, CPU µs a token at 8 streams": median(each_us)}, [
        Goal("hive's CPU at 8 streams, of its worker's", median(shares), 5, unit="%")
    ]


def first_token(threads: int, rounds: int) -> Found:
    """What the hive adds to the first token of a worker that is idle."""
    del threads
    reference, added = stub.model(0, 1, 0, 1), dict[str, list[float]]()
    task = {"prompt": "one two three", "request_id": "r"}
    with stub.hive() as hive, stub.workers([reference], 1) as (direct,):
        sides = {name: (stub.url_of(hive, path), body(reference)) for name, (path, body) in DIALECTS.items()}
        for url, body in sides.values():
            ask_all(url, [body])
        asked = [lambda url=url, body=body: ask_all(url, [body])[0].first_s for url, body in sides.values()]
        alone, *through = interleaved(30 * rounds, lambda: ask_all(direct, [task])[0].first_s, *asked)
    for name, times in zip(sides, through, strict=True):
        added[name] = sorted(1000 * (a - b) for a, b in zip(times, alone, strict=True))
    numbers = {"first token of a worker alone, ms": 1000 * median(alone)}
    goals: list[Goal] = []
    for name, ms in added.items():
        goals.append(Goal(f"{name}: added to the first token, p50", median(ms), 1, unit="ms"))
        goals.append(Goal(f"{name}: added to the first token, p95", quantiles(ms, n=20)[-1], 3, unit="ms"))
    return numbers, goals


def stub_streams(threads: int, rounds: int) -> Found:
    """Many slow streams at a time, through the hive and from the workers directly."""
    del threads
    tokens, slots = PER_S * SECONDS, MANY // WORKERS
    models = [stub.model(number, tokens, 1000 / PER_S, slots) for number in range(WORKERS)]
    with stub.hive(slots_per_worker=slots) as hive, stub.workers(models, slots) as direct:
        path, body = DIALECTS["openai"]
        ours = [(stub.url_of(hive, path), body(models[n % WORKERS])) for n in range(MANY)]
        theirs = [(direct[n % WORKERS], {"prompt": "one two", "request_id": f"r{n}"}) for n in range(MANY)]
        together(ours[:WORKERS])
        rates: list[list[float]] = [[], []]
        worst: list[list[float]] = [[], []]
        for _ in range(rounds):
            for side, asked in enumerate((ours, theirs)):
                streams = together(asked)
                rates[side].append(MANY * tokens / max(s.last_s for s in streams))
                worst[side].append(max(max(s.gaps) / median(s.gaps) for s in streams))
    numbers = {"256 streams, tokens/s": median(rates[0]), "256 streams, workers alone, tokens/s": median(rates[1])}
    numbers["256 streams, workers alone, worst gap / its stream's usual"] = median(worst[1])
    return numbers, [
        Goal("256 streams / workers alone", ratio(*rates), 0.97, at_least=True),
        Goal("256 streams, worst gap / its stream's usual", median(worst[0]), 4),
    ]


def ceiling(threads: int, rounds: int) -> Found:
    """As many tokens as a hive can pass on, one core for itself; of its CPU time, so that clients do not count."""
    del threads
    numbers: dict[str, float] = {}
    goals: list[Goal] = []
    slots, tokens = 16, 1000
    models = [stub.model(number, tokens, 0, slots) for number in range(WORKERS)]
    with stub.hive(slots_per_worker=slots) as hive:
        for name, (path, body) in DIALECTS.items():
            asked = [(stub.url_of(hive, path), body(models[n % WORKERS])) for n in range(WORKERS * slots)]
            together(asked[:WORKERS])
            process, others = stub.processes(hive)
            first, *rest = range(psutil.cpu_count() or 1)
            process.cpu_affinity([first])
            for other in (*others, psutil.Process()):
                other.cpu_affinity(rest or [first])
            rates: list[float] = []
            possible: list[float] = []
            for _ in range(rounds):
                before, since = cpu_s(process), time.perf_counter()
                together(asked)
                taken, whole = cpu_s(process) - before, time.perf_counter() - since
                rates.append(len(asked) * tokens / whole)
                possible.append(len(asked) * tokens / taken)
            numbers[f"{name}: tokens/s that came, clients and workers on the other cores"] = median(rates)
            goals.append(Goal(f"{name}: tokens a second of the hive's CPU", median(possible), 8000, at_least=True))
    return numbers, goals


def crowd(threads: int, rounds: int) -> Found:
    """A thousand requests at once: whom the queue has no room for is told so, and soon."""
    del threads, rounds
    reference = stub.model(0, 10, 20, 4)
    with stub.hive(slots_per_worker=4, queue_limit=QUEUE, connections_at_once=2 * CROWD) as hive:
        path, body = DIALECTS["openai"]
        url = stub.url_of(hive, path)
        together([(url, body(reference))])
        process, before = psutil.Process(hive.pid), cpu_s(psutil.Process(hive.pid))
        answers = asyncio.run(_statuses(url, body(reference) | {"stream": False}, CROWD))
        taken_ms = 1000 * (cpu_s(process) - before) / CROWD
    refused = sorted(taken for status, taken in answers if status == 503)
    others = [status for status, _ in answers if status not in (200, 503)]
    numbers = {"answered": sum(status == 200 for status, _ in answers), "refused": len(refused)}
    numbers["hive's CPU for each of 1,000 requests, ms"] = taken_ms
    late = quantiles(refused, n=100)[-1] if len(refused) > 1 else 0.0
    return numbers, [
        Goal("neither answered nor refused, of 1,000", len(others), 0),
        Goal("a refusal among 1,000, p99", late, 1, unit="s"),
    ]


def memory(threads: int, rounds: int) -> Found:
    """What the hive holds for a stream that is open."""
    del threads, rounds
    slots = OPEN // WORKERS
    models = [stub.model(number, 60, 100, slots) for number in range(WORKERS)]
    with stub.hive(slots_per_worker=slots) as hive:
        path, body = DIALECTS["openai"]
        asked = [(stub.url_of(hive, path), body(models[n % WORKERS])) for n in range(OPEN)]
        together(asked[:WORKERS])
        process, _ = stub.processes(hive)
        before = process.memory_info().rss
        most = asyncio.run(_watched(asked, process))
    return {"hive, RSS MB": before / 1e6}, [
        Goal("hive's RSS for an open stream", (most - before) / OPEN / 1024, 100, unit="K")
    ]


def codec(threads: int, rounds: int) -> Found:
    """What each codec takes for one event of a stream, from the worker's event to the client's bytes."""
    del threads
    moment = Moment("r1", 1_700_000_000, "rbee-1")
    said = {"model": "m", "messages": HI, "stream": True, "max_tokens": 100_000}
    talks: dict[str, Callable[[], Talk]] = {
        "openai chat": lambda: chat.ChatTalk.read(json.dumps(said).encode(), moment),
        "openai completions": lambda: completions.CompletionTalk.read(
            json.dumps({"model": "m", "prompt": "x", "stream": True}).encode(), moment
        ),
        "anthropic": lambda: MessagesTalk.read(json.dumps(said).encode(), moment),
        "ollama chat": lambda: ollama.ChatTalk.read(json.dumps({"model": "m", "messages": HI}).encode(), moment),
    }
    lines = [msgspec.json.encode(wire.StreamEvent(token=f"word{n} ", index=n)) for n in range(EVENTS)]
    decoder = msgspec.json.Decoder(wire.StreamEvent)

    def taken(build: Callable[[], Talk]) -> float:
        talk = build()
        reader = talk.reader(0)
        talk.begins()
        since = time.process_time()
        for line in lines:
            talk.tells(0, reader.feed(decoder.decode(line)))
        return 1e6 * (time.process_time() - since) / EVENTS

    costs = interleaved(rounds, *(lambda build=build: taken(build) for build in talks.values()))
    profile = cProfile.Profile()
    profile.runcall(lambda: [taken(build) for build in talks.values()])
    pstats.Stats(profile).sort_stats("tottime").print_stats(12)
    return {}, [
        Goal(f"{name}: an event of a stream", median(cost), 30, unit="µ")
        for name, cost in zip(talks, costs, strict=True)
    ]


def together(asked: list[tuple[str, dict[str, object]]]) -> list[Stream]:
    """Ask all at once, each at its own address."""

    async def all_of_them() -> list[Stream]:
        return await asyncio.gather(*(ask(url, body) for url, body in asked))

    return asyncio.run(all_of_them())


async def _watched(asked: list[tuple[str, dict[str, object]]], process: psutil.Process) -> int:
    """Ask all at once, and return the most that `process` held meanwhile, in bytes."""
    most = 0
    streams = asyncio.gather(*(ask(url, body) for url, body in asked))
    while not streams.done():
        most = max(most, process.memory_info().rss)
        await asyncio.wait([streams], timeout=0.1)
    await streams
    return most


async def _statuses(url: str, body: dict[str, object], count: int) -> list[tuple[int, float]]:
    """Ask so many times at once; return each answer's status, 0 for none, and the seconds until its end."""
    parts, raw = urlsplit(url), json.dumps(body).encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(raw)}\r\n\r\n"
    )

    async def one() -> tuple[int, float]:
        since = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(head.encode() + raw)
            said = await reader.read()
            writer.close()
            return int(said.split(b" ", 2)[1]) if said else 0, time.perf_counter() - since
        except (OSError, ValueError, IndexError):
            return 0, time.perf_counter() - since

    return await asyncio.gather(*(one() for _ in range(count)))


ROWS: dict[str, Callable[[int, int], Found]] = {
    "decode": decode,
    "first_token": first_token,
    "stub_streams": stub_streams,
    "ceiling": ceiling,
    "cpu": cpu,
    "crowd": crowd,
    "memory": memory,
    "codec": codec,
}


def main() -> int:
    parser = arguments(__doc__, rounds=5)
    add_threads(parser)
    parser.add_argument("--only", nargs="+", choices=sorted(ROWS), help="some of the rows")
    options = parser.parse_args()
    goals: list[Goal] = []
    numbers: dict[str, float] = {}
    for name in options.only or ROWS:
        found, wanted = ROWS[name](options.threads, options.rounds)
        numbers |= found
        goals += wanted
    return report(goals, numbers, as_json=options.json)


if __name__ == "__main__":
    exit_with(main)
